"""Lists of files as input of the command line, and what it says of files that it passed over."""

import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from command import PROGRAM, tastemaker


@pytest.fixture
def photos(tmp_path, photographs):
    for number, name in enumerate(("d0/a b.jpg", "d1/a b.jpg", "d1/c.jpg")):
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "p" / name).write_bytes(photographs["rocket.jpg"] + bytes([number]))
    return tmp_path


def ids(output):
    return sorted(
        id_ for path in output.glob("rows/**/*.parquet") for id_ in pq.read_table(path)["image_id"].to_pylist()
    )


def test_files_of_a_list_are_scored_and_their_ids_are_their_paths(photos, model_dir):
    (photos / "list.txt").write_text("p/d0/a b.jpg\r\n\np/d1/a b.jpg\n")
    command = ("score", "--files-from", "list.txt", "--output", "out", "--model-dir", model_dir)
    assert tastemaker(*command, cwd=photos).returncode == 0
    assert ids(photos / "out") == ["p/d0/a b", "p/d1/a b"]
    (photos / "list.txt").write_text(f"{photos}/p/d0/a b.jpg\n{photos}/p/d1/c.jpg\n")
    assert tastemaker(*command[:-3], "far", *command[-2:], cwd=photos).returncode == 0
    assert ids(photos / "far") == ["d0/a b", "d1/c"]


def test_a_list_may_come_from_find_through_a_pipe(photos, model_dir):
    command = [*PROGRAM, "score", "--files-from", "-", "-0", "--output", "out", "--model-dir", str(model_dir)]
    listed = b"p/d0/a b.jpg\0p/d1/c.jpg\0"
    done = subprocess.run(command, input=listed, cwd=photos, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert ids(photos / "out") == ["p/d0/a b", "p/d1/c"]


def test_an_empty_list_no_list_and_no_input_at_all_are_errors(photos):
    (photos / "empty.txt").touch()
    for arguments, message in (
        (["--files-from", "empty.txt"], "lists no files"),
        (["--files-from", "gone.txt"], "No such file"),
        ([], "name an input"),
        (["-"], "--files-from"),
    ):
        done = tastemaker("score", *arguments, "--output", "out", cwd=photos)
        assert done.returncode == 2, sys.argv
        assert message in done.stderr


def test_the_summary_says_what_was_passed_over(photos, model_dir):
    (photos / "p" / "more.zip").write_bytes(b"PK")
    (photos / "p" / "@eaDir").mkdir()
    (photos / "p" / "@eaDir" / "t.jpg").write_bytes(b"x")
    done = tastemaker("score", "p", "--exclude", "d0", "--output", "out", "--model-dir", model_dir, cwd=photos)
    assert "Passed over: 1 .zip, 1 excluded, 1 in @eaDir (unpack archives first, or make tars of them)" in done.stdout
    assert ids(photos / "out") == ["d1/a b", "d1/c"]
