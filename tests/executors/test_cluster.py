"""Xenna and Ray Data: the same rows and files, whatever dies, and nothing left behind."""

import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from cluster_stages import (
    ENGINES,
    Deadly,
    Diary,
    DiesLoading,
    DiesReading,
    HangsAtExit,
    Holder,
    Picky,
    kill_at_random,
    make_stages,
    marked_processes,
    object_store_bytes,
    read_diary,
    wait_until,
    write_nasty_data,
    write_shards,
)
from conftest import contents
from tastemaker.executors.ledger import REASONS

from tastemaker import LocalExecutor, Pipeline, StageError, XennaExecutor
from tastemaker.errors import ConfigurationError, MissingExtraError, WeightsNotFoundError
from tastemaker.executors.ray_session import ray_session

pytestmark = [pytest.mark.ray, pytest.mark.slow]
pytest.importorskip("ray")


@pytest.fixture(scope="module")
def shards(tmp_path_factory, photographs):
    return write_shards(tmp_path_factory.mktemp("data") / "shards", photographs)


def run(stages, executor, output):
    """Return the results and what was written. Rows hold the path of the output: it is the same for all executors."""
    results = Pipeline("p", stages=stages).run(executor)
    written = contents(output)
    output.rename(output.with_name(f"{output.name}-{time.monotonic_ns()}"))
    return results, written


@pytest.fixture(scope="module")
def expected(tmp_path_factory, shards, model_dir):
    """Where to write, and what LocalExecutor writes there."""
    output = tmp_path_factory.mktemp("out") / "out"
    results, written = run(make_stages(shards, model_dir, output), LocalExecutor(), output)
    return output, results, written


def rows_of(written, tmp_path):
    rows = []
    for name, data in sorted(written.items()):
        if name.endswith(".parquet"):
            (tmp_path / "rows.parquet").write_bytes(data)
            rows += [{**row, "file": name} for row in pq.read_table(tmp_path / "rows.parquet").to_pylist()]
    return rows


def living_actors():
    import ray

    found = ray._private.state.actors().values()
    return [actor for actor in found if actor["State"] not in ("DEAD", "DEPENDENCIES_UNREADY")]


@pytest.mark.parametrize("engine", ENGINES)
def test_rows_and_files_are_those_of_the_local_executor_on_nasty_data(
    engine, cluster, tmp_path, photographs, model_dir
):
    source, output = write_nasty_data(tmp_path / "data", photographs), tmp_path / "out"
    results, written = run(make_stages(source, model_dir, output), LocalExecutor(), output)
    executor = ENGINES[engine]()
    counted = []
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


@pytest.mark.parametrize("engine", ["xenna", "ray-data"])
def test_batches_that_no_writer_takes_come_back_as_they_are_and_small(engine, cluster, shards, model_dir, tmp_path):
    import numpy as np

    stages = make_stages(shards, model_dir, tmp_path)[:-1]
    executor = ENGINES[engine]()
    here, there = Pipeline("p", stages=stages).run(LocalExecutor()), Pipeline("p", stages=stages).run(executor)
    assert [batch.task_id for batch in there] == [batch.task_id for batch in here]
    images = [
        (image, other) for a, b in zip(here, there, strict=True) for image, other in zip(a.data, b.data, strict=True)
    ]
    for image, other in images:
        assert (image.image_id, image.aesthetic_score, image.encoded) == (
            other.image_id,
            other.aesthetic_score,
            other.encoded,
        )
        assert np.array_equal(image.embedding, other.embedding)
    encoded = sum(member.stat().st_size for member in shards.iterdir()) / 72
    print(f"{engine}: {executor.bytes_per_image:.0f} bytes crossed for each image of {encoded:.0f} bytes")
    assert 0 < executor.bytes_per_image <= 1.3 * (encoded + 150_000)


