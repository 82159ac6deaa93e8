"""The place of a selection: one process at a time, all or nothing, whatever ends the process."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import make_tar
from tastemaker.selections.outputs import hold_output

from tastemaker import ConfigurationError, ScoreTable, Selection, select_images
from tastemaker.runs.run import RunOptions, run_scoring

ALL = Selection(where="status = 'kept'")

SLOW = """
import sys, time
from tastemaker import ScoreTable, Selection, select_images

def report(progress):
    if progress.images == 3:
        print("three", flush=True)
        time.sleep(60)

select_images(ScoreTable(sys.argv[1]), sys.argv[2], Selection(where="true"), kind=sys.argv[3], on_progress=report)
"""


@pytest.fixture
def scores(tmp_path, photographs, model_dir):
    run_scoring(
        [str(make_tar(tmp_path / "a.tar", photographs.items()))], tmp_path / "s", RunOptions(model_dir=str(model_dir))
    )
    return tmp_path / "s"


def start(scores, output, kind):
    """Start a selection that stops for a minute after three images, and return it once it is there."""
    command = [sys.executable, "-c", SLOW, str(scores), str(output), kind]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "three\n"
    return process


@pytest.mark.parametrize("kind", ["webdataset", "folder"])
def test_what_a_killed_selection_left_is_cleared_by_the_next(tmp_path, scores, kind):
    output = tmp_path / "o" / "out"
    process = start(scores, output, kind)
    with pytest.raises(ConfigurationError, match="another process is writing"):
        select_images(ScoreTable(scores), output, ALL, kind=kind)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not output.exists()
    assert {path.suffix for path in output.parent.iterdir()} == {".lock", ""}
    assert select_images(ScoreTable(scores), output, ALL, kind=kind).written == 6
    assert os.listdir(output.parent) == ["out"]


def test_a_selection_is_on_the_disk_itself_before_it_is_to_be_seen(tmp_path, scores, monkeypatch):
    output, synced, fsync = tmp_path / "out", set(), os.fsync

    def note(number):
        assert not output.exists()
        synced.add(os.fstat(number).st_ino)
        fsync(number)

    monkeypatch.setattr(os, "fsync", note)
    select_images(ScoreTable(scores), output, ALL, kind="folder")
    files = [path for path in output.rglob("*") if path.is_file()]
    assert len(files) > 6
    assert [path.name for path in files if path.stat().st_ino not in synced] == []


def test_ctrl_c_leaves_nothing(tmp_path, scores):
    process = start(scores, tmp_path / "o" / "out", "folder")
    process.send_signal(signal.SIGINT)
    process.wait()
    process.stdout.close()
    assert os.listdir(tmp_path / "o") == []


def test_a_kill_between_the_two_renames_of_a_replacement_loses_nothing(tmp_path, scores):
    output = tmp_path / "o" / "out"
    select_images(ScoreTable(scores), output, ALL, kind="folder")
    before = sorted(path.relative_to(output) for path in output.rglob("*"))
    kill_there = (
        "import os, pathlib, sys; from tastemaker.selections.outputs import hold_output\n"
        "pathlib.Path.replace = lambda *_: os.kill(os.getpid(), 9)\n"
        "with hold_output(pathlib.Path(sys.argv[1])) as pending:\n"
        "    pending.draft.mkdir()\n"
        "    pending.commit()\n"
    )
    assert subprocess.run([sys.executable, "-c", kill_there, str(output)], check=False).returncode == -signal.SIGKILL
    assert not output.exists()
    with hold_output(output):
        assert sorted(path.relative_to(output) for path in output.rglob("*")) == before
    assert os.listdir(output.parent) == ["out"]


@pytest.mark.parametrize(("kind", "name"), [("webdataset", "out"), ("folder", "out"), ("manifest", "out.csv")])
def test_a_full_disk_is_one_error_and_leaves_what_was_there(tmp_path, scores, kind, name):
    output = tmp_path / "o" / name
    select_images(ScoreTable(scores), output, Selection(min_score=99), kind=kind)
    script = f"tastemaker select {scores} --where true --as {kind} --to {output} --overwrite".split()

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    result = subprocess.run(
        [sys.executable, "-m", *script], capture_output=True, text=True, preexec_fn=limit, check=False
    )
    assert result.returncode == 1
    assert "no room left" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert os.listdir(output.parent) == [name]
    select_images(ScoreTable(scores), output, Selection(min_score=99), kind=kind)  # the old one is whole


def test_two_threads_do_not_write_to_one_place(tmp_path):
    with hold_output(tmp_path / "out"):
        with pytest.raises(ConfigurationError, match="another process"), hold_output(tmp_path / "out"):
            pass
        with hold_output(tmp_path / "other"):
            pass
    started = time.monotonic()
    with hold_output(tmp_path / "out"):
        assert time.monotonic() - started < 1
    assert os.listdir(tmp_path) == []


def test_a_name_as_long_as_a_file_system_takes_is_possible(tmp_path):
    path = tmp_path / ("é" * 120 + ".csv")
    with hold_output(path) as pending:
        pending.draft.write_text("a")
        pending.commit()
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("path", ["/", "/dev/null/out"])
def test_a_place_that_takes_no_output_is_an_error(path):
    with (
        pytest.raises(ConfigurationError, match=r"no place for an output|cannot be written to"),
        hold_output(Path(path)),
    ):
        pass


@pytest.mark.skipif(
    not os.path.exists("/proc/self"), reason="needs a folder where nothing can be made, not even by root"
)
def test_a_place_where_nothing_can_be_made_gives_the_systems_reason():
    with (
        pytest.raises(ConfigurationError, match=r"^/proc cannot be written to: No such file"),
        hold_output(Path("/proc/x")),
    ):
        pass
