"""Kill it any time: a command that is killed and given again ends with the rows and files of one that was not."""

import contextlib
import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file
from tiny import make_pictures, make_tiny_shards, picture

from tastemaker import (
    FilePartitioningStage,
    ImageReaderStage,
    ImageWriterStage,
    Pipeline,
    ScoreTable,
    Selection,
    select_images,
)
from tastemaker.runs.rescore import rescore
from tastemaker.runs.run import RunOptions, run_scoring
from tastemaker.scores.cutoff import Top
from tastemaker.selections.filter import filter_images
from tastemaker.storage.unfinished import DRAFT_PREFIX
from tastemaker.testing import random_predictor

SEEDS, QUICK = 63, 9
BEST, EVERYTHING = Selection(top=Top(share=0.5)), Selection(where="status = 'kept'")


def score(inputs, options):
    run_scoring(inputs / "shards", "out", options)


def cut(inputs, options):
    filter_images(inputs / "shards", "out", BEST, options, images_per_tar=2)


def cut_folder(inputs, options):
    filter_images(inputs / "shards", "out", BEST, options, kind="folder")


def cut_again(inputs, options):
    filter_images(inputs / "photos", "out", BEST, options, images_per_tar=2, kind="webdataset")


def changed_folder(inputs, options):
    filter_images(inputs / "changed" / "photos", "out", EVERYTHING, options)


def moved_folder(inputs, options):
    run_scoring(inputs / "changed" / "photos", "out", options)


def select(_inputs, _options):
    select_images(ScoreTable("start/rows"), "out", EVERYTHING, images_per_tar=1, overwrite=True)


def score_again(_inputs, options):
    rescore("out", "head.safetensors", model_dir=options.model_dir)


def pipeline(inputs, _options):
    stages = [FilePartitioningStage(str(inputs / "shards")), ImageReaderStage(), ImageWriterStage("out", 2)]
    Pipeline("killed", stages=stages).run(checkpoint_path="checkpoint")


COMMANDS = [score, cut, cut_folder, cut_again, changed_folder, moved_folder, select, score_again, pipeline]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Shards, bad images and bad shards among them; a folder; and the same folder after a while."""
    root = tmp_path_factory.mktemp("inputs")
    shards = make_tiny_shards(root / "shards", shards=8)
    whole = (shards / "3.tar").read_bytes()
    (shards / "4.tar").write_bytes(whole[: len(whole) // 2])
    (shards / "5.tar").write_bytes(bytes(10240))
    (shards / "6.tar").unlink()
    (shards / "6.tar.gz").write_bytes(gzip.compress(whole, mtime=0))
    photos = make_pictures(root / "photos", [f"{n}.jpg" for n in range(12)])
    changed = shutil.copytree(photos, root / "changed" / "photos")
    (changed / "new.jpg").write_bytes(picture(100))
    (changed / "3.jpg").write_bytes(picture(101))
    (changed / "4.jpg").write_bytes(b"no image")
    (changed / "7.jpg").unlink()
    return root


@pytest.fixture(scope="module")
def options(model_dir):
    return RunOptions(model_dir=str(model_dir), batch_size=4)


@pytest.fixture(scope="module")
def prepare(tmp_path_factory, inputs, options):
    """Return what makes a folder as it is before a command."""
    starts = {}

    def make(command):
        folder = tmp_path_factory.mktemp("start")
        with contextlib.chdir(folder):
            if command is cut_again:
                filter_images(inputs / "photos", "out", EVERYTHING, options, kind="folder")
            elif command is changed_folder:
                shutil.copytree(inputs / "photos", photos := inputs / "changed" / "before" / "photos")
                swap(inputs / "changed" / "photos", photos)
                filter_images(inputs / "changed" / "photos", "out", EVERYTHING, options)
                swap(inputs / "changed" / "photos", photos)
            elif command is moved_folder:  # to where some pictures have changed since
                old = shutil.copytree(inputs / "photos", inputs / "old" / "photos")
                run_scoring(old, "out", options)
                shutil.rmtree(inputs / "old")
            elif command is select:
                run_scoring(inputs / "photos", "start", options)
                select_images(ScoreTable("start/rows"), "out", BEST, kind="folder")
            elif command is score_again:
                run_scoring(inputs / "photos", "out", options)
                save_file(random_predictor(768, np.random.default_rng(9)), "head.safetensors")
        return folder

    def copy(command, target):
        if command not in starts:
            starts[command] = make(command)
        shutil.copytree(starts[command], target, dirs_exist_ok=True)
        return target

    return copy


def swap(one, other):
    one.rename(one.with_name("between"))
    other.rename(one)
    one.with_name("between").rename(other)


@pytest.fixture(scope="module")
def references(tmp_path_factory, inputs, options, prepare):
    """Return what a command makes that is not killed, and how many states of files that takes; each is run once."""
    made = {}

    def reference(command):
        if command not in made:
            folder = prepare(command, tmp_path_factory.mktemp("reference"))
            with contextlib.chdir(folder):
                before = states()
                command(inputs, options)
                made[command] = read_results(), len(states() - before)
        return made[command]

    return reference


@pytest.fixture(scope="module")
def killed():
    """For each kill, whether it came before the end. Some of many must have."""
    kills = []
    yield kills
    assert len(kills) < QUICK or sum(kills) > len(kills) // 3, f"{sum(kills)} of {len(kills)} came before the end"


def states():
    """Return every state of a file below the working directory: its name, its inode and its time."""
    found = set()
    for folder, _, names in os.walk("."):
        for path in (os.path.join(folder, name) for name in names):
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(path)
                found.add((path, status.st_ino, status.st_mtime_ns))
    return found


def kill_after(number):
    """Kill this process once so many files were made or changed, drafts among them."""
    before = states()

    def watch():
        seen = set()
        while len(seen) < number:
            seen |= states() - before
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def read_results():
    """Return rows with their files' metadata, and the bytes of all other files that a command leaves for users."""
    found = {}
    for path in sorted(path for path in Path("out").rglob("*") if path.is_file()):
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            metadata = {k: json.loads(v) for k, v in (table.schema.metadata or {}).items() if k != b"ARROW:schema"}
            metadata.get(b"tastemaker", {}).pop("parity", None)  # of a sample that depends on the time that there is
            found[str(path)] = (table.to_pylist(), metadata)
        elif path.name == "files.jsonl":  # names, sizes and hashes; versions differ
            found[str(path)] = [json.loads(line)[:3] for line in path.read_text().splitlines()]
        elif path.parent != Path("out") / "_tastemaker":
            found[str(path)] = path.read_bytes().replace(os.getcwd().encode(), b"here")
    return found