@pytest.mark.parametrize(("engine", "seed"), [("xenna", 1), ("ray-data", 2)])
def test_a_worker_that_is_killed_at_a_random_moment_changes_nothing(
    engine, seed, cluster, shards, model_dir, expected, tmp_path
):
    output, results, written = expected
    diary = tmp_path / "diary"
    killed, killer = kill_at_random(diary, seed)
    stages = make_stages(shards, model_dir, output, Diary(str(diary), pause_s=0.1))
    executor = ENGINES[engine]()
    counted = []
    executor.on_progress = counted.append
    results_there, written_there = run(stages, executor, output)
    killer.join(5)

    assert killed
    assert written_there == written
    assert [task.data for task in results_there] == [task.data for task in results]
    assert sum(count.images for count in counted if count.stage == "image_reader") == 72


@pytest.mark.parametrize("engine", ["xenna", "ray-data"])
def test_a_batch_that_kills_its_workers_fails_with_its_keys_and_the_rest_is_scored(
    engine, cluster, shards, model_dir, expected, tmp_path, caplog
):
    output, _, written = expected
    stages = make_stages(shards, model_dir, output, Deadly("002.tar", "0006"))
    _, written_there = run(stages, ENGINES[engine](), output)

    rows, rows_there = rows_of(written, tmp_path), rows_of(written_there, tmp_path)
    failed = [(row["file"], row["image_id"], row["reason"]) for row in rows_there if row["status"] == "failed"]
    assert failed == [("002.parquet", f"{number:04d}", REASONS["batch"]) for number in range(4, 8)]
    known = {(row["file"], row["image_id"]): row["aesthetic_score"] for row in rows}
    assert len(rows_there) == len(rows) == 72
    others = [row for row in rows_there if row["status"] != "failed"]
    assert all(row["aesthetic_score"] == known[row["file"], row["image_id"]] for row in others)
    assert "its 4 images are recorded as failed: ['0004', '0005', '0006', '0007']" in caplog.text
    assert not [name for name in written_there if "tmp" in name]


@pytest.mark.parametrize("engine", ["xenna", "ray-data"])
def test_a_shard_whose_reading_kills_its_workers_ends_there_with_a_failed_row(
    engine, cluster, shards, model_dir, expected, tmp_path, caplog
):
    output, _, written = expected
    stages = make_stages(shards, model_dir, output)
    reader = DiesReading(batch_size=4, shard="002.tar", key="0006").with_(resources=stages[1].resources)
    _, written_there = run([stages[0], reader, *stages[2:]], ENGINES[engine](), output)

    rows, rows_there = rows_of(written, tmp_path), rows_of(written_there, tmp_path)
    failed = [row for row in rows_there if row["status"] == "failed"]
    assert [(row["file"], row["image_id"], row["image_path"], row["reason"]) for row in failed] == [
        ("002.parquet", "", str(shards / "002.tar"), f"unreadable: {REASONS['reading']}")
    ]
    places = ("tar_file", "member_name")  # the kept of that shard lie in fewer tars
    known = {(row["file"], row["image_id"]): {k: v for k, v in row.items() if k not in places} for row in rows}
    there = [{k: v for k, v in row.items() if k not in places} for row in rows_there if row["status"] != "failed"]
    assert all(row == known[row["file"], row["image_id"]] for row in there)
    assert len(there) == 72 - 6
    assert f"a file killed the workers that read it; it is recorded as failed: {shards / '002.tar'}" in caplog.text
    assert not [name for name in written_there if "tmp" in name]


@pytest.mark.parametrize(
    ("engine", "words"),
    [("xenna", "workers died in 3 runs that finished nothing"), ("ray-data", "3 workers died while they loaded")],
)
def test_a_run_whose_workers_die_whatever_is_tried_ends_with_an_error(
    engine, words, cluster, shards, model_dir, tmp_path, monkeypatch
):
    monkeypatch.setattr("tastemaker.executors.cluster._LONG_PAUSE_S", 0.1)
    stages = make_stages(shards, model_dir, tmp_path / "out", DiesLoading(str(tmp_path / "diary")))
    with pytest.raises(StageError, match=words):
        Pipeline("p", stages=stages).run(ENGINES[engine](max_workers_per_stage=1))
    assert len(read_diary(tmp_path / "diary", "death")) == 3
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize("engine", ["xenna", "ray-data"])
def test_an_error_of_a_stage_is_the_error_of_the_run_with_its_causes(engine, cluster, shards, model_dir, tmp_path):
    stages = make_stages(shards, model_dir, tmp_path / "out", Picky("0006"))
    with pytest.raises(StageError, match=r"stage 'picky' failed on shard .*\.tar, keys '0004' to '0007'") as caught:
        Pipeline("p", stages=stages).run(ENGINES[engine]())
    assert isinstance(caught.value.__cause__, ValueError)
    assert isinstance(caught.value.__cause__.__cause__, OSError)


