"""The pool on Ray: the same rows and files as on this machine, whatever dies, and nothing left behind."""

import os
import traceback
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from conftest import contents
from engine_stages import (
    DEADLY_FILE,
    DeadlyDecoder,
    Diary,
    DiesLoading,
    DiesOnce,
    Holder,
    Picky,
    make_stages,
    read_diary,
    wait_until,
    write_shards,
)
from tiny import write_nasty_data

from tastemaker import LocalExecutor, Pipeline, RayDataExecutor, StageError, XennaExecutor
from tastemaker.errors import ConfigurationError, MissingExtraError, ReasonKind, WeightsNotFoundError
from tastemaker.executors.ray_session import ray_session

pytest.importorskip("ray")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("data") / "shards")


def run(stages, executor, output):
    """Return the results and what was written. Rows hold the path of the output: it is the same for all executors."""
    results = Pipeline("p", stages=stages).run(executor)
    written = {name: data for name, data in contents(output).items() if not name.startswith("_tastemaker/")}  # times
    output.rename(output.with_name(f"{output.name}-{type(executor).__name__}"))
    return results, written


def rows_of(written, tmp_path):
    rows = []
    for name, data in sorted(written.items()):
        if name.endswith(".parquet"):
            (tmp_path / "rows.parquet").write_bytes(data)
            rows += [{**row, "file": name} for row in pq.read_table(tmp_path / "rows.parquet").to_pylist()]
    return rows


