"""A full disk ends a command with one error, and the same command goes on once there is room."""

import os
import resource
import shutil
import subprocess

import pytest
from command import start_tastemaker, tastemaker
from tiny import copies, make_tiny_shards, rows_of

from tastemaker import ScoreTable, Selection, select_images
from tastemaker.runs.run import RunOptions, run_scoring
from tastemaker.storage.unfinished import DRAFT_PREFIX

EVERYTHING = Selection(where="true")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 160 kB, where this user may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this user cannot mount a small disk")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.fixture
def shards(tmp_path):
    return make_tiny_shards(tmp_path / "in", shards=6, images=10)


def written(output):
    return copies(output) if output.is_dir() else {output.name: output.read_bytes()}


def test_a_full_disk_is_one_error_and_the_run_goes_on_when_there_is_room(tmp_path, small_disk, shards, model_dir):
    output = small_disk / "out"
    command = "score", shards, "-o", output, "--signals", "--model-dir", model_dir
    result = tastemaker(*command)
    assert result.returncode == 1
    assert f"no room left for the results in {output}" in result.stderr
    assert "the same command goes on from here" in result.stderr
    assert sum(line.startswith("tastemaker: ") for line in result.stderr.splitlines()) == 1
    assert 0 < len(list((output / "rows").glob("*.parquet"))) < 6
    assert not list(output.rglob(f"{DRAFT_PREFIX}*"))
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert tastemaker(*command).returncode == 0
    run_scoring(shards, tmp_path / "whole", RunOptions(model_dir=str(model_dir), signals=True))
    assert rows_of(output) == rows_of(tmp_path / "whole")


def test_a_full_temporary_folder_is_named_where_results_go_to_a_store(small_disk, shards, model_dir):
    (small_disk / "filler").write_bytes(bytes(150_000))
    result = start_tastemaker(
        "score", shards, "-o", "memory://out", "--model-dir", model_dir, env=os.environ | {"TMPDIR": str(small_disk)}
    )
    assert result.returncode == 1
    assert f"no room left for the results in {small_disk}, where files for memory://out are made" in result.stderr


@pytest.mark.parametrize("kind", ["webdataset", "folder", "manifest"])
def test_a_selection_without_room_is_one_error_and_loses_nothing(tmp_path, shards, model_dir, kind):
    options = RunOptions(model_dir=str(model_dir))
    run_scoring(shards, tmp_path / "scores", options)
    output = tmp_path / "o" / ("out.csv" if kind == "manifest" else "out")
    select = "select", tmp_path / "scores", "--as", kind, "--to", output
    assert tastemaker(*select, "--where", "image_id = '00'").returncode == 0
    before = written(output)
    everything = *select, "--where", "true", "--overwrite"
    result = start_tastemaker(*everything, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1150, 1150)))
    assert (result.returncode, sum(line.startswith("tastemaker: ") for line in result.stderr.splitlines())) == (1, 1)
    assert "no room left" in result.stderr
    assert before.items() <= written(output).items()
    assert tastemaker(*everything).returncode == 0
    select_images(ScoreTable(tmp_path / "scores"), output.with_stem("fresh"), EVERYTHING, kind=kind)
    assert [*written(output).values()] == [*written(output.with_stem("fresh")).values()]
