"""Prometheus metrics, scraped while a run lasts."""

import re
import socket
import urllib.request
from pathlib import Path

import pytest
from conftest import free_port
from tiny import make_tiny_shards

from tastemaker.errors import ConfigurationError
from tastemaker.runs.run import RunMode, RunOptions, run_scoring

pytestmark = pytest.mark.network


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def shards(tmp_path):
    return [str(path) for path in sorted(make_tiny_shards(tmp_path / "in", images=7).iterdir())]


def scrape(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


def test_metrics_tell_this_machine_how_far_a_run_is_while_it_lasts(tmp_path, shards, model_dir, port):
    options, scrapes, addresses = RunOptions(model_dir=str(model_dir), batch_size=4), [], set()
    run_scoring(shards[:1], tmp_path / "out", options)

    def look(_progress):
        scrapes.append(scrape(port))
        listening = (line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines() if " 0A " in line)
        addresses.update(address for address in listening if address.endswith(f":{port:04X}"))

    summary = run_scoring(shards, tmp_path / "out", options, RunMode(metrics_port=port), on_progress=look)
    assert len(scrapes) == 5  # at the start, and after each batch
    assert [scraped["tastemaker_images_processed_total"] for scraped in scrapes] == [0, 4, 7, 11, 14]
    first, last = scrapes[0], scrapes[-1]
    assert (first["tastemaker_partitions"], first["tastemaker_partitions_done"]) == (3, 1)
    assert (first['tastemaker_images{status="kept"}'], first['tastemaker_images{status="failed"}']) == (6, 1)
    assert last["tastemaker_source_bytes_total"] <= last["tastemaker_source_bytes_planned"]
    assert last["tastemaker_last_batch_timestamp_seconds"] > 1.7e9
    busy = {name for name, value in last.items() if re.search(r'stage_seconds_total.*state="busy"', name) and value > 0}
    assert any("image_embedding" in name for name in busy)
    assert summary.images == 21
    assert addresses == {f"0100007F:{port:04X}"}  # 127.0.0.1 only
    with pytest.raises(OSError, match="refused"):
        scrape(port)  # the run is over


def test_a_port_that_is_taken_is_an_error(tmp_path, shards, model_dir, port):
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(ConfigurationError, match=f"metrics port {port}"):
            run_scoring(shards, tmp_path / "out", RunOptions(model_dir=str(model_dir)), RunMode(metrics_port=port))