def workers():
    lines = {process.pid: " ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])}
    return {pid for pid, line in lines.items() if "ChainWorker" in line or "StageWorker" in line}


@pytest.mark.ray
def test_rows_and_files_are_those_of_the_local_executor_on_nasty_data(cluster, tmp_path, photographs, model_dir):
    source, output = write_nasty_data(tmp_path / "data", photographs), tmp_path / "out"
    results, written = run(make_stages(source, model_dir, output), LocalExecutor(), output)
    counted = []
    executor, before = RayDataExecutor({"address": cluster}), workers()
    executor.on_progress = counted.append

    results_there, written_there = run(make_stages(source, model_dir, output), executor, output)

    assert written_there == written
    assert len(written) > 8
    assert [task.data for task in results_there] == [task.data for task in results]
    assert [task._metadata for task in results_there] == [task._metadata for task in results]
    rows = rows_of(written, tmp_path)
    assert {row["status"] for row in rows} == {"kept", "dropped", "failed"}
    for stage in ("image_reader", "image_aesthetic_filter"):
        assert sum(count.images for count in counted if count.stage == stage) == len(rows)
    assert [timing.name for timing in executor.timings][:2] == ["file_partitioning", "image_reader"]
    assert executor.timings[2].busy_s > 0
    assert wait_until(lambda: workers() <= before), workers()


@pytest.mark.slow
@pytest.mark.ray
def test_a_worker_that_dies_changes_nothing(cluster, shards, tmp_path, model_dir):
    output, diary = tmp_path / "out", tmp_path / "diary"
    stages = make_stages(shards, model_dir, output, DiesOnce(str(diary), "0004"))
    _, written = run(stages, RayDataExecutor({"address": cluster}), output)
    assert len(read_diary(diary, "death")) == 1
    results, expected = run(stages, LocalExecutor(), output)  # the death is over
    assert len(results) == 4
    assert written == expected


@pytest.mark.slow
@pytest.mark.ray
def test_a_file_that_kills_who_decodes_it_costs_its_own_row(cluster, tmp_path, model_dir):
    source = write_shards(tmp_path / "shards", replaced={(1, 3): DEADLY_FILE})
    stages = make_stages(source, model_dir, tmp_path / "out", DeadlyDecoder(str(tmp_path)))
    _, written = run(stages, RayDataExecutor({"address": cluster}), tmp_path / "out")
    rows = rows_of(written, tmp_path)
    failed = [(row["file"], row["image_id"], row["reason_kind"]) for row in rows if row["status"] == "failed"]
    assert failed == [("001.parquet", "0003", ReasonKind.CRASHED)]
    assert len(rows) == 24
    assert all(row["aesthetic_score"] is not None for row in rows if row["status"] != "failed")
    assert 2 <= len((tmp_path / "deaths").read_text()) <= 3
    assert not [name for name in written if "tmp" in name]


@pytest.mark.ray
def test_an_error_of_a_stage_comes_with_its_causes_and_its_place(cluster, shards, model_dir, tmp_path):
    stages = make_stages(shards, model_dir, tmp_path / "out", Picky("0005"))
    with pytest.raises(StageError, match=r"stage 'picky' failed on shard .*\.tar, keys '0004' to '0005'") as caught:
        Pipeline("p", stages=stages).run(RayDataExecutor({"address": cluster, "max_workers_per_stage": 1}))
    assert isinstance(caught.value.__cause__, ValueError)
    assert isinstance(caught.value.__cause__.__cause__, OSError)
    shown = "".join(traceback.format_exception(caught.value))
    assert 'engine_stages.py", line ' in shown
    assert 'raise ValueError("not this one")' in shown


@pytest.mark.slow
@pytest.mark.ray
def test_each_worker_loads_once_frees_what_it_loaded_and_what_it_prints_is_seen(
    cluster, shards, model_dir, tmp_path, capfd
):
    diary = tmp_path / "diary"
    *stages, _ = make_stages(shards, model_dir, tmp_path / "out", Diary(str(diary), pause_s=0.2))
    batches = Pipeline("p", stages=stages).run(RayDataExecutor({"address": cluster, "max_workers_per_stage": 2}))
    workers = {pid for pid, *_ in read_diary(diary, "process")}
    assert len(read_diary(diary, "node")) == 1
    assert len(workers) == 2
    assert sorted(pid for (pid,) in read_diary(diary, "setup")) == sorted(workers)
    assert sorted(pid for (pid,) in read_diary(diary, "teardown")) == sorted(workers)
    out, errors = capfd.readouterr()
    assert not out
    assert errors.count("printed") == 8
    images = [image for batch in batches for image in [*batch.data, *batch.dropped]]
    assert len(images) == 24
    assert all(image.encoded is None and image.image_data.shape == (40, 60, 3) for image in images)


@pytest.mark.slow
@pytest.mark.ray
def test_a_run_whose_workers_die_whatever_is_tried_ends_with_an_error(
    cluster, shards, model_dir, tmp_path, monkeypatch
):
    monkeypatch.setattr("tastemaker.executors.pool.MAX_ATTEMPTS", 1)
    monkeypatch.setattr("tastemaker.executors.pool._LOST_S", 0.1)
    stages = make_stages(shards, model_dir, tmp_path / "out", DiesLoading(str(tmp_path / "diary")))
    with pytest.raises(StageError, match=r"workers died again and again on .*000\.tar"):
        Pipeline("p", stages=stages).run(RayDataExecutor({"address": cluster, "max_workers_per_stage": 1}))
    assert 1 <= len(read_diary(tmp_path / "diary", "death")) <= 3
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.ray
def test_what_cannot_begin_is_an_error_that_says_why(cluster, shards, model_dir, tmp_path):
    stages = make_stages(shards, model_dir, tmp_path / "out", Holder())
    with pytest.raises(ConfigurationError, match=r"stage 'holder' cannot be sent to workers.*setup\(\)"):
        Pipeline("p", stages=stages).run(XennaExecutor({"address": cluster}))
    stages = make_stages(shards, tmp_path / "none", tmp_path / "out")
    with pytest.raises(WeightsNotFoundError, match="tastemaker scorers pull"):
        Pipeline("p", stages=stages).run(RayDataExecutor({"address": cluster}))


@pytest.mark.slow
@pytest.mark.ray
def test_a_listener_that_raises_ends_the_run_with_its_error(cluster, shards, model_dir, tmp_path):
    def refuse(count):
        raise KeyError("enough")

    executor = RayDataExecutor({"address": cluster, "max_workers_per_stage": 1}, on_progress=refuse)
    with pytest.raises(KeyError, match="enough"):
        Pipeline("p", stages=make_stages(shards, model_dir, tmp_path / "out")).run(executor)


@pytest.mark.ray
def test_runs_of_the_command_line_s_kind_give_the_same_rows_of_images_and_of_embeddings(
    cluster, shards, model_dir, tmp_path
):
    from tastemaker.runs.run import RunOptions, run_scoring

    embeddings = tmp_path / "embeddings"
    embeddings.mkdir()
    for number in range(3):
        np.save(embeddings / f"{number}.npy", np.random.default_rng(number).standard_normal((50, 768), np.float32))
    (embeddings / "cut.npy").write_bytes((embeddings / "0.npy").read_bytes()[:40_000])
    for source, images in ((shards, 24), (embeddings, 150 + 13)):
        rows = {}
        for engine in ("local", "xenna"):
            output = tmp_path / f"{engine}-{source.name}"
            address = None if engine == "local" else cluster
            options = RunOptions(model_dir=str(model_dir), executor=engine, address=address)
            summary = run_scoring([str(source)], output, options)
            assert (summary.images, summary.images_scored_now) == (images, images)
            assert summary.bottleneck
            rows[engine] = {path.name: pq.read_table(path).to_pylist() for path in output.rglob("*.parquet")}
        assert rows["local"] == rows["xenna"]


@pytest.mark.slow
@pytest.mark.ray
def test_memory_does_not_grow_with_the_input(cluster, model_dir, tmp_path):
    source = write_shards(tmp_path / "one", shards=1, images=12)
    peaks = {}
    for number in (15, 60):  # by then all buffers are there
        folder, diary = tmp_path / f"shards-{number}", tmp_path / f"diary-{number}"
        folder.mkdir()
        for shard in range(number):
            os.link(source / "000.tar", folder / f"{shard:03d}.tar")
        stages = make_stages(folder, model_dir, tmp_path / f"out-{number}", Diary(str(diary)))
        Pipeline("p", stages=stages).run(RayDataExecutor({"address": cluster}))
        peaks[number] = max(int(peak) for _, peak in read_diary(diary, "process")) / 1024
    print(f"peak of a worker {peaks[15]:.0f} and {peaks[60]:.0f} MiB")
    assert peaks[60] <= 1.2 * peaks[15]


def test_a_wrong_option_is_an_error_before_anything_starts():
    with pytest.raises(ConfigurationError, match="more than 0"):
        XennaExecutor({"max_workers_per_stage": 0})
    with pytest.raises(ConfigurationError, match=r"RayDataExecutor has no option 'workers'; it has address, max_work"):
        RayDataExecutor({"workers": 4})
    with pytest.raises(ConfigurationError, match="LocalExecutor has no option 'address'; it has gpus"):
        LocalExecutor({"address": "auto"})
    with pytest.raises(ConfigurationError, match="ray job submit"), ray_session("ray://head:10001"):
        pass


def test_an_engine_that_is_not_installed_names_the_extra(monkeypatch):
    monkeypatch.setattr("tastemaker.executors.ray_data.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'XennaExecutor needs ray: pip install "tastemaker\[ray\]"'):
        XennaExecutor()


def test_with_several_gpus_the_local_executor_runs_a_process_for_each(shards, model_dir, tmp_path, monkeypatch):
    from tastemaker.executors import local, ray_data

    asked = []

    def execute(self, stages, tasks):
        asked.append((self.config, {stage.name: stage.resources.gpus for stage in stages}))
        return ["done"]

    monkeypatch.setattr(ray_data.RayDataExecutor, "execute", execute)
    stages = make_stages(shards, model_dir, Path(tmp_path / "out"))
    stages[2] = stages[2].with_(resources=type(stages[2].resources)(gpus=0.25))
    assert LocalExecutor({"gpus": 3}).execute(stages) == ["done"]
    ((config, gpus),) = asked
    assert (config["max_workers_per_stage"], config["address"]) == (3, "local")
    assert (gpus["image_embedding"], gpus["image_reader"]) == (1, 0)
    monkeypatch.setattr(local, "find_spec", lambda name: None)
    assert len(LocalExecutor({"gpus": 3}).execute(stages)) == 4  # threads of this process
