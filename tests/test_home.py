"""`~` and variables are expanded in every path that a user gives, as a shell does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import make_tar

from tastemaker import (
    FilePartitioningStage,
    ImageAestheticFilterStage,
    ImageEmbeddingStage,
    ImageReaderStage,
    ImageWriterStage,
    Pipeline,
    ScoreTable,
    Selection,
    select_images,
)
from tastemaker.executors.local import LocalExecutor
from tastemaker.explorer.report import write_report
from tastemaker.runs.run import RunOptions, run_scoring
from tastemaker.selections.filter import filter_images


@pytest.fixture
def home(tmp_path, monkeypatch, photographs, model_dir):
    """A home directory with a shard and models; the working directory is another one."""
    make_tar(tmp_path / "a.tar", [("a.jpg", photographs["rocket.jpg"])])
    (tmp_path / "models").symlink_to(model_dir)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("MODELS", str(tmp_path / "models"))
    yield tmp_path
    assert list(Path().iterdir()) == []


HEAD = "~/models/ttj/sac-logos-ava1-l14-linearMSE/model.safetensors"


def test_a_pipeline_takes_them_in_each_of_its_paths(home):
    stages = [
        FilePartitioningStage("~/*.tar"),
        ImageReaderStage(),
        ImageEmbeddingStage(model_dir="$MODELS"),
        ImageAestheticFilterStage(model_dir="~/models", score_threshold=-100.0),
        ImageWriterStage("~/out"),
    ]
    Pipeline("home", stages=stages).run(LocalExecutor(), checkpoint_path="~/checkpoint")
    assert (home / "out" / "a.parquet").is_file()
    assert list((home / "checkpoint").glob("*.json"))


def test_runs_tables_selections_and_reports_take_them(home):
    options = RunOptions(model_dir="~/models", scorer=HEAD)
    run_scoring("~/a.tar", "~/scores", options)
    filter_images(["$HOME/a.tar"], "~/best", Selection(where="true"), options)
    table = ScoreTable("~/scores")
    select_images(table, "~/selected", Selection(where="true"), kind="folder")
    write_report(table, "~/report.html")
    for name in ("scores/rows/a.parquet", "best/rows/a.parquet", "best/kept", "selected/a.jpg", "report.html"):
        assert (home / name).exists()


def test_the_command_line_takes_them_where_no_shell_has_expanded_them(home):
    command = [sys.executable, "-m", "tastemaker", "score", "~/a.tar", "--output=~/scores", "--model-dir=~/models"]
    subprocess.run(command, check=True, capture_output=True, env=os.environ)
    assert (home / "scores" / "rows" / "a.parquet").is_file()
