"""Slices of a run: no overlap, no gap, and the same files as without."""

import subprocess
import sys

import pytest
from command import tastemaker
from conftest import make_shards, rows_by_file
from tiny import make_pictures, picture

from tastemaker.runs.options import Slice
from tastemaker.runs.run import RunMode, RunOptions, run_scoring


@pytest.fixture
def shards(tmp_path):
    pictures = [(f"{seed}.jpg", picture(seed)) for seed in range(3)]
    return make_shards(tmp_path / "shards", (pictures[: 1 + number % 3] for number in range(7)))


def test_slices_have_no_overlap_and_no_gap(tmp_path, shards, model_dir):
    options = RunOptions(model_dir=str(model_dir))
    whole = run_scoring([str(shards)], tmp_path / "whole", options)
    done, seen = 0, []
    for index in (2, 0, 1):
        mode = RunMode(part=Slice(index, 3))
        summary = run_scoring([str(shards)], tmp_path / "out", options, mode)
        assert summary.images_scored_now == summary.images  # none of what another did
        done += summary.images_scored_now
        seen.append(len(rows_by_file(tmp_path / "out" / "rows")))
    assert (done, seen) == (whole.images, [2, 5, 7])
    assert rows_by_file(tmp_path / "out" / "rows") == rows_by_file(tmp_path / "whole" / "rows")
    assert run_scoring([str(shards)], tmp_path / "out", options).images_scored_now == 0
    assert {path.name for path in (tmp_path / "out" / "_tastemaker").glob("run*.json")} == {
        *(f"run-{index}-of-3.json" for index in range(3)),
        "run.json",
    }


def test_slices_of_loose_files_agree_about_the_partitions_in_any_order(tmp_path, model_dir, monkeypatch):
    photos = make_pictures(tmp_path / "photos", [f"{seed}.jpg" for seed in range(7)])
    for module in ("stages.partition", "runs.matching"):
        monkeypatch.setattr(f"tastemaker.{module}.LOOSE_FILES_PER_PARTITION", 2)
    options = RunOptions(model_dir=str(model_dir))
    run_scoring([str(photos)], tmp_path / "whole", options)
    for index in (3, 1, 2, 0):
        run_scoring([str(photos)], tmp_path / "out", options, RunMode(part=Slice(index, 4)))
        assert len(rows_by_file(tmp_path / "out" / "rows")) == {3: 1, 1: 2, 2: 3, 0: 4}[index]
    assert rows_by_file(tmp_path / "out" / "rows") == rows_by_file(tmp_path / "whole" / "rows")


def test_the_first_loose_files_are_a_small_partition_so_that_a_run_that_is_stopped_keeps_their_rows(
    tmp_path, model_dir
):
    photos = make_pictures(tmp_path / "photos", [f"{seed}.jpg" for seed in range(18)])
    run_scoring([str(photos)], tmp_path / "out", RunOptions(model_dir=str(model_dir)))
    assert [len(rows) for _, rows in sorted(rows_by_file(tmp_path / "out" / "rows").items())] == [16, 2]


def test_more_slices_than_shards_leave_some_without_work(tmp_path, shards, model_dir):
    mode = RunMode(part=Slice(11, 12))
    summary = run_scoring([str(shards)], tmp_path / "out", RunOptions(model_dir=str(model_dir)), mode)
    assert (summary.images, summary.images_scored_now) == (0, 0)


def test_slices_run_at_the_same_time(tmp_path, shards, model_dir):
    common = ["-o", str(tmp_path / "out"), "--model-dir", str(model_dir), "--num-shards", "2"]
    command = [sys.executable, "-m", "tastemaker", "score", str(shards), *common]
    processes = [
        subprocess.Popen(
            [*command, "--shard-index", str(index)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for index in range(2)
    ]
    for process in processes:
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
    run_scoring([str(shards)], tmp_path / "whole", RunOptions(model_dir=str(model_dir)))
    assert rows_by_file(tmp_path / "out" / "rows") == rows_by_file(tmp_path / "whole" / "rows")


def test_half_of_the_slice_options_is_an_error(tmp_path):
    for *arguments, message in (
        ("--shard-index", "0", "give --shard-index and --num-shards together"),
        ("--num-shards", "2", "give --shard-index and --num-shards together"),
        ("--slurm-array", "this is no task of a Slurm array"),
    ):
        result = tastemaker("score", tmp_path, "-o", tmp_path / "out", *arguments)
        assert result.returncode == 2
        assert message in result.stderr
