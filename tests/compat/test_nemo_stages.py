"""The stages called directly, as NeMo Curator's own unit tests call them."""

import logging
import tarfile
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import encode, make_tar
from PIL import Image
from tiny import unit_vectors

from tastemaker.compat.nemo_curator.duplicates import DocumentBatch, WorkflowRunResult
from tastemaker.compat.nemo_curator.engines import Pipeline, RayDataExecutor, SlurmRayClient, XennaExecutor
from tastemaker.compat.nemo_curator.functions import processing_stage
from tastemaker.compat.nemo_curator.perf import TaskPerfUtils
from tastemaker.compat.nemo_curator.stages import (
    BaseFilterStage,
    CompositeStage,
    FilePartitioningStage,
    ImageAestheticFilterStage,
    ImageEmbeddingStage,
    ImageReaderStage,
    ImageWriterStage,
    ProcessingStage,
)
from tastemaker.errors import ConfigurationError
from tastemaker.executors import LocalExecutor
from tastemaker.stage_perf import StagePerfStats
from tastemaker.stages.base import NodeInfo, Resources, WorkerMetadata
from tastemaker.tasks import EmptyTask, FileGroupTask, ImageBatch, ImageObject, Task


def random_images(count, size=224, **attributes):
    rng = np.random.default_rng(42)
    return [
        ImageObject(
            image_path=f"/path/to/img_{number:03d}.jpg",
            image_id=f"img_{number:03d}",
            image_data=rng.integers(0, 255, (size, size, 3), dtype=np.uint8),
            **attributes,
        )
        for number in range(count)
    ]


def names_in(path):
    with tarfile.open(path) as tar:
        return tar.getnames()


PARAMETERS = {  # of NeMo Curator 1.4, in order, without `name`
    FilePartitioningStage: {
        "file_paths": ...,
        "files_per_partition": None,
        "blocksize": None,
        "file_extensions": None,
        "storage_options": None,
        "limit": None,
    },
    ImageReaderStage: {"batch_size": 100, "verbose": True, "num_threads": 8, "num_gpus_per_worker": 0.25},
    ImageEmbeddingStage: {
        "model_dir": None,
        "num_gpus_per_worker": 0.25,
        "model_inference_batch_size": 32,
        "verbose": False,
        "remove_image_data": False,
    },
    ImageAestheticFilterStage: {
        "model_dir": None,
        "num_gpus_per_worker": 0.25,
        "model_inference_batch_size": 32,
        "score_threshold": 0.5,
        "verbose": False,
    },
    ImageWriterStage: {
        "output_dir": ...,
        "images_per_tar": 1000,
        "verbose": False,
        "deterministic_name": True,
        "remove_image_data": False,
    },
}


@pytest.mark.parametrize("stage", PARAMETERS)
def test_parameters_come_in_nemo_curators_order_with_its_defaults(stage):
    expected = PARAMETERS[stage]
    own = [field for field in fields(stage) if field.init]
    assert [field.name for field in own[: len(expected)]] == list(expected)
    assert own[len(expected)].name == "name"
    for field, default in zip(own, expected.values(), strict=False):
        assert default is ... or field.default == default


@pytest.mark.parametrize("option", ["dali_batch_size", "task_batch_size", "batch_size"])
def test_reader_takes_the_batch_size_under_every_name_it_had(option):
    stage = ImageReaderStage(**{option: 3}, verbose=False)
    assert stage.batch_size == stage.dali_batch_size == 3


def test_with_batch_size_does_not_change_how_many_images_a_batch_has():
    assert ImageReaderStage(dali_batch_size=50).with_(batch_size=2, num_threads=3).dali_batch_size == 50


