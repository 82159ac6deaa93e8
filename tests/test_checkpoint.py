"""Pipelines in Python that go on where they stopped."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import make_tar
from tiny import make_tiny_shards, picture, usual_stages

from tastemaker import (
    BaseExecutor,
    LocalExecutor,
    Pipeline,
    ProcessingStage,
)
from tastemaker.errors import ConfigurationError, StageError
from tastemaker.tasks import FileGroupTask, ImageBatch


class CountingExecutor(BaseExecutor):
    """Runs locally, and remembers what it was given."""

    def __init__(self):
        super().__init__()
        self.given = []

    def execute(self, stages, initial_tasks=None):
        self.given += [task.data for task in initial_tasks]
        return LocalExecutor().execute(stages, initial_tasks)


@pytest.fixture
def shards(tmp_path):
    return make_tiny_shards(tmp_path / "shards", shards=4, images=6)


def make_pipeline(shards, output, model_dir, **reader):
    return Pipeline("checkpointed", stages=usual_stages(shards, model_dir, output, threshold=3.4, **reader))


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


def test_changed_and_added_sources_are_done(tmp_path, shards, model_dir):
    run = {"checkpoint_path": str(tmp_path / "checkpoint")}
    make_pipeline(shards, tmp_path / "out", model_dir).run(**run)
    make_tar(shards / "2.tar", [("new.jpg", picture(9))])
    make_tar(shards / "4.tar", [("more.jpg", picture(9))])
    executor = CountingExecutor()
    results = make_pipeline(shards, tmp_path / "out", model_dir).run(executor, **run)
    assert executor.given == [[str(shards / "2.tar")], [str(shards / "4.tar")]]
    assert [sum(task._metadata["counts"].values()) for task in results] == [6, 6, 1, 6, 1]


def test_another_pipeline_is_refused_with_what_differs(tmp_path, shards, model_dir):
    run = {"checkpoint_path": tmp_path / "checkpoint"}
    make_pipeline(shards, tmp_path / "out", model_dir).run(**run)
    other = make_pipeline(shards, tmp_path / "out", model_dir, preprocess="transformers")
    with pytest.raises(ConfigurationError, match=r"preprocess of image_reader was .openai. and is"):
        other.run(**run)
    shorter = make_pipeline(shards, tmp_path / "out", model_dir)
    del shorter.stages[2]
    with pytest.raises(ConfigurationError, match="image_embedding was there"):
        shorter.run(**run)
    wider = make_pipeline(shards, tmp_path / "out", model_dir, num_threads=1, verbose=True)  # no other rows
    assert len(wider.run(**run)) == 4


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
        pipeline.run(LocalExecutor(), **run)
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


def test_what_a_killed_pipeline_left_of_its_own_partitions_is_cleared_and_nothing_else(tmp_path, shards, model_dir):
    (tmp_path / "out").mkdir()
    others = tmp_path / "out" / ".tastemaker-tmp-0123456789ab-another.parquet"  # of a pipeline beside this one
    for path in (
        others,
        *(others.with_name(f".tastemaker-tmp-0123456789ab-2{end}") for end in (".parquet", "-000001.tar")),
    ):
        path.touch()
    make_pipeline(shards, tmp_path / "out", model_dir).run(checkpoint_path=tmp_path / "checkpoint")
    assert list((tmp_path / "out").rglob(".tastemaker-tmp-*")) == [others]


def test_the_last_stage_may_be_one_s_own_and_what_it_has_done_is_not_done_again(tmp_path, shards, model_dir):
    class Lines(ProcessingStage[ImageBatch, FileGroupTask]):
        """Writes a file for each batch, or nothing at all."""

        name = "lines"
        folder = tmp_path / "lines"
        returns_files = True

        def fingerprint(self):
            return {}

        def process(self, task):
            path = self.folder / f"{task.task_id}.txt"
            path.write_text("\n".join(image.image_id for image in task.data))
            return FileGroupTask(data=[str(path)]) if self.returns_files else None

    Lines.folder.mkdir()
    for returns_files in (True, False):
        Lines.returns_files = returns_files
        run = {"checkpoint_path": tmp_path / f"checkpoint-{returns_files}"}
        given = []
        for _ in range(2):
            pipeline = make_pipeline(shards, tmp_path / "out", model_dir)
            pipeline.stages[-1] = Lines()
            executor = CountingExecutor()
            results = pipeline.run(executor, **run)
            given.append(len(executor.given))
            if returns_files:
                assert all(Path(task.data[0]).is_file() for task in results)
        assert given == [4, 0]