def test_missing_weights_are_the_same_error_as_on_this_machine(cluster, shards, tmp_path):
    with pytest.raises(WeightsNotFoundError, match="tastemaker models pull"):
        Pipeline("p", stages=make_stages(shards, tmp_path / "none", tmp_path / "out")).run(ENGINES["ray-data"]())


def test_a_stage_that_cannot_travel_is_an_error_that_says_what_to_do(cluster, shards, model_dir, tmp_path):
    stages = make_stages(shards, model_dir, tmp_path / "out", Holder())
    with pytest.raises(ConfigurationError, match=r"stage 'holder' cannot be sent to workers.*setup\(\)"):
        Pipeline("p", stages=stages).run(ENGINES["xenna"]())


@pytest.mark.parametrize("engine", ["xenna", "ray-data"])
def test_weights_are_fetched_once_a_node_and_models_loaded_once_a_worker(engine, cluster, shards, model_dir, tmp_path):
    diary = tmp_path / "diary"
    stages = make_stages(shards, model_dir, tmp_path / "out", Diary(str(diary), pause_s=0.1), batch_size=3)
    Pipeline("p", stages=stages).run(ENGINES[engine]())
    workers = {pid for pid, *_ in read_diary(diary, "process")}
    assert len(read_diary(diary, "node")) == 1
    assert sorted(pid for (pid,) in read_diary(diary, "setup")) == sorted(workers)
    assert sorted(pid for (pid,) in read_diary(diary, "teardown")) == sorted(workers)
    assert len(read_diary(diary, "process")) == 24
    assert len(workers) == 2


@pytest.mark.parametrize("engine", ["xenna", "ray-data"])
def test_a_run_leaves_nothing_of_its_own_on_a_cluster_of_others(engine, cluster, shards, model_dir, tmp_path):
    import ray

    before = {actor["ActorID"] for actor in living_actors()}
    Pipeline("p", stages=make_stages(shards, model_dir, tmp_path / "out")).run(ENGINES[engine]())
    assert ray.is_initialized()
    assert wait_until(lambda: {actor["ActorID"] for actor in living_actors()} <= before), living_actors()
    assert wait_until(lambda: ray.available_resources().get("CPU") == ray.cluster_resources()["CPU"])


@pytest.mark.parametrize("engine", ["xenna", "ray-data"])
def test_worker_processes_end_also_where_nobody_kills_them_and_their_exit_hangs(
    engine, cluster, shards, model_dir, tmp_path, monkeypatch
):
    monkeypatch.setattr("ray.kill", lambda *_, **__: None)  # as where the last reference is dropped first
    diary = tmp_path / "diary"
    stages = make_stages(shards, model_dir, tmp_path / "out", Diary(str(diary)), HangsAtExit())
    Pipeline("p", stages=stages).run(ENGINES[engine]())
    workers = {int(pid) for pid, *_ in read_diary(diary, "process")}
    assert workers
    try:
        assert wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 30)
    finally:
        for pid in workers:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("engine", ["xenna", "ray-data"])