def test_names_inputs_and_outputs_are_nemo_curators(tmp_path):
    reader = ImageReaderStage(dali_batch_size=3, verbose=False)
    assert (reader.name, reader.inputs()) == ("image_reader", ([], []))
    assert reader.outputs() == (["data"], ["image_data", "image_path", "image_id"])
    assert ImageEmbeddingStage().name == "image_embedding"
    for stage in (ImageEmbeddingStage(), ImageAestheticFilterStage(), ImageWriterStage(output_dir=str(tmp_path))):
        assert stage.inputs() == stage.outputs() == (["data"], [])
    assert ImageAestheticFilterStage().name == "image_aesthetic_filter"
    assert ImageWriterStage(str(tmp_path)).name == "image_writer"
    assert FilePartitioningStage("x").name == "file_partitioning"


def test_partitioning_a_folder_of_shards(tmp_path):
    for name in ("b.tar", "a.tar", "sub/c.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        make_tar(tmp_path / name, [("x.jpg", b"")])
    (tmp_path / "a.txt").write_text("no shard")
    stage = FilePartitioningStage(file_paths=str(tmp_path), files_per_partition=2, file_extensions=[".tar"])
    tasks = stage.process(EmptyTask(task_id="start", dataset_name="test", data=None, _metadata={"source": "test"}))
    assert [len(task.data) for task in tasks] == [2, 1]
    assert [task._metadata["partition_index"] for task in tasks] == [0, 1]
    assert {task._metadata["total_partitions"] for task in tasks} == {2}
    assert tasks[0]._metadata["source_files"] == tasks[0].data
    assert FilePartitioningStage(str(tmp_path), file_extensions=[".tar"], limit=1).process(EmptyTask)[0].num_items == 1
    assert stage.num_workers() == 1


def test_reader_turns_images_as_dali_does(tmp_path):
    image = Image.fromarray(np.zeros((30, 40, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    shard = make_tar(tmp_path / "a.tar", [("x.jpg", encode(image, "JPEG", exif=exif))])
    (batch,) = ImageReaderStage(verbose=False).process(FileGroupTask(task_id="t", dataset_name="d", data=[str(shard)]))
    assert batch.data[0].image_data.shape == (40, 30, 3)


def test_embedding_stage_embeds_pixels_and_returns_the_same_batch(model_dir):
    batch = ImageBatch(data=random_images(5), dataset_name="test", _metadata={"test": "metadata"}, _stage_perf={})
    batch.data[0].metadata = {"caption": "test caption"}
    stage = ImageEmbeddingStage(model_dir=str(model_dir), model_inference_batch_size=2, verbose=True)
    stage.setup_on_node(node_info=NodeInfo(), worker_metadata=WorkerMetadata())
    stage.setup()
    result = stage.process(batch)
    assert result is batch
    assert all(image.embedding.shape == (768,) for image in result.data)
    assert result.data[0].metadata == {"caption": "test caption"}
    assert result._metadata["test"] == "metadata"


def test_filter_keeps_order_metadata_and_the_images_at_the_cut(model_dir):
    images = random_images(6)
    for image, embedding in zip(images, unit_vectors(6), strict=True):
        image.embedding = embedding
    batch = ImageBatch(data=images, dataset_name="test", _metadata={"custom_key": "custom_value"}, task_id="7")
    stage = ImageAestheticFilterStage(str(model_dir), score_threshold=-1000)
    stage.setup()
    scored = stage.process(batch)
    assert [image.image_id for image in scored.data] == [image.image_id for image in images]
    stage.score_threshold = sorted(image.aesthetic_score for image in images)[3]
    result = stage.process(batch)
    assert len(result.data) == 3
    assert all(image.aesthetic_score >= stage.score_threshold for image in result.data)
    assert {image.image_id for image in result.dropped} == {image.image_id for image in images} - {
        image.image_id for image in result.data
    }
    assert (result.dataset_name, result._metadata["custom_key"], result.task_id) == ("test", "custom_value", "7")


def test_writer_writes_images_that_are_pixels_only(tmp_path):
    stage = ImageWriterStage(output_dir=str(tmp_path), images_per_tar=2)
    stage.setup(WorkerMetadata(worker_id="w"))
    batch = ImageBatch(dataset_name="ds", data=random_images(5, size=16))
    out = stage.process(batch)
    assert out.dataset_name == "ds"
    tars = [path for path in out.data if path.endswith(".tar")]
    names = [name for path in tars for name in names_in(path)]
    assert len(tars) == 3
    assert names == [f"img_{number:03d}.jpg" for number in range(5)]
    assert {key: out._metadata[key] for key in ("num_images", "images_per_tar", "output_dir")} == {
        "num_images": 5,
        "images_per_tar": 2,
        "output_dir": str(tmp_path),
    }
    (rows,) = [path for path in out.data if path.endswith(".parquet")]
    assert pq.read_table(rows).column("member_name").to_pylist() == names


@pytest.mark.parametrize("change", ["none", "looked at", "in place", "replaced"])
def test_writer_copies_bytes_unless_the_pixels_changed(tmp_path, photographs, change):
    shard = make_tar(tmp_path / "a.tar", [("cat.png", photographs["chelsea.png"]), ("cat.txt", b"a cat")])
    (batch,) = ImageReaderStage(verbose=False).process(FileGroupTask(dataset_name="d", data=[str(shard)]))
    image = batch.data[0]
    if change == "looked at":
        assert image.image_data.mean() > 0
    elif change == "in place":
        image.image_data = image.image_data.copy()
        image.image_data[:50] = 0
    elif change == "replaced":
        image.image_data = image.image_data[:, ::-1]
    out = ImageWriterStage(str(tmp_path / "out")).process(batch)
    with tarfile.open(out.data[0]) as tar:
        if change in ("none", "looked at"):
            assert tar.getnames() == ["cat.png", "cat.txt"]
            assert tar.extractfile("cat.png").read() == photographs["chelsea.png"]
        else:
            assert tar.getnames() == ["cat.jpg", "cat.txt"]
    assert pq.read_table(out.data[1]).column("offset").to_pylist() == [512]


@dataclass
class Own(ProcessingStage[ImageBatch, ImageBatch]):
    limit: int = 1
    name: str = "own"

    def process(self, task: ImageBatch) -> ImageBatch | None:
        return task if task.num_items <= self.limit else None


class OldStyle(ProcessingStage[ImageBatch, ImageBatch]):
    _name = "old_style"
    _resources = Resources(cpus=1.5)

    def process(self, task: ImageBatch) -> ImageBatch:
        return task


class Logged(Own):
    def process_batch(self, tasks: list[ImageBatch]) -> list[ImageBatch]:
        self.batches = [*getattr(self, "batches", []), len(tasks)]
        return super().process_batch(tasks)


def test_old_style_resources_are_the_stages_resources():
    @dataclass
    class Sized(OldStyle):
        _name: str = "sized"
        cpus: float = 3.0

        def __post_init__(self):
            self._batch_size = 7

    class Asking(ProcessingStage[ImageBatch, ImageBatch]):
        def __init__(self):
            self._resources = Resources(cpus=4.0)

        def process(self, task):
            return task

    assert (Sized().name, Sized().resources.cpus, Sized().batch_size) == ("sized", 1.5, 7)
    assert Asking().resources.cpus == Asking()._resources.cpus == 4


def test_own_process_batch_is_used_and_may_call_the_one_above():
    stage = Logged(limit=1)
    batches = [ImageBatch(data=random_images(count, 8)) for count in (1, 2)]
    assert stage.process_batch(batches) == [batches[0], None]
    assert [list(stage.stream(batch)) for batch in batches] == [batches[:1], []]
    assert stage.batches == [2, 1, 1]


def test_with_takes_what_engines_want():
    stage = Own().with_(resources=Resources(gpus=0.5), num_workers=4, xenna_stage_spec={"a": 1}, runtime_env={"b": 2})
    assert (stage.resources.gpus, stage.num_workers(), stage.xenna_stage_spec()) == (0.5, 4, {"a": 1})
    assert Own().num_workers() is None
    with pytest.raises(ConfigurationError, match="Own has no colour"):
        Own().with_(colour="red")


def test_with_adds_to_an_engines_options_and_none_changes_nothing():
    class Placed(Own):
        def ray_stage_spec(self):
            return {"a": 1}

    stage = Placed().with_("first", Resources(cpus=2)).with_(name=None, resources=None, batch_size=None, num_workers=3)
    assert (stage._name, stage._resources.cpus, stage._batch_size, stage.num_workers()) == ("first", 2, 1, 3)
    assert stage.with_(num_workers=None).num_workers() is None
    assert stage.with_(ray_stage_spec={"b": 2}).ray_stage_spec() == {"a": 1, "b": 2}
    assert stage.ray_stage_spec() == {"a": 1}


def test_a_stage_of_ones_own_can_ask_what_nemo_curator_tells():
    class Picky(Own):
        def inputs(self):
            return ["data"], ["captions"]

    assert ProcessingStage.name == "ProcessingStage"
    assert Own().validate_input(ImageBatch())
    assert not Picky().validate_input(ImageBatch())
    with pytest.raises(ValueError, match="'own'"):
        Picky().process_batch([ImageBatch()])
    config = {"name": "own", "resources": Resources(), "batch_size": 1, "supports_batch_processing": False}
    assert Own().get_config() == config
    assert Picky().validate_input(DocumentBatch(data=pa.table({"captions": ["a"]})))
    assert Logged().supports_batch_processing()


def test_a_stage_says_by_its_annotations_whether_it_makes_several_tasks_of_one():
    class Many(Own):
        def process(self, task: ImageBatch) -> list[ImageBatch] | None:
            return [task]

    assert Many().is_fanout_stage()
    assert FilePartitioningStage("x").ray_stage_spec() == {"is_fanout_stage": True}
    assert not ImageEmbeddingStage().is_fanout_stage()


def test_a_checkpoint_is_refused_where_a_stage_cannot_be_resumed(tmp_path):
    class Once(Own):
        is_resumable = False

    with pytest.raises(ConfigurationError, match="'own' says is_resumable"):
        Pipeline("x", stages=[Once()]).run(checkpoint_path=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_decorated_function_is_a_stage():
    @processing_stage(name="narrow", resources={"cpus": 0.5}, batch_size=4)
    def narrow(batch):
        return [ImageBatch(data=[image]) for image in batch.data] if len(batch.data) > 1 else None

    assert isinstance(narrow, ProcessingStage)
    assert (narrow.name, narrow.resources.cpus, narrow.batch_size) == ("narrow", 0.5, 4)
    assert [len(list(narrow.stream(ImageBatch(data=random_images(count, 8))))) for count in (1, 3)] == [0, 3]
    with pytest.raises(ValueError, match=r"two must take one task, and takes \['a', 'b'\]"):
        processing_stage(name="two")(two)


def two(a, b):
    return a


def test_the_output_folder_is_there_as_soon_as_the_writer_is(tmp_path):
    ImageWriterStage(str(tmp_path / "below" / "out"))
    assert (tmp_path / "below" / "out").is_dir()


class Given(ProcessingStage[EmptyTask, FileGroupTask]):
    def process(self, task: EmptyTask) -> FileGroupTask:
        assert isinstance(task, EmptyTask)
        return FileGroupTask(dataset_name="d", data=["a"], task_id=task.task_id)


@pytest.mark.parametrize(
    "executor", [None, XennaExecutor(), RayDataExecutor({"max_workers_per_stage": 1}), LocalExecutor()]
)
def test_pipeline_runs_with_every_executor(executor):
    tasks = [EmptyTask(task_id="given"), EmptyTask]
    assert [task.task_id for task in Pipeline("x", stages=[Given()]).run(executor, tasks)] == ["given", ""]
    assert len(Pipeline("x", stages=[Given()]).run(executor)) == 1


def test_an_executor_refuses_an_option_that_nemo_curator_does_not_have():
    XennaExecutor({"logging_interval": 60, "ignore_failures": False, "execution_mode": "streaming"})
    with pytest.raises(
        ConfigurationError, match="XennaExecutor has no option 'workers'; NeMo Curator has autoscale_in"
    ):
        XennaExecutor({"workers": 3})


def test_executor_says_once_that_it_is_local_where_no_cluster_is_named(monkeypatch, caplog):
    from tastemaker.compat.nemo_curator import engines

    for name in ("TASTEMAKER_EXECUTOR", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    engines._say_local.cache_clear()
    for _ in range(2):
        Pipeline("x", stages=[Given()]).run(XennaExecutor())
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "no Ray cluster is named" in caplog.text


def test_a_cluster_that_is_named_is_used(monkeypatch):
    monkeypatch.delenv("TASTEMAKER_EXECUTOR")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # nobody is there
    with pytest.raises(ConfigurationError, match=r"no Ray cluster at 127\.0\.0\.1:1"):
        Pipeline("x", stages=[Given(), Given()]).run(XennaExecutor(), [FileGroupTask(data=["a"])])


def test_a_slurm_client_wants_a_cluster(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ConfigurationError, match="RAY_ADDRESS"), SlurmRayClient(num_gpus=8):
        pass
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    with SlurmRayClient() as client:
        client.stop()


def test_a_composite_stage_is_run_as_the_stages_that_it_is_made_of():
    class Both(CompositeStage):
        name = "both"

        def decompose(self):
            return [Given(), Logged(name="second", limit=3)]

    assert Both().get_description() == "Composite stage: both"
    pipeline = Pipeline("x", stages=[Both().with_({"second": {"name": "last"}})])
    assert [stage.name for stage in pipeline.stages] == ["ProcessingStage", "last"]
    with pytest.raises(ConfigurationError, match="'both' has no stage 'third'"):
        Pipeline("x").add_stage(Both().with_({"third": {}}))


def test_a_filter_of_ones_own_gets_images_in_batches():
    class Square(BaseFilterStage):
        def process(self, task):
            parts = list(self.yield_next_batch(task))
            return ImageBatch(data=[part[0] for part in parts])

    square = Square(model_inference_batch_size=2, num_gpus_per_worker=0.5)
    assert (square.name, square.resources.gpus, square.score_threshold) == ("image_filter", 0.5, 0.5)
    kept = Pipeline("x", stages=[square]).run(LocalExecutor(), [ImageBatch(data=random_images(5, 8))])
    assert [image.image_id for image in kept[0].data] == ["img_000", "img_002", "img_004"]


def test_inputs_and_outputs_may_be_dictionaries():
    class Either(Own):
        def inputs(self):
            return {ImageBatch: (["data"], ["captions"]), FileGroupTask: (["data"], [])}

        def outputs(self):
            return {ImageBatch: (["data"], [])}

    assert Either().validate_input(FileGroupTask())
    assert not Either().validate_input(ImageBatch())
    assert not Either().validate_input(EmptyTask())
    assert Either().input_spec_for_task(FileGroupTask()) == (["data"], [])
    with pytest.raises(TypeError, match="takes ImageBatch, FileGroupTask, not EmptyTask"):
        Either().input_spec_for_task(EmptyTask())
    text = Pipeline("x", stages=[Either()]).describe()
    assert "Inputs (ImageBatch): data, captions\n  Inputs (FileGroupTask): data\n  Outputs (ImageBatch): data" in text


def test_what_stages_spent_and_noted_is_summed_by_stage():
    class Noting(ProcessingStage[FileGroupTask, FileGroupTask]):
        name = "noting"

        def process(self, task):
            self._log_metric("letters", len(task.data[0]))
            with self._time_metric("seconds"):
                return task

    tasks = [FileGroupTask(data=["a"]), FileGroupTask(data=["abc"])]
    done = Pipeline("x", stages=[Noting()]).run(LocalExecutor(), tasks)
    figures = TaskPerfUtils.collect_stage_metrics(done)["noting"]
    assert figures["custom.letters"].tolist() == [1, 3]
    assert set(figures) == {"process_time", "num_items_processed", "custom.letters", "custom.seconds"}
    total = sum(task._stage_perf[0] for task in done)
    assert (dict(total.items())["custom.letters"], total.num_items_processed) == (4, 2)
    assert StagePerfStats(**total.to_dict()) == total
    total.reset()
    assert total == StagePerfStats("noting")
    assert TaskPerfUtils.collect_stage_metrics(WorkflowRunResult("x", {"only": done})).keys() == {"noting"}
    sums = TaskPerfUtils.aggregate_task_metrics({"first": done, "second": None}, prefix="run")
    assert (sums["run_first_noting_custom.letters_mean"], sums["run_first_noting_custom.letters_std"]) == (2, 1)
    assert TaskPerfUtils.get_aggregated_stage_stat(done, "not", "num_items_processed") == 2
    assert TaskPerfUtils.get_aggregated_stage_stat(None, "not", "custom.letters") == 0


# What programs hand to the stages by hand comes out whole.


def noise_of(number, shape=(16, 16, 3)):
    return np.random.default_rng(number).integers(0, 255, shape, dtype=np.uint8)


def read_tars(task):
    contents = []
    for path in task.data:
        if path.endswith(".tar"):
            with tarfile.open(path) as tar:
                contents += [(member.name, tar.extractfile(member).read()) for member in tar]
    return contents


class OwnMetadata(ProcessingStage[ImageBatch, ImageBatch]):
    def process(self, task: ImageBatch) -> ImageBatch:
        return ImageBatch(data=task.data, dataset_name="own", _metadata={"mine": 1})


@pytest.mark.parametrize("between", [[], [OwnMetadata()]])
def test_group_of_files_made_by_hand_is_one_partition(tmp_path, between):
    members = [(f"{number}.png", encode(noise_of(number), "PNG")) for number in range(5)]
    shard = make_tar(tmp_path / "a.tar", members)
    stages = [ImageReaderStage(2, False), *between, ImageWriterStage(str(tmp_path / "out"))]
    (task,) = Pipeline("x", stages=stages).run(initial_tasks=[FileGroupTask(dataset_name="d", data=[str(shard)])])
    assert read_tars(task) == members
    assert task._metadata["num_images"] == 5


def test_images_without_a_name_are_numbered(tmp_path):
    batch = ImageBatch(dataset_name="d", data=[ImageObject(image_data=noise_of(number)) for number in range(3)])
    task = ImageWriterStage(str(tmp_path)).process(batch)
    assert [name for name, _ in read_tars(task)] == ["000000.jpg", "000001.jpg", "000002.jpg"]


@pytest.mark.parametrize("pixels", [np.zeros((8, 8, 3)), np.zeros((8, 8, 5), np.uint8)])
def test_pixels_that_are_none_are_a_row(tmp_path, pixels):
    task = ImageWriterStage(str(tmp_path)).process(ImageBatch(data=[ImageObject("a", "a", image_data=pixels)]))
    assert task._metadata["counts"] == {"failed": 1}


@dataclass
class OwnTask(Task[list[int]]):
    def __post_init__(self) -> None:
        super().__post_init__()

    @property
    def num_items(self) -> int:
        return len(self.data)

    def validate(self) -> bool:
        self._metadata["checked"] = True
        return True


def test_own_task_is_validated_when_it_is_made():
    assert OwnTask("d", [1, 2])._metadata == {"checked": True}
