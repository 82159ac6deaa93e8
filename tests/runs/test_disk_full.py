"""A full disk ends a run with one error, and the same run goes on once there is room."""

import os
import shutil
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from conftest import make_shards

from tastemaker.errors import DiskFullError
from tastemaker.runs.run import RunOptions, run_scoring
from tastemaker.scores.files import TEMPORARY_PREFIX


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 4 MB, where this user may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this user cannot mount a small disk")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.fixture
def shards(tmp_path, full_photographs):
    return make_shards(tmp_path / "shards", [list(full_photographs.items())] * 6)


def test_a_full_disk_is_one_error_and_the_run_goes_on_when_there_is_room(tmp_path, small_disk, shards, model_dir):
    output = small_disk / "out"
    arguments = ["--min-score", "1", "--as", "shards", "--model-dir", str(model_dir)]
    command = [sys.executable, "-m", "tastemaker", "filter", str(shards), "-o", str(output), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert f"no room left for the results in {output}" in result.stderr
    assert "the same command goes on from here" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    finished = list(output.glob("*.parquet"))
    assert 0 < len(finished) < 6
    assert not list(output.rglob(f"{TEMPORARY_PREFIX}*"))
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [row for path in output.glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert len(rows) == 36
    whole = run_scoring(
        [str(shards)], tmp_path / "whole", RunOptions(min_score=0, originals="shards", model_dir=str(model_dir))
    )
    assert whole.images == 36
    for path in (tmp_path / "whole").glob("*.tar"):
        assert (output / path.name).read_bytes() == path.read_bytes()


def test_the_error_is_found_behind_whatever_the_writer_raised(tmp_path, shards, model_dir, monkeypatch):
    from tastemaker.scores.files import TarFile

    def fail(*_args):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(TarFile, "add_sample", fail)
    options = RunOptions(min_score=0, originals="shards", model_dir=str(model_dir))
    with pytest.raises(DiskFullError, match="No space left on device"):
        run_scoring([str(shards)], tmp_path / "out", options)


def test_a_full_temporary_folder_is_named_where_results_go_to_a_store(small_disk, shards, model_dir):
    (small_disk / "filler").write_bytes(bytes(3_900_000))
    command = [sys.executable, "-m", "tastemaker", "filter", str(shards), "-o", "memory://out", "--min-score", "1"]
    command += ["--as", "shards", "--model-dir", str(model_dir)]
    environment = os.environ | {"TMPDIR": str(small_disk)}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 1
    assert f"no room left for the results in {small_disk}, where files for memory://out are made" in result.stderr
