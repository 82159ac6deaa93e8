"""What people give to functions in Python is taken, or refused with the type that is wanted."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tastemaker import (
    CLIP_VIT_L14,
    ConfigurationError,
    ImageBatch,
    ImageEmbeddingStage,
    ImageObject,
    ModelError,
    decode_image,
    preprocess,
    run_scoring,
)

HOW = CLIP_VIT_L14.preprocess


@pytest.fixture
def path(tmp_path, photographs):
    (tmp_path / "rocket.jpg").write_bytes(photographs["rocket.jpg"])
    return tmp_path / "rocket.jpg"


@pytest.mark.parametrize(
    "make", [str, Path, Path.read_bytes, lambda p: memoryview(p.read_bytes()), lambda p: p.open("rb")]
)
def test_decode_takes_paths_bytes_and_open_files(path, make):
    with Image.open(path) as expected:
        assert np.array_equal(decode_image(make(path)).pixels, np.asarray(expected))


@pytest.mark.parametrize("wrong", [3, io.StringIO("x"), np.zeros((2, 2, 3), np.uint8)])
def test_decode_refuses_other_things_by_their_type(wrong):
    with pytest.raises(TypeError, match="takes bytes, a path or a file"):
        decode_image(wrong)


def test_preprocess_takes_an_image_of_pillows(path):
    with Image.open(path) as image:
        expected = preprocess(np.asarray(image), HOW)
        assert np.array_equal(preprocess(image, HOW), expected)
        assert preprocess(image.convert("LA"), HOW).shape == (224, 224, 3)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((30, 40), np.uint8),
        np.zeros((30, 40, 4), np.uint8),
        np.zeros((3, 30, 40), np.uint8),
        np.zeros((1, 30, 40, 3), np.uint8),
        np.zeros((0, 40, 3), np.uint8),
        np.zeros((30, 40, 3)),
        [[1, 2, 3]],
    ],
    ids=["grey", "alpha", "channels first", "batch", "empty", "floats", "list"],
)
def test_preprocess_refuses_other_pixels_and_says_what_is_wanted(wrong):
    with pytest.raises(ModelError, match=r"must be uint8 \(H, W, 3\), RGB"):
        preprocess(wrong, HOW)


def test_a_stage_takes_pixels_and_images_of_pillows_and_fails_others_one_by_one(path, model_dir):
    with Image.open(path) as image:
        pixels = np.asarray(image)
        given = {"array": pixels, "pillow": image.copy(), "floats": pixels / 255.0, "grey": pixels[..., 0]}
    batch = ImageBatch("set", [ImageObject(image_id=name, image_data=data) for name, data in given.items()])
    done = ImageEmbeddingStage(model_dir=str(model_dir)).process(batch)
    first, second = done.data
    assert (first.image_id, second.image_id) == ("array", "pillow")
    assert np.array_equal(first.embedding, second.embedding)
    assert [(image.image_id, image.reason_kind) for image in done.dropped] == [
        ("floats", "unsupported"),
        ("grey", "unsupported"),
    ]


class Table:
    """As pandas has them: to go through it gives names of columns."""

    columns = ("path",)

    def __iter__(self):
        return iter(self.columns)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Table(), "give its column with the paths"),
        ([Image.new("RGB", (2, 2))], "a path or a URL, as text or Path"),
        (b"photos", "paths or URLs"),
    ],
)
def test_inputs_of_a_run_that_are_no_paths_are_refused(tmp_path, wrong, message):
    with pytest.raises(ConfigurationError, match=message):
        run_scoring(wrong, tmp_path / "out")