def test_memory_does_not_grow_with_the_input(engine, cluster, photographs, model_dir, tmp_path):
    source = write_shards(tmp_path / "one", {"rocket.jpg": photographs["rocket.jpg"]}, shards=1, images=12)
    peaks, stored = {}, {}
    for number in (3, 60):
        folder, diary = tmp_path / f"shards-{number}", tmp_path / f"diary-{number}"
        folder.mkdir()
        for shard in range(number):
            os.link(source / "000.tar", folder / f"{shard:03d}.tar")
        stages = make_stages(folder, model_dir, tmp_path / f"out-{number}", Diary(str(diary)), batch_size=4)
        with object_store_bytes() as used:
            Pipeline("p", stages=stages).run(ENGINES[engine]())
        peaks[number] = max(int(peak) for _, peak, _ in read_diary(diary, "process")) / 1024
        stored[number] = max(used) / 2**20
    print(
        f"{engine}: peak of a worker {peaks[3]:.0f} and {peaks[60]:.0f} MiB, store {stored[3]:.2f} and {stored[60]:.2f}"
    )
    assert peaks[60] <= 1.2 * peaks[3]
    assert stored[60] <= 16  # MiB


@pytest.mark.parametrize("engine", ["xenna", "ray-data"])
def test_a_slow_stage_holds_back_the_stages_before_it(engine, cluster, shards, model_dir, tmp_path):
    first, last = tmp_path / "first", tmp_path / "last"
    stages = make_stages(
        shards, model_dir, tmp_path / "out", Diary(str(first), name="first"), batch_size=1, threshold=-100
    )
    stages.insert(-1, Diary(str(last), pause_s=0.1, name="last"))
    ahead, done = [], threading.Event()

    def sample():
        while not done.wait(0.05):
            ahead.append(len(read_diary(first, "process")) - len(read_diary(last, "process")))

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    Pipeline("p", stages=stages).run(ENGINES[engine](queue_size=1))
    done.set()
    sampler.join()
    # Two workers; a batch in each of four stages, one before each, one being handed over.
    assert 0 < max(ahead) <= 2 * 9


@pytest.mark.parametrize("engine", ["xenna", "ray-data"])
def test_the_number_of_workers_is_bounded_by_the_option_and_progress_is_logged(
    engine, cluster, shards, model_dir, tmp_path, caplog
):
    diary = tmp_path / "diary"
    stages = make_stages(shards, model_dir, tmp_path / "out", Diary(str(diary), pause_s=0.05))
    with caplog.at_level(logging.INFO, "tastemaker"):
        Pipeline("p", stages=stages).run(ENGINES[engine](max_workers_per_stage=1, logging_interval=0.5))
    assert len({pid for pid, *_ in read_diary(diary, "process")}) == 1
    assert "6 tasks on 1 workers of 0.5 cores and 0 GPUs, on 1 machines" in caplog.text
    assert "of 6 tasks done" in caplog.text
    assert "bytes of tasks and results crossed processes for each of 72 images" in caplog.text
    assert "CLIP runs on cpu" in caplog.text  # what workers log is logged here


def test_a_listener_that_raises_ends_the_run_with_its_error(cluster, shards, model_dir, tmp_path):
    executor = ENGINES["xenna"]()

    def refuse(count):
        raise KeyError("enough")

    executor.on_progress = refuse
    stages = make_stages(shards, model_dir, tmp_path / "out", Diary(str(tmp_path / "diary"), pause_s=0.2))
    with pytest.raises(KeyError, match="enough"):
        Pipeline("p", stages=stages).run(executor)


def test_a_run_of_the_command_line_s_kind_gives_the_same_rows(cluster, shards, model_dir, tmp_path):
    from tastemaker.runs.run import RunOptions, run_scoring

    rows = {}
    for engine in ("local", "xenna", "ray-data"):
        output = tmp_path / engine
        summary = run_scoring([str(shards)], output, RunOptions(model_dir=str(model_dir), executor=engine))
        assert (summary.images, summary.images_scored_now) == (72, 72)
        assert (summary.bytes_per_image > 0) == (engine != "local")
        assert summary.bottleneck
        rows[engine] = {path.name: pq.read_table(path).to_pylist() for path in Path(output).glob("*.parquet")}
    assert rows["local"] == rows["xenna"] == rows["ray-data"]


