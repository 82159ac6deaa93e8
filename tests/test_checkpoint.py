"""Pipelines in Python that go on where they stopped."""

import json
import os
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest
from conftest import make_shards, make_tar

from tastemaker import (
    BaseExecutor,
    FilePartitioningStage,
    ImageAestheticFilterStage,
    ImageEmbeddingStage,
    ImageReaderStage,
    ImageWriterStage,
    LocalExecutor,
    Pipeline,
    ProcessingStage,
)
from tastemaker.errors import ConfigurationError, StageError
from tastemaker.tasks import ImageBatch


class CountingExecutor(BaseExecutor):
    """Runs locally, and remembers what it was given."""

    def __init__(self):
        super().__init__()
        self.given = []

    def execute(self, stages, initial_tasks=None):
        self.given += [task.data for task in initial_tasks]
        return LocalExecutor().execute(stages, initial_tasks)


@pytest.fixture
def shards(tmp_path, photographs):
    files = photographs.items()
    return make_shards(tmp_path / "shards", ([(f"{n}{name}", data) for name, data in files] for n in range(4)))


def make_pipeline(shards, output, model_dir, **reader):
    return Pipeline(
        "checkpointed",
        stages=[
            FilePartitioningStage(str(shards)),
            ImageReaderStage(batch_size=4, **reader),
            ImageEmbeddingStage(model_dir=str(model_dir)),
            ImageAestheticFilterStage(model_dir=str(model_dir), score_threshold=5.0),
            ImageWriterStage(str(output)),
        ],
    )


def described(tasks):
    return [(task.task_id, task.data, task._metadata["counts"], task._metadata["num_images"]) for task in tasks]


def rows_of(output):
    tables = {path.name: pq.read_table(path) for path in sorted(output.glob("*.parquet"))}
    return {name: table.drop_columns(["tar_file"]).to_pylist() for name, table in tables.items()}


def count_finished(folder):
    return len([path for path in folder.glob("*.json") if not path.name.startswith(".")])


def test_finished_partitions_are_left_out_and_their_results_come_back_in_order(tmp_path, shards, model_dir):
    run = {"checkpoint_path": tmp_path / "checkpoint"}
    whole = make_pipeline(shards, tmp_path / "out", model_dir).run(**run)
    executor = CountingExecutor()
    again = make_pipeline(shards, tmp_path / "out", model_dir).run(executor, **run)
    assert executor.given == []
    assert described(again) == described(whole)
    (tmp_path / "out" / "1.parquet").unlink()  # its results are gone: it is not finished
    again = make_pipeline(shards, tmp_path / "out", model_dir).run(executor, **run)
    assert executor.given == [[str(shards / "1.tar")]]
    assert described(again) == described(whole)


def test_changed_and_added_sources_are_done(tmp_path, shards, model_dir, photographs):
    run = {"checkpoint_path": str(tmp_path / "checkpoint")}
    make_pipeline(shards, tmp_path / "out", model_dir).run(**run)
    make_tar(shards / "2.tar", [("new.jpg", photographs["rocket.jpg"])])
    make_tar(shards / "4.tar", [("more.jpg", photographs["rocket.jpg"])])
    executor = CountingExecutor()
    results = make_pipeline(shards, tmp_path / "out", model_dir).run(executor, **run)
    assert executor.given == [[str(shards / "2.tar")], [str(shards / "4.tar")]]
    assert [sum(task._metadata["counts"].values()) for task in results] == [6, 6, 1, 6, 1]


def test_another_pipeline_is_refused_with_what_differs(tmp_path, shards, model_dir):
    run = {"checkpoint_path": tmp_path / "checkpoint"}
    make_pipeline(shards, tmp_path / "out", model_dir).run(**run)
    other = make_pipeline(shards, tmp_path / "out", model_dir, preprocess="transformers")
    with pytest.raises(ConfigurationError, match="rounding of preprocess of image_reader was"):
        other.run(**run)
    shorter = make_pipeline(shards, tmp_path / "out", model_dir)
    del shorter.stages[2]
    with pytest.raises(ConfigurationError, match="image_embedding was there"):
        shorter.run(**run)
    wider = make_pipeline(shards, tmp_path / "out", model_dir, num_threads=1, verbose=True)  # no other rows
    assert len(wider.run(**run)) == 4