@pytest.mark.parametrize(
    "seed", [*range(QUICK), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(QUICK, SEEDS))]
)
def test_a_command_that_is_killed_and_given_again_ends_as_one_that_was_not(
    seed, tmp_path, inputs, prepare, references, killed, options, monkeypatch
):
    command, moments = COMMANDS[seed % len(COMMANDS)], random.Random(seed)
    results, changes = references(command)
    prepare(command, tmp_path)
    monkeypatch.chdir(tmp_path)
    script = (
        f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
        "from pathlib import Path; import test_crash; from test_crash import RunOptions\n"
        f"test_crash.kill_after({moments.randint(1, changes)})\n"
        f"test_crash.{command.__name__}(Path({str(inputs)!r}), {options!r})\n"
    )
    for _ in range(moments.choice([1, 1, 2])):
        code = subprocess.run([sys.executable, "-c", script], check=False, timeout=120).returncode
        assert code in (0, -signal.SIGKILL)
        killed.append(code != 0)
    command(inputs, options)
    found = read_results()
    assert list(found) == list(results)
    for name, content in results.items():
        assert found[name] == content, name
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(DRAFT_PREFIX)]


@pytest.mark.parametrize("kind", ["folder", "webdataset", "links"])
@pytest.mark.parametrize("is_there", [False, True])
def test_what_ends_a_selection_leaves_no_new_folder_and_no_half_of_an_old_one(
    tmp_path, inputs, options, kind, is_there, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    run_scoring(inputs / "photos", "scores", options)
    table = ScoreTable("scores")

    def stop(progress):
        if progress.images == 9:
            raise KeyboardInterrupt

    if is_there:
        select_images(table, "out", BEST, kind=kind, images_per_tar=2)
    before = read_results()
    with pytest.raises(KeyboardInterrupt):
        select_images(table, "out", EVERYTHING, kind=kind, images_per_tar=2, overwrite=True, on_progress=stop)
    kept = {name: data for name, data in before.items() if "_tastemaker" not in name}
    assert Path("out").exists() == is_there
    if is_there and kind != "webdataset":  # a tar is replaced as a whole
        assert kept.items() <= read_results().items()
    select_images(table, "out", EVERYTHING, kind=kind, images_per_tar=2)  # the same command again
    found = read_results()
    shutil.rmtree("out")
    select_images(table, "out", EVERYTHING, kind=kind, images_per_tar=2)
    assert found == read_results()
