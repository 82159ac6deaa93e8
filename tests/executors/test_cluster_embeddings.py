"""Embeddings on Xenna and Ray Data: the same files, whatever dies, and memory that does not grow."""

import os
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cluster_stages import (
    ENGINES,
    DeadlyFile,
    DeadlyScore,
    Diary,
    kill_at_random,
    object_store_bytes,
    read_diary,
)
from conftest import contents
from tastemaker.executors.ledger import REASONS

from tastemaker import LocalExecutor, Pipeline, Resources
from tastemaker.embeddings.find import find_embeddings, group_embeddings
from tastemaker.embeddings.run import make_embedding_stages
from tastemaker.runs.run import RunMode, RunOptions, run_scoring

pytestmark = [pytest.mark.ray, pytest.mark.slow]
pytest.importorskip("ray")
BLOCK = 16


def vectors(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 768), np.float32).astype(np.float16)


@pytest.fixture
def source(tmp_path):
    """Files of every kind, also damaged ones."""
    root = tmp_path / "given"
    for folder in ("img_emb", "metadata"):
        (root / folder).mkdir(parents=True)
    for number in range(4):
        np.save(root / f"{number}.npy", vectors(100, number))
    bad = vectors(50, 9)
    bad[3], bad[5, 7] = 0, np.nan
    np.savez_compressed(root / "many.npz", l14_img=bad, b32_img=bad[:, :512])
    column = pa.FixedSizeListArray.from_arrays(vectors(60, 10).ravel(), 768)
    pq.write_table(pa.table({"embedding": column, "key": [f"k{n}" for n in range(60)]}), root / "table.parquet")
    np.save(root / "img_emb" / "img_emb_0.npy", vectors(40, 11))
    pq.write_table(pa.table({"caption": [f"c {n}" for n in range(40)]}), root / "metadata" / "metadata_0.parquet")
    (root / "cut.npy").write_bytes((root / "0.npy").read_bytes()[:40_000])
    (root / "text.npy").write_text("no array")
    return root


def make_stages(model_dir, output, *own):
    reader, score, writer = make_embedding_stages(output, RunOptions(model_dir=str(model_dir), copy_embeddings=True))
    reader.batch_size = BLOCK
    return [stage.with_(resources=Resources(cpus=0.1)) for stage in (reader, *own, score, writer)]


def groups_of(source, deadly=None):
    """Return the tasks of a folder; a file may be replaced by one that kills whoever reads its block."""
    files = find_embeddings([str(source)])
    if deadly is not None:
        name, block = deadly
        files = [DeadlyFile(**vars(file), block=block) if file.path.endswith(name) else file for file in files]
    return group_embeddings(files)


@pytest.fixture
def expected(source, model_dir, tmp_path):
    output = tmp_path / "local"
    Pipeline("p", stages=make_stages(model_dir, output)).run(LocalExecutor(), groups_of(source))
    return contents(output)


def rows_of(output, name):
    return pq.read_table(output / name).to_pylist()


def test_files_of_embeddings_are_the_same_bytes_on_all_engines(cluster, source, model_dir, tmp_path):
    written = {}
    for engine in ("local", "xenna", "ray-data"):
        options = RunOptions(model_dir=str(model_dir), executor=engine, min_score=5.0)
        summary = run_scoring([str(source)], tmp_path / engine, options)
        files = contents(tmp_path / engine)
        written[engine] = {name: data for name, data in files.items() if name.endswith(".parquet")}
        assert summary.images == summary.images_scored_now == 400 + 50 + 60 + 40 + 27
        assert (summary.failed, summary.bytes_per_image > 0) == (4, engine != "local")
    assert written["local"] == written["xenna"] == written["ray-data"]
    assert len(written["local"]) == 9


@pytest.mark.parametrize(("engine", "seed"), [("xenna", 3), ("ray-data", 4)])
def test_a_worker_that_is_killed_at_a_random_moment_changes_nothing(
    engine, seed, cluster, source, model_dir, expected, tmp_path
):
    diary, output = tmp_path / "diary", tmp_path / "out"
    killed, killer = kill_at_random(diary, seed)
    stages = make_stages(model_dir, output, Diary(str(diary), pause_s=0.1))
    Pipeline("p", stages=stages).run(ENGINES[engine](), groups_of(source))
    killer.join(5)
    assert killed
    assert contents(output) == expected


