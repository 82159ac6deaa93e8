"""What programs hand to the stages by hand, as NeMo Curator's scripts and tests do, comes out whole."""

import tarfile
from dataclasses import dataclass

import numpy as np
import pytest
from conftest import encode, make_tar

from tastemaker.compat.nemo_curator.engines import Pipeline
from tastemaker.compat.nemo_curator.stages import (
    ImageReaderStage,
    ImageWriterStage,
    ProcessingStage,
)
from tastemaker.tasks import FileGroupTask, ImageBatch, ImageObject, Task


def noise(number, shape=(16, 16, 3)):
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
    members = [(f"{number}.png", encode(noise(number), "PNG")) for number in range(5)]
    shard = make_tar(tmp_path / "a.tar", members)
    stages = [ImageReaderStage(2, False), *between, ImageWriterStage(str(tmp_path / "out"))]
    (task,) = Pipeline("x", stages=stages).run(initial_tasks=[FileGroupTask(dataset_name="d", data=[str(shard)])])
    assert read_tars(task) == members
    assert task._metadata["num_images"] == 5


def test_images_without_a_name_are_numbered(tmp_path):
    batch = ImageBatch(dataset_name="d", data=[ImageObject(image_data=noise(number)) for number in range(3)])
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