def test_options_of_xenna_reach_it(cluster, shards, model_dir, tmp_path, monkeypatch):
    from tastemaker.executors import xenna_engine

    seen = []

    class Seen(Exception):  # noqa: N818
        pass

    def look(spec, resources):
        seen.append((spec.config, spec.stages[0], resources))
        raise Seen

    monkeypatch.setattr(xenna_engine.streaming, "run_pipeline", look)
    monkeypatch.setattr(xenna_engine.batch, "run_pipeline", look)
    stages = make_stages(shards, model_dir, tmp_path / "out")
    for config in (
        {"autoscale_interval_s": 7, "cpu_allocation_percentage": 1.0, "ignore_failures": True},
        {"execution_mode": "batch"},
    ):
        with pytest.raises(Seen):
            Pipeline("p", stages=stages).run(XennaExecutor(config))
    (streaming, stage, machines), (batch, _, fewer) = seen
    assert (streaming.execution_mode.name, batch.execution_mode.name) == ("STREAMING", "BATCH")
    assert streaming.mode_specific.autoscale_interval_s == 7
    assert not streaming.ignore_failures
    assert not stage.ignore_failures
    assert (machines.total_pool().cpus, fewer.total_pool().cpus) == (2, 1)
    assert stage.num_workers == 5


def test_a_wrong_option_is_an_error_before_anything_starts():
    for config, words in (
        ({"execution_mode": "serving"}, "not one of streaming, batch"),
        ({"max_workers_per_stage": 0}, "more than 0"),
        ({"cpu_allocation_percentage": 95}, "is a share"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            XennaExecutor(config)
    with pytest.raises(ConfigurationError, match="ray job submit"), ray_session("ray://head:10001", sets_gpus=True):
        pass


def test_an_engine_that_is_not_installed_names_the_extra(monkeypatch):
    from tastemaker.executors import cluster as module

    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "cosmos_xenna" else object())
    with pytest.raises(MissingExtraError, match=r'XennaExecutor needs cosmos_xenna: pip install "tastemaker\[ray\]"'):
        XennaExecutor()


LOCAL = """
    import logging, sys, psutil
    from dataclasses import dataclass
    from tastemaker import *
    sys.path.insert(0, sys.argv[5])
    from cluster_stages import ENGINES, make_stages
    source, models, output, engine = sys.argv[1:5]

    @dataclass
    class OfTheScript(ProcessingStage):
        name: str = "of_the_script"
        def process(self, task):
            import time
            print("of a worker", flush=True)
            time.sleep(0.1)
            return task

    if __name__ == "__main__":
        stages = make_stages(source, models, output, OfTheScript(), batch_size=2)
        results = Pipeline("p", stages=stages).run(ENGINES[engine]())
        import ray
        print(len(results), ray.is_initialized(), psutil.Process().children(recursive=True))
"""


@pytest.fixture
def script(tmp_path, shards, model_dir):
    """The command that runs a script with a Ray of its own, and its environment with a mark in it."""
    (tmp_path / "script.py").write_text(textwrap.dedent(LOCAL))
    tests = Path(__file__).parent
    environment = {**os.environ, "TASTEMAKER_MARK": tmp_path.name, "PYTHONPATH": str(tests.parent)}

    def command(engine):
        return [
            *(sys.executable, str(tmp_path / "script.py"), str(shards), str(model_dir), str(tmp_path / "out")),
            *(engine, str(tests)),
        ]

    return command, environment


@pytest.mark.parametrize("engine", ["xenna", "ray-data"])
def test_a_ray_of_its_own_starts_and_ends_with_the_run_and_stdout_stays_clean(engine, script, tmp_path):
    command, environment = script
    done = subprocess.run(command(engine), env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout == "6 False []\n", done.stderr
    assert wait_until(lambda: not marked_processes(tmp_path.name)), marked_processes(tmp_path.name)


@pytest.mark.parametrize("engine", ["xenna", "ray-data"])
def test_ctrl_c_ends_the_run_and_everything_that_it_started(engine, script, tmp_path):
    command, environment = script
    with subprocess.Popen(command(engine), env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert wait_until(lambda: list((tmp_path / "out").glob("*.parquet")), 60)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    assert wait_until(lambda: not marked_processes(tmp_path.name)), marked_processes(tmp_path.name)
