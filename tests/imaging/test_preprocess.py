"""The model's input against both references, pixel for pixel."""

import io
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from peak import PEAK, reads_peak
from PIL import Image

from tastemaker import CLIP_VIT_L14, Preprocess
from tastemaker.errors import ConfigurationError
from tastemaker.imaging.decode import decode_image
from tastemaker.imaging.model_input import ROUNDINGS
from tastemaker.imaging.preprocess import preprocess

USUAL_SIZES = [(640, 480), (640, 427), (500, 375), (1024, 683), (1080, 1350), (1920, 1080), (224, 224), (225, 224)]


CLIP = CLIP_VIT_L14.preprocess


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def random_sizes(count, smallest, largest, seed):
    sizes = np.random.default_rng(seed).integers(smallest, largest, (count, 2))
    return [(int(width), int(height)) for width, height in sizes]


def openai(pixels):
    """`clip.load`'s transform: torchvision's Resize(224, BICUBIC) and CenterCrop(224) for Pillow images."""
    image = Image.fromarray(pixels)
    width, height = image.size
    long = int(224 * max(width, height) / min(width, height))
    width, height = (224, long) if width <= height else (long, 224)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    top, left = int(round((height - 224) / 2.0)), int(round((width - 224) / 2.0))  # noqa: RUF046 - as it stands there
    return np.asarray(image.crop((left, top, left + 224, top + 224)))


@pytest.mark.parametrize(("width", "height"), USUAL_SIZES + random_sizes(60, 1, 900, seed=1))
def test_openai_preprocessing_is_what_pillow_makes_of_it(width, height):
    if max(width, height) > 32 * min(width, height):
        pytest.skip("so extreme a ratio is resized in parts")
    pixels = noise(height, width)
    assert np.array_equal(preprocess(pixels, CLIP), openai(pixels))


@pytest.fixture(scope="module")
def clip_processor():
    return pytest.importorskip("transformers").CLIPImageProcessorPil()


@pytest.mark.parametrize(("width", "height"), USUAL_SIZES + random_sizes(60, 40, 900, seed=2))
def test_transformers_preprocessing_is_what_its_image_processor_makes_of_it(clip_processor, width, height):
    if max(width, height) > 32 * min(width, height):
        pytest.skip("so extreme a ratio is resized in parts")
    pixels = noise(height, width)
    values = np.asarray(clip_processor(images=[pixels], return_tensors="np")["pixel_values"][0]).transpose(1, 2, 0)
    expected = (values * np.array(clip_processor.image_std) + np.array(clip_processor.image_mean)) * 255
    assert np.abs(expected - np.rint(expected)).max() < 0.01
    assert np.array_equal(preprocess(pixels, CLIP.with_rounding("transformers")), np.rint(expected).astype(np.uint8))


def test_the_two_references_differ_by_one_pixel_for_a_quarter_of_all_sizes():
    differing = 0
    sizes = random_sizes(150, 224, 1000, seed=3)
    for width, height in sizes:
        ramp = np.zeros((height, width, 3), np.uint8)
        ramp[..., 0] = np.linspace(0, 255, width)
        ramp[..., 1] = np.linspace(0, 255, height)[:, None]
        differing += not np.array_equal(preprocess(ramp, CLIP), preprocess(ramp, CLIP.with_rounding("transformers")))
    assert 0.2 < differing / len(sizes) < 0.3


def test_real_photographs_go_through_both_steps_as_through_pillow(full_photographs):
    for data in full_photographs.values():
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        assert np.array_equal(preprocess(decode_image(data).pixels, CLIP), openai(expected))


@pytest.mark.parametrize("size", [(33, 1), (1, 33), (7, 300), (300, 7), (40, 2100), (2100, 40), (31, 2042), (3, 100)])
@pytest.mark.parametrize("seed", range(3))
def test_an_extreme_ratio_is_resized_in_parts_within_2_of_255(size, seed):
    pixels = noise(*size, seed)
    assert np.abs(preprocess(pixels, CLIP).astype(int) - openai(pixels)).max() <= 2


@pytest.mark.parametrize("shape", [(1, 60_000), (60_000, 1), (1, 1), (2, 1), (1, 2), (1, 2_000_000), (2_000_000, 1)])
def test_one_colour_stays_one_colour_whatever_the_shape(shape):
    expected = np.full((224, 224, 3), (10, 200, 90), np.uint8)
    pixels = np.full((*shape, 3), (10, 200, 90), np.uint8)
    for how in (*map(CLIP.with_rounding, ROUNDINGS), replace(CLIP, fit="squash")):
        assert np.array_equal(preprocess(pixels, how), expected)


@reads_peak
def test_extreme_ratios_take_little_memory():
    script = PEAK + (
        "import numpy as np; from tastemaker.imaging.preprocess import preprocess\n"
        "from tastemaker import CLIP_VIT_L14; how = CLIP_VIT_L14.preprocess\n"
        "preprocess(np.zeros((300, 400, 3), np.uint8), how); before = peak()\n"
        "for shape in ((1, 60000), (60000, 1), (3, 200000), (200000, 3)):\n"
        "    preprocess(np.zeros((*shape, 3), np.uint8), how)\n"
        "print(peak() - before)"
    )
    kilobytes = int(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout)
    assert kilobytes < 30_000


def test_pixels_may_be_read_only_and_need_not_be_contiguous():
    pixels = noise(300, 500)
    pixels.flags.writeable = False
    assert np.array_equal(preprocess(pixels[::-1, ::-1], CLIP), openai(np.ascontiguousarray(pixels[::-1, ::-1])))


@pytest.mark.parametrize("size", [224, 336, 384])
@pytest.mark.parametrize("kernel", ["bicubic", "bilinear"])
def test_a_squashed_picture_is_what_pillow_resizes_to_a_square(size, kernel):
    pixels, how = noise(300, 500), replace(CLIP, size=size, fit="squash", interpolation=kernel)
    expected = Image.fromarray(pixels).resize((size, size), Image.Resampling[kernel.upper()])
    assert np.array_equal(preprocess(pixels, how), np.asarray(expected))


@pytest.mark.parametrize("wrong", [{"rounding": "clip"}, {"fit": "pad"}, {"interpolation": "lanczos"}, {"size": 0}])
def test_a_record_that_cannot_be_is_a_configuration_error(wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        Preprocess(**{"size": 224, "mean": CLIP.mean, "std": CLIP.std, **wrong})
