import io
import math
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image, ImageFilter

from tastemaker.errors import ModelError
from tastemaker.imaging.signals import SIGNAL_NAMES, compute_signals

PICTURES = Path(skimage.__file__).parent / "data"
DOCS = Path(__file__).parents[2] / "docs" / "technical-quality.md"
PHOTOGRAPHS = (
    "astronaut.png",
    "coffee.png",
    "chelsea.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "hubble_deep_field.jpg",
    "retina.jpg",
)
DAMAGES = ("blur 2", "dark 0.15", "noise 30", "jpeg 5")


def damage(pixels, kind):
    name, _, amount = kind.partition(" ")
    if name == "blur":
        return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(float(amount))))
    if name == "dark":
        return np.rint(pixels * float(amount)).astype(np.uint8)
    if name == "noise":
        noise = np.random.default_rng(0).normal(0, float(amount), pixels.shape)
        return np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)
    if name == "jpeg":
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=int(amount))
        return np.asarray(Image.open(file))
    return pixels


@cache
def measure(picture, kind="undamaged"):
    return compute_signals(damage(np.asarray(Image.open(PICTURES / picture).convert("RGB")), kind))


def make_gradient(height, width):
    return np.add.outer(np.linspace(80, 120, height), np.linspace(0, 50, width))  # (height, width)


def to_rgb(grey):
    return np.repeat(np.clip(np.rint(grey), 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def is_finite(signals):
    return all(math.isfinite(value) for value in asdict(signals).values())


def test_colourfulness_of_two_colours_is_the_formula_by_hand():
    pixels = np.empty((20, 20, 3), np.uint8)
    pixels[:10] = (200, 100, 50)  # red - green = 100, (red + green) / 2 - blue = 100
    pixels[10:] = (100, 100, 100)  # 0 and 0: both have mean 50 and standard deviation 50
    assert compute_signals(pixels).colourfulness == pytest.approx(1.3 * math.hypot(50, 50), rel=1e-6)


def test_exposure_is_the_share_of_clipped_pixels():
    pixels = np.full((100, 100, 3), 128, np.uint8)
    pixels[:20] = 0
    pixels[95:] = 255
    pixels[50] = (255, 0, 0)  # a strong colour is not clipped
    assert compute_signals(pixels).exposure == 0.25


def test_contrast_is_the_range_without_the_outermost_percent():
    pixels = np.full((100, 100, 3), 50, np.uint8)
    pixels[50:] = 152
    pixels[0, :99] = 0
    pixels[99, :99] = 255
    assert compute_signals(pixels).contrast == pytest.approx(102 / 255)


def test_sharpness_is_the_share_of_fine_detail_written_out():
    grey = np.zeros((64, 64))
    grey[:, ::2] += 30  # lines along columns ...
    grey[::8] += 40  # ... and fewer across them, which are the direction with less detail
    grey[:, 32:] += 100
    noise = 1 / 48  # of rounding: the lines across are as one, which the noise filter does not see
    detail = np.mean(np.diff(grey, n=2, axis=0) ** 2) - 6 * noise
    contrast = np.mean([np.mean((grey[16:] - grey[:-16]) ** 2), np.mean((grey[:, 16:] - grey[:, :-16]) ** 2)])
    signals = compute_signals(to_rgb(grey))
    assert signals.noise == 0
    assert signals.sharpness == pytest.approx(math.sqrt(detail / (detail + contrast - 2 * noise)), rel=1e-5)
    edges = np.mean(np.diff(grey, axis=0) ** 2) - 2 * noise
    assert signals.subject_sharpness == pytest.approx(math.sqrt(edges) / grey.mean(), rel=1e-5)


def test_the_sharpness_of_the_subject_is_that_of_the_middle():
    picture = Image.open(PICTURES / "astronaut.png").convert("RGB")
    blurred = picture.filter(ImageFilter.GaussianBlur(2))
    middle = Image.new("L", picture.size)
    middle.paste(255, (150, 150, 362, 362))
    sharp, around, inside, everywhere = (
        compute_signals(np.asarray(made)).subject_sharpness
        for made in (
            picture,
            Image.composite(picture, blurred, middle),
            Image.composite(blurred, picture, middle),
            blurred,
        )
    )
    assert sharp > around > inside > everywhere


@pytest.mark.parametrize("sigma", [2, 5, 10, 20])
def test_noise_is_within_15_percent_of_a_known_sigma(sigma):
    grey = make_gradient(300, 400) + np.random.default_rng(2).normal(0, sigma, (300, 400))
    assert compute_signals(to_rgb(grey)).noise == pytest.approx(sigma, rel=0.15)


def test_noise_and_blocks_of_a_large_picture_are_measured_on_its_own_pixels():
    height, width = 3001, 4003
    noisy = make_gradient(height, width) + np.random.default_rng(3).normal(0, 8, (height, width))
    assert compute_signals(to_rgb(noisy)).noise == pytest.approx(8, rel=0.15)
    coffee = Image.open(PICTURES / "coffee.png").convert("RGB").resize((width, height))
    assert compute_signals(damage(np.asarray(coffee), "jpeg 5")).blockiness > 2


def test_blockiness_is_the_ratio_of_steps():
    steps = np.full(63, 1.0)
    steps[7::8] = 5.0  # between columns 7 and 8, 15 and 16, ...
    ramp = np.concatenate([[0], np.cumsum(steps)])
    pixels = to_rgb(np.tile(ramp, (9, 1)))  # 9 rows: an edge between rows 7 and 8, without a step
    edge_mean = (9 * 7 * 5.0) / (9 * 7 + 64)
    inner_mean = (9 * 56 * 1.0) / (9 * 56 + 64 * 7)
    assert compute_signals(pixels).blockiness == pytest.approx((edge_mean + 0.1) / (inner_mean + 0.1), rel=1e-4)


def test_every_photograph_ranks_above_every_damaged_version_of_any():
    worst_photograph = min(measure(picture).technical_quality for picture in PHOTOGRAPHS)
    best_damaged = max(measure(picture, kind).technical_quality for picture in PHOTOGRAPHS for kind in DAMAGES)
    assert worst_photograph > best_damaged


@pytest.mark.parametrize("picture", PHOTOGRAPHS)
@pytest.mark.parametrize(
    ("signal", "sign", "kinds"),
    [
        ("sharpness", -1, ["undamaged", "blur 1", "blur 1.5", "blur 2", "blur 3", "blur 5"]),
        ("subject_sharpness", -1, ["undamaged", "blur 1", "blur 1.5", "blur 2", "blur 3", "blur 5"]),
        ("noise", 1, ["undamaged", "noise 5", "noise 10", "noise 20", "noise 30", "noise 50"]),
        ("blockiness", 1, ["undamaged", "jpeg 60", "jpeg 40", "jpeg 20", "jpeg 10", "jpeg 5"]),
        ("contrast", -1, ["undamaged", "dark 0.7", "dark 0.5", "dark 0.3", "dark 0.15"]),
        ("technical_quality", -1, ["undamaged", "blur 1", "blur 1.5", "blur 2", "blur 3", "blur 5"]),
        ("technical_quality", -1, ["noise 5", "noise 10", "noise 20", "noise 30", "noise 50"]),
        ("technical_quality", -1, ["undamaged", "noise 30", "noise 50"]),
        ("technical_quality", -1, ["undamaged", "jpeg 60", "jpeg 40", "jpeg 20", "jpeg 10", "jpeg 5"]),
        ("technical_quality", -1, ["undamaged", "dark 0.3", "dark 0.15", "dark 0.08"]),
    ],
)
def test_more_damage_moves_the_signal_further(picture, signal, sign, kinds):
    values = np.array([getattr(measure(picture, kind), signal) for kind in kinds])
    assert (sign * np.diff(values) > 0).all(), values


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 2), (1, 5000), (5000, 1), (2, 2), (3, 3), (8, 9), (10, 10), (3, 3_000_000), (4000, 6000)]
)
def test_any_size_and_any_flat_colour_gives_finite_signals(shape):
    pixels = np.zeros((*shape, 3), np.uint8)
    for colour in (0, 255, (255, 0, 0)):
        pixels[:] = colour
        signals = compute_signals(pixels)
        assert is_finite(signals)
        assert (signals.noise, signals.contrast, signals.sharpness, signals.blockiness) == (0, 0, 0, 1)
        assert signals.technical_quality == 0