def test_other_weights_in_the_same_place_are_another_pipeline(tmp_path, shards):
    from tastemaker.testing import write_random_models

    models = write_random_models(tmp_path / "models")
    run = {"checkpoint_path": tmp_path / "checkpoint"}
    make_pipeline(shards, tmp_path / "out", models).run(**run)
    write_random_models(models, seed=1)
    with pytest.raises(ConfigurationError, match=r"clip_sha256 of image_embedding was \w{12}"):
        make_pipeline(shards, tmp_path / "out", models).run(**run)


def test_what_was_finished_before_an_error_is_not_done_again(tmp_path, shards, model_dir):
    class FailsOnce(ProcessingStage[ImageBatch, ImageBatch]):
        name = "fails_once"
        fails = True

        def fingerprint(self):
            return {}

        def process(self, task):
            if self.fails and task.data[0].image_id.startswith("3"):
                raise RuntimeError("no luck")
            return task

    run = {"checkpoint_path": tmp_path / "checkpoint"}
    pipeline = make_pipeline(shards, tmp_path / "out", model_dir)
    pipeline.stages.insert(2, FailsOnce())
    with pytest.raises(StageError, match="no luck"):
        pipeline.run(LocalExecutor({"queue_size": 1}), **run)
    finished = count_finished(tmp_path / "checkpoint")
    FailsOnce.fails = False
    executor = CountingExecutor()
    pipeline = make_pipeline(shards, tmp_path / "out", model_dir)
    pipeline.stages.insert(2, FailsOnce())
    assert len(pipeline.run(executor, **run)) == 4
    assert len(executor.given) == 4 - finished


def test_a_stage_that_splits_the_last_batch_finishes_a_partition_once(tmp_path, shards, model_dir):
    class Split(ProcessingStage[ImageBatch, ImageBatch]):
        name = "split"

        def process(self, task):
            return [ImageBatch(task.dataset_name, [image], task_id=image.image_id) for image in task.data]

    pipeline = make_pipeline(shards, tmp_path / "out", model_dir)
    pipeline.stages.insert(2, Split())
    results = pipeline.run(checkpoint_path=tmp_path / "checkpoint")
    assert len(results) == 4
    make_pipeline(shards, tmp_path / "plain", model_dir).run()
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "plain")


def test_batches_in_memory_cannot_be_gone_on_with(tmp_path, shards, model_dir):
    pipeline = make_pipeline(shards, tmp_path / "out", model_dir)
    del pipeline.stages[-1]
    with pytest.raises(ConfigurationError, match="add an ImageWriterStage"):
        pipeline.run(checkpoint_path=tmp_path / "checkpoint")


def test_a_killed_pipeline_goes_on(tmp_path, photographs, model_dir):
    shards = tmp_path / "shards"
    shards.mkdir()
    for number in range(12):
        members = [(f"{n}{name}", data) for n in range(4) for name, data in photographs.items()]
        make_tar(shards / f"{number:02d}.tar", members)
    script = tmp_path / "script.py"
    script.write_text(
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_checkpoint import make_pipeline\n"
        "pipeline = make_pipeline(*sys.argv[2:5])\n"
        "print(len(pipeline.run(checkpoint_path=sys.argv[5])))\n"
    )
    arguments = [os.path.dirname(__file__), shards, tmp_path / "out", model_dir, tmp_path / "checkpoint"]
    command = [sys.executable, str(script), *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        while process.poll() is None and count_finished(tmp_path / "checkpoint") < 2:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
    done = count_finished(tmp_path / "checkpoint")
    assert 0 < done < 12
    others = tmp_path / "out" / ".tastemaker-tmp-0123456789ab-another.parquet"  # of a pipeline beside this one
    drafts = [others, others.with_name(".tastemaker-tmp-0123456789ab-11.parquet")]
    for path in drafts:
        path.touch()
    executor = CountingExecutor()
    results = make_pipeline(shards, tmp_path / "out", model_dir).run(executor, checkpoint_path=tmp_path / "checkpoint")
    assert (len(results), len(executor.given)) == (12, 12 - done)
    assert list((tmp_path / "out").rglob(".tastemaker-tmp-*")) == [others]
    assert json.loads((tmp_path / "checkpoint" / "pipeline.json").read_text())[0]["stage"] == "ImageReaderStage"
