"""torch's resize against Pillow's."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import encode, make_tar
from test_preprocess import CLIP, noise, random_sizes

from tastemaker import FileGroupTask, ImageBatch, ImageEmbeddingStage, ImageObject, ImageReaderStage
from tastemaker.errors import ConfigurationError, MissingExtraError
from tastemaker.imaging.decode import decode_image
from tastemaker.imaging.model_input import ROUNDINGS
from tastemaker.imaging.preprocess import preprocess, preprocess_with_torch

pytest.importorskip("torch")


SQUASHED = replace(CLIP, size=200, fit="squash", interpolation="bilinear")

LARGEST = 2  # of 255, on any pixel
MEAN = {"bicubic": 0.005, "bilinear": 0.05}  # over all images of a kind

SIZES = [(640, 480), (640, 427), (500, 375), (1024, 683), (1081, 1351), (1921, 1079), (3000, 2000), (224, 224)]
SIZES += [(225, 224), (223, 224), (2240, 224), (225, 450), (300, 600), (257, 300), (451, 449)]
LEFT_TO_PILLOW = [(1, 1), (2, 1), (1, 60_000), (60_000, 1), (223, 900), (246, 745), (300, 601)]


def differences(images, how=CLIP):
    """Return the absolute differences, one row an image."""
    pairs = [(preprocess(image, how), preprocess_with_torch(image, how)) for image in images]
    return np.array([np.abs(a.astype(int) - b.astype(int)).ravel() for a, b in pairs])


@pytest.mark.parametrize("how", [*map(CLIP.with_rounding, ROUNDINGS), SQUASHED], ids=lambda how: how.kind)
def test_noise_of_any_size_is_within_2_of_255_of_pillow(how):
    sizes = SIZES + random_sizes(30, 224, 900, seed=1)
    found = differences([noise(height, width, seed) for seed, (width, height) in enumerate(sizes)], how)
    assert found.max() <= LARGEST
    assert found.mean() < MEAN[how.interpolation]


@pytest.mark.parametrize("how", [*map(CLIP.with_rounding, ROUNDINGS), SQUASHED], ids=lambda how: how.kind)
def test_photographs_are_within_2_of_255_of_pillow(full_photographs, how):
    sources = [decode_image(data).pixels for data in full_photographs.values()]
    images = [np.ascontiguousarray(source[start:, start:]) for source in sources for start in (0, 7, 32)]
    images += [np.ascontiguousarray(source[40:161, 30:181]) for source in sources]  # smaller than the model's input
    found = differences(images, how)
    assert found.max() <= LARGEST
    assert found.mean() < MEAN[how.interpolation]


@pytest.mark.parametrize(("width", "height"), LEFT_TO_PILLOW + random_sizes(9, 1, 224, seed=2))
def test_small_tall_and_extreme_images_are_left_to_pillow(width, height):
    assert np.array_equal(preprocess_with_torch(noise(height, width), CLIP), preprocess(noise(height, width), CLIP))


# In the stages


@pytest.fixture
def shard(tmp_path):
    return make_tar(tmp_path / "a.tar", [("a.png", encode(noise(300, 400), "PNG"))])


def read(shard, **options):
    [batch] = ImageReaderStage(**options).process(FileGroupTask(data=[str(shard)]))
    return batch


def test_the_reader_says_what_resized(shard):
    for resize, function in (("pillow", preprocess), ("torch", preprocess_with_torch)):
        batch = read(shard, resize=resize)
        made_by = batch.partition.provenance
        assert made_by["resize"] == resize
        assert ("torch" in made_by) == (resize == "torch")
        assert np.array_equal(batch.data[0].model_input, function(noise(300, 400), CLIP))


def test_a_machine_without_a_gpu_resizes_with_pillow_and_imports_no_torch(shard):
    code = (
        "import sys; from tastemaker import FileGroupTask, ImageReaderStage\n"
        "from tastemaker.models.device import choose_device\n"
        f"[batch] = ImageReaderStage().process(FileGroupTask(data=[{str(shard)!r}]))\n"
        "resize = batch.partition.provenance['resize']\n"
        "print(choose_device() != 'cpu' or (resize == 'pillow' and 'torch' not in sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "True"


def test_pixels_that_the_embedder_resizes_are_recorded_too(model_dir, shard):
    stage = ImageEmbeddingStage(model_dir=str(model_dir), device="cpu")
    own = ImageObject(image_data=noise(50, 70))
    assert stage.process(ImageBatch(data=[own])).partition.provenance["resize"] == "pillow"
    batch = read(shard, resize="torch")
    assert stage.process(batch).partition.provenance["resize"] == "torch"
    batch = read(shard, resize="torch")
    batch.data.append(ImageObject(image_data=noise(50, 70)))
    assert stage.process(batch).partition.provenance["resize"] == "torch, pillow"


def test_an_unknown_resize_is_refused_with_the_known_ones():
    with pytest.raises(ConfigurationError, match="resize='opencv' is not one of auto, pillow, torch"):
        ImageReaderStage(resize="opencv")


def test_torch_that_is_not_there_is_named_before_anything_runs(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"tastemaker\[torch\]"):
        ImageReaderStage(resize="torch").check()