@pytest.mark.parametrize("engine", ["xenna", "ray-data"])
@pytest.mark.parametrize("block", [0, 2])
def test_a_file_whose_reading_kills_its_workers_ends_there_with_a_failed_row(
    engine, block, cluster, source, model_dir, expected, tmp_path, caplog
):
    output = tmp_path / "out"
    groups = groups_of(source, deadly=("2.npy", block))
    Pipeline("p", stages=make_stages(model_dir, output)).run(ENGINES[engine](), groups)
    *rows, last = rows_of(output, "2.parquet")
    assert len(rows) == block * BLOCK
    assert {row["status"] for row in rows} <= {"kept"}
    where = f", from embedding {block * BLOCK} on" if block else ""
    assert (last["status"], last["reason"]) == ("failed", f"unreadable: {REASONS['reading']}{where}")
    assert last["image_path"].endswith("2.npy")
    there = contents(output)
    assert {**there, "2.parquet": b""} == {**expected, "2.parquet": b""}
    assert "a file killed the workers that read it; it is recorded as failed" in caplog.text


@pytest.mark.parametrize("engine", ["xenna", "ray-data"])
def test_a_block_that_kills_its_workers_is_failed_rows_and_the_rest_is_scored(
    engine, cluster, source, model_dir, expected, tmp_path, caplog
):
    output = tmp_path / "out"
    reader, score, writer = make_stages(model_dir, output)
    score = DeadlyScore(score.model_dir, keep_embeddings=True, deadly=("1", 2 * BLOCK)).with_(resources=score.resources)
    Pipeline("p", stages=[reader, score, writer]).run(ENGINES[engine](), groups_of(source))
    reasons = [row["reason"] for row in rows_of(output, "1.parquet")]
    assert reasons == [None] * 2 * BLOCK + [REASONS["batch"]] * BLOCK + [None] * (100 - 3 * BLOCK)
    assert {**contents(output), "1.parquet": b""} == {**expected, "1.parquet": b""}
    assert "its 16 images are recorded as failed: ['32', '33'" in caplog.text


@pytest.mark.parametrize("engine", ["xenna", "ray-data"])
def test_what_failed_of_deaths_is_done_again_when_asked_for(engine, cluster, source, model_dir, tmp_path, monkeypatch):
    output, options = tmp_path / "out", RunOptions(model_dir=str(model_dir), executor=engine)
    with monkeypatch.context() as patch:
        patch.setattr("tastemaker.runs.run.group_embeddings", lambda _: groups_of(source, deadly=("2.npy", 0)))
        assert run_scoring([str(source)], output, options).failed == 5
    assert run_scoring([str(source)], output, options).images_scored_now == 0
    summary = run_scoring([str(source)], output, options, RunMode(retry_failed=True))
    assert summary.failed == 4
    assert [row["status"] for row in rows_of(output, "2.parquet")] == ["kept"] * 100


@pytest.mark.parametrize("engine", ["xenna", "ray-data"])
@pytest.mark.parametrize("grows", ["files", "rows"])
def test_memory_does_not_grow_with_the_input(engine, grows, cluster, model_dir, tmp_path):
    peaks, stored = {}, {}
    for times in (1, 20):
        folder, diary = tmp_path / f"given-{times}", tmp_path / f"diary-{times}"
        folder.mkdir()
        np.save(folder / "000.npy", vectors(2048 * (1 if grows == "files" else times)))
        for number in range(1, 10 * times if grows == "files" else 3):
            os.link(folder / "000.npy", folder / f"{number:03d}.npy")
        stages = make_stages(model_dir, tmp_path / f"out-{times}", Diary(str(diary)))
        stages[0] = replace(stages[0], batch_size=512)
        with object_store_bytes() as used:
            Pipeline("p", stages=stages).run(ENGINES[engine](), groups_of(folder))
        peaks[times] = max(int(peak) for _, peak, _ in read_diary(diary, "process")) / 1024
        stored[times] = max(used) / 2**20
    print(f"{engine}, more {grows}: peak of a worker {peaks[1]:.0f} and {peaks[20]:.0f} MiB, store {stored}")
    assert peaks[20] <= 1.2 * peaks[1]
    assert stored[20] <= 16  # MiB
