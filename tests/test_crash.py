"""Kill it any time: a run that is killed and started again ends with the rows and files of one that was not."""

import gzip
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import encode, make_tar
from PIL import Image

from tastemaker.scores.files import TEMPORARY_PREFIX

SEEDS = 30
SHARDS = 20
COMMANDS = {
    "score": ("shards", ["score"]),
    "cut": ("shards", ["filter", "--min-score", "5", "--as", "shards", "--images-per-tar", "2"]),
    "cut-folder": ("shards", ["filter", "--min-score", "5", "--as", "folder"]),
    "top": ("shards", ["filter", "--top", "30%", "--as", "shards"]),
    "top-folder": ("shards", ["filter", "--top", "30%", "--as", "folder"]),
    "changed-folder": ("photos", ["filter", "--top", "40%", "--as", "folder"]),  # goes on from a finished run
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, photographs):
    """A folder with 20 shards, bad images and bad shards among them, and a folder of loose pictures."""
    root = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    pictures = [Image.open(io.BytesIO(data)).convert("RGB") for data in photographs.values()]
    (root / "shards").mkdir()
    (root / "photos").mkdir()
    for number in range(SHARDS):
        members = []
        for n in range(6):
            picture = pictures[(number + n) % len(pictures)].resize((int(rng.integers(60, 200)), 120))
            members.append((f"{number:02d}{n}.jpg", encode(picture, "JPEG")))
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
    run_whole("changed-folder", folder, inputs, model_dir)
    shutil.copy(inputs / "photos" / "01.jpg", inputs / "photos" / "000.jpg")
    for number in (3, 4, 5):
        shutil.copy(inputs / "photos" / "02.jpg", inputs / "photos" / f"{number:02d}.jpg")
    for number in (7, 8, 9, 10):
        (inputs / "photos" / f"{number:02d}.jpg").unlink()
    return folder


def command_line(name, inputs):
    folder, arguments = COMMANDS[name]
    command = [arguments[0], str(inputs / folder), "-o", "out", *arguments[1:], "--batch-size", "4"]
    return [sys.executable, "-m", "tastemaker", *command]


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
    """For each kill, whether it left something unfinished. Some of 30 must have."""
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
    if name == "changed-folder":
        shutil.copytree(start / "out", folder / "out")


def list_files(output):
    """Return the names of all files, those of an unfinished run too, but for locks and notes."""
    names = [path.relative_to(output).as_posix() for path in sorted(output.rglob("*")) if path.is_file()]
    names = [name for name in names if not name.startswith("_tastemaker/")]
    return [name for name in names if name.endswith(".parquet")] + [n for n in names if not n.endswith(".parquet")]


def read_results(output):
    """Return every row with its file's metadata, and every byte of every other file that a run leaves for users."""
    rows, files = {}, {}
    for path in sorted(path for path in output.rglob("*") if path.is_file()):
        name = path.relative_to(output).as_posix()
        if name.endswith(".parquet"):
            table = pq.read_table(path)
            metadata = {
                key: json.loads(value) for key, value in table.schema.metadata.items() if key != b"ARROW:schema"
            }
            metadata[b"tastemaker"].pop("parity", None)  # a sample whose size depends on the time that a run has
            rows[name] = (table.to_pylist(), metadata)
        elif not name.startswith("_tastemaker/"):
            files[name] = path.read_bytes()
    return rows, files


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_run_that_is_killed_and_started_again_ends_as_one_that_was_not(
    seed, tmp_path, inputs, references, start, interrupted, model_dir
):
    name = list(COMMANDS)[seed % len(COMMANDS)]
    (rows, files), seconds = references(name)
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
            interrupted.append(list_files(tmp_path / "out") != list(rows) + list(files))
    run_whole(name, tmp_path, inputs, model_dir)
    rows_now, files_now = read_results(tmp_path / "out")
    assert list(rows_now) == list(rows)
    for path, (table, metadata) in rows.items():
        assert rows_now[path][0] == table, path
        assert rows_now[path][1] == metadata, path
    assert {path: len(data) for path, data in files_now.items()} == {path: len(data) for path, data in files.items()}
    assert files_now == files
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(TEMPORARY_PREFIX)]
    assert not (tmp_path / "out" / "_tastemaker" / "redo").exists()