@pytest.mark.filterwarnings("error")
def test_any_small_size_of_random_pixels_gives_signals_within_their_ranges():
    random = np.random.default_rng(4)
    for height, width in random.integers(1, 40, (200, 2)):
        signals = compute_signals(random.integers(0, 256, (height, width, 3), np.uint8))
        assert is_finite(signals)
        for value in (signals.sharpness, signals.exposure, signals.contrast, signals.technical_quality):
            assert 0 <= value <= 1
        assert min(signals.colourfulness, signals.noise, signals.blockiness) >= 0


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8), np.uint8),
        np.zeros((2, 8, 8, 3), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_pixels_of_another_kind_are_refused_naming_dtype_and_shape(pixels):
    with pytest.raises(ModelError) as caught:
        compute_signals(pixels)
    assert str(pixels.dtype) in str(caught.value)
    assert str(pixels.shape) in str(caught.value)


def test_measured_values_in_the_docs_are_those_of_this_code():
    columns = {"signals": SIGNAL_NAMES, "quality": ("undamaged", *DAMAGES)}
    checked = 0
    for line in DOCS.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        if not (PICTURES / cells[0]).is_file():
            continue
        if len(cells) - 1 == len(columns["signals"]):
            expected = [getattr(measure(cells[0]), name) for name in columns["signals"]]
        else:
            expected = [measure(cells[0], kind).technical_quality for kind in columns["quality"]]
        # Pillow's JPEG encoder and its blur may change a little between versions.
        assert [float(cell) for cell in cells[1:]] == pytest.approx(expected, abs=0.02, rel=0.01), cells[0]
        checked += 1
    assert checked == 21
