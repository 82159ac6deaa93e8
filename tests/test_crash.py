"""Kill it any time: a run that is killed and started again ends with the rows and copies of one that was not."""

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import time

import pyarrow.parquet as pq
import pytest
from command import PROGRAM
from conftest import make_tar
from tiny import picture

from tastemaker.scores.files import TEMPORARY_PREFIX

SEEDS = 24
SHARDS = 20
COMMANDS = {
    "score": ("shards", ["score"]),
    "tars": ("shards", ["filter", "--top", "30%", "--as", "webdataset", "--images-per-tar", "7"]),
    "folder": ("shards", ["filter", "--min-score", "5", "--as", "folder"]),
    "changed": ("photos", ["filter", "--top", "40%", "--as", "folder"]),  # goes on from a finished run
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with 20 shards, bad images and bad shards among them, and a folder of loose pictures."""
    root = tmp_path_factory.mktemp("inputs")
    (root / "shards").mkdir()
    (root / "photos").mkdir()
    for number in range(SHARDS):
        members = []
        for n in range(6):
            members.append((f"{number:02d}{n}.jpg", picture(10 * number + n)))
            members.append((f"{number:02d}{n}.txt", f"caption {number} {n}".encode()))
        (root / "photos" / f"{number:02d}.jpg").write_bytes(members[0][1])
        members[2] = (members[2][0], members[2][1][:500])
        members += [("text.jpg", b"this is no image"), (f"{number:02d}0.jpg", b"twice"), ("only.txt", b"no image")]
        make_tar(root / "shards" / f"{number:02d}.tar", members)
    whole = (root / "shards" / "03.tar").read_bytes()
    (root / "shards" / "04.tar").write_bytes(whole[: len(whole) // 2])
    (root / "shards" / "05.tar").write_bytes(bytes(10240))
    (root / "shards" / "06.tar").unlink()
    (root / "shards" / "06.tar.gz").write_bytes(gzip.compress(whole, mtime=0))
    (root / "photos" / "bad.jpg").write_bytes(b"this is no image")
    return root


@pytest.fixture(scope="module")
def start(tmp_path_factory, inputs, model_dir):
    """A finished run over the loose pictures, which have changed since."""
    folder = tmp_path_factory.mktemp("start")
    run_whole("changed", folder, inputs, model_dir)
    shutil.copy(inputs / "photos" / "01.jpg", inputs / "photos" / "000.jpg")
    for number in (3, 4, 5):
        shutil.copy(inputs / "photos" / "02.jpg", inputs / "photos" / f"{number:02d}.jpg")
    for number in (7, 8, 9, 10):
        (inputs / "photos" / f"{number:02d}.jpg").unlink()
    return folder


def command_line(name, inputs):
    folder, arguments = COMMANDS[name]
    command = [arguments[0], str(inputs / folder), "-o", "out", *arguments[1:], "--batch-size", "4"]
    return [*PROGRAM, *command]


def environment(model_dir):
    return os.environ | {"TASTEMAKER_MODEL_DIR": str(model_dir)}


def run_whole(name, folder, inputs, model_dir):
    """Run to the end; return how long it took in seconds."""
    started = time.monotonic()
    subprocess.run(
        command_line(name, inputs), cwd=folder, env=environment(model_dir), check=True, capture_output=True, timeout=120
    )
    return time.monotonic() - started


@pytest.fixture(scope="module")
def interrupted():
    """For each kill, whether it left something unfinished. Some must have."""
    kills = []
    yield kills
    print(f"{sum(kills)} of {len(kills)} kills left work unfinished")
    assert len(kills) < SEEDS // 2 or sum(kills) > SEEDS // 5, f"{sum(kills)} of {len(kills)} kills came during work"


@pytest.fixture(scope="module")
def references(tmp_path_factory, inputs, start, model_dir):
    """Return what a run that is not killed makes, and how long it takes; each kind is run once."""
    made = {}

    def reference(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(f"reference-{name}")
            prepare(name, folder, start)
            seconds = run_whole(name, folder, inputs, model_dir)
            made[name] = read_results(folder / "out"), seconds
        return made[name]

    return reference


def prepare(name, folder, start):
    if name == "changed":
        shutil.copytree(start / "out", folder / "out")


def read_results(output):
    """Return every row with its file's metadata, and every byte of the copies, tars too."""
    rows = {}
    for path in sorted((output / "rows").rglob("*")):
        table = pq.read_table(path)
        metadata = {key: json.loads(value) for key, value in table.schema.metadata.items() if key != b"ARROW:schema"}
        rows[path.name] = (table.to_pylist(), metadata)
    copies = {path: path.read_bytes() for path in sorted((output / "kept").rglob("*")) if path.is_file()}
    copies = {path.relative_to(output).as_posix(): data for path, data in copies.items()}
    return rows, {name: data for name, data in copies.items() if not name.startswith("kept/_tastemaker/")}


def is_finished(output, reference):
    try:
        return read_results(output) == reference
    except (OSError, ValueError):  # pyarrow's errors are among them
        return False


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_run_that_is_killed_and_started_again_ends_as_one_that_was_not(
    seed, tmp_path, inputs, references, start, interrupted, model_dir
):
    name = list(COMMANDS)[seed % len(COMMANDS)]
    reference, seconds = references(name)
    prepare(name, tmp_path, start)
    moments = random.Random(seed)
    for _ in range(moments.choice([1, 1, 2])):
        process = subprocess.Popen(
            command_line(name, inputs),
            cwd=tmp_path,
            env=environment(model_dir),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(moments.uniform(0.3, 1.05) * seconds)  # imports take the first part, and leave nothing behind
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            interrupted.append(not is_finished(tmp_path / "out", reference))
    run_whole(name, tmp_path, inputs, model_dir)
    rows, copies = read_results(tmp_path / "out")
    assert list(rows) == list(reference[0])
    for path, (table, metadata) in reference[0].items():
        assert rows[path][0] == table, path
        assert rows[path][1] == metadata, path
    assert copies == reference[1]
    left = [path.name for path in (tmp_path / "out").rglob("*") if path.name.startswith(TEMPORARY_PREFIX)]
    assert left == []
