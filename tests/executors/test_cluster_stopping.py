"""Runs of the command line on Xenna and Ray Data that are told to stop: one line, nothing left, and the same rows."""

import json
import os
import signal
import subprocess
import sys

import pytest
from cluster_stages import marked_processes, wait_until, write_shards
from conftest import rows_by_file

from tastemaker.scores.files import TEMPORARY_PREFIX

pytestmark = [pytest.mark.ray, pytest.mark.slow]
pytest.importorskip("ray")


@pytest.fixture(scope="module")
def shards(tmp_path_factory, photographs):
    return write_shards(tmp_path_factory.mktemp("data") / "shards", photographs, shards=20, images=30)


@pytest.fixture(scope="module")
def expected(shards, model_dir, tmp_path_factory):
    """The rows of a run on this machine that nobody stopped."""
    output = tmp_path_factory.mktemp("whole") / "out"
    environment = {**os.environ, "TASTEMAKER_MODEL_DIR": str(model_dir)}
    subprocess.run(command_line(shards, output, "local"), env=environment, check=True, capture_output=True)
    return rows_by_file(output)


def command_line(shards, output, engine):
    where = ["-o", str(output), "--executor", engine, "--batch-size", "4"]
    return [sys.executable, "-m", "tastemaker", "score", str(shards), *where]


@pytest.mark.parametrize(
    ("engine", "number", "to_all"),
    [
        ("xenna", signal.SIGTERM, True),
        ("ray-data", signal.SIGTERM, False),
        ("ray-data", signal.SIGTERM, True),
        ("ray-data", signal.SIGINT, True),
    ],
)
def test_a_run_that_is_told_to_stop_says_so_and_leaves_nothing(
    engine, number, to_all, shards, model_dir, expected, tmp_path
):
    output, environment = tmp_path / "out", {**os.environ, "TASTEMAKER_MODEL_DIR": str(model_dir)}
    environment["TASTEMAKER_MARK"] = tmp_path.name
    command = command_line(shards, output, engine)
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert wait_until(lambda: list(output.glob("*.parquet")), 60)
        (os.killpg if to_all else os.kill)(process.pid, number)
        printed, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert errors.splitlines()[-1] == "tastemaker: stopped; the same command goes on from here"
    assert (printed, "Traceback" in errors, "SIGTERM received" in errors) == ("", False, False)
    assert wait_until(lambda: not marked_processes(tmp_path.name), 60), marked_processes(tmp_path.name)
    assert not list(output.rglob(f"{TEMPORARY_PREFIX}*"))
    record = json.loads((output / "_tastemaker" / "run.json").read_text())
    assert record["state"] == "stopped"

    done = len(list(output.glob("*.parquet")))
    again = [*command_line(shards, output, "local"), "--json"]
    summary = json.loads(subprocess.run(again, env=environment, check=True, capture_output=True).stdout)
    assert (summary["images"], summary["images_scored_now"]) == (600, 30 * (20 - done))
    assert rows_by_file(output) == expected
