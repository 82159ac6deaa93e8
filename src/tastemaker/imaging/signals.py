"""Six cheap measurements of a picture's technical faults, and one number that combines five of them.

They answer "is it blurred, clipped, flat, noisy or blocky?" from the pixels alone, without a model. They are a first
filter and no aesthetic score. ``docs/technical-quality.md`` has measured values, and where they fail.

A picture is looked at twice. The *overview* is the whole picture, averaged over squares of whole pixels until it has
at most 2**21 of them; sharpness, exposure, contrast and colourfulness are measured on it. The *detail* is the centre
of the picture at its native resolution, at most 1024x1024 and cut on JPEG's 8x8 grid, because averaging would destroy
noise and block edges.
"""

import math
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from tastemaker.errors import ModelError

OVERVIEW_PIXELS = 2**21  # about 1672x1254; smaller pictures are measured as they are
DETAIL_SIDE = 1024  # pixels, a multiple of BLOCK_SIDE
BLOCK_SIDE = 8  # pixels, JPEG's
REBLUR_LENGTH = 9  # pixels, the averaging filter of Crete et al. 2007
LUMA_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R BT.601, which JPEG uses
CLIPPED_BLACK, CLIPPED_WHITE = 3, 252  # grey levels: the outermost 1/64 of the range at each end
FLAT_STEP = 0.1  # grey levels added to both sides of the blockiness ratio, so that it is 1 on a flat picture

# A signal's grade, in [0, 1], is a Hill curve (half, power): one half at `half`, and the steeper the larger `power`.
# Set by hand on seven photographs and their damaged versions, with values as below, so that a photograph keeps most of
# each grade and a gross fault loses most of one. docs/technical-quality.md says how well that carries over to others.
SHARPNESS_CURVE = (0.4, 6.0)  # photographs 0.60 to 0.82; blurred by sigma 3: 0.18 to 0.29
EXPOSURE_CURVE = (0.5, 3.0)  # photographs 0 to 0.22; 2.5 times brighter: up to 0.54
CONTRAST_CURVE = (0.2, 4.0)  # photographs 0.60 to 0.97; darkened by 0.15: 0.09 to 0.15
NOISE_CURVE = (12.0, 3.0)  # photographs 0.3 to 4.7, most of it texture; with noise of sigma 30: 15 to 20
BLOCKINESS_CURVE = (1.0, 2.0)  # of blockiness - 1: photographs 0 to 0.22; JPEG quality 5: 2 to 13

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Signals:
    """The measurements of one picture. All are finite.

    Attributes:
        sharpness: 0 (blurred, or without detail) to 1; 1 minus the blur metric of Crete et al. 2007.
        exposure: share of clipped pixels, 0 to 1; 0 is best.
        contrast: range of luma between its 1st and 99th percentile over the full range, 0 (flat) to 1; 1 is best.
        colourfulness: Hasler & Suesstrunk 2003, in grey levels; 0 is grey, photographs seldom pass 110.
        noise: standard deviation in grey levels, Immerkaer 1996; 0 is best, fine texture counts as noise.
        blockiness: how much larger steps between JPEG blocks are than inside them; 1 is none, more is worse.
        technical_quality: product of the grades of all of these but colourfulness, 0 to 1; 1 is best.
    """

    sharpness: float
    exposure: float
    contrast: float
    colourfulness: float
    noise: float
    blockiness: float
    technical_quality: float


SIGNAL_NAMES: tuple[str, ...] = tuple(field.name for field in fields(Signals))


def compute_signals(pixels: npt.NDArray[np.uint8]) -> Signals:
    """Return the technical signals of one picture.

    Args:
        pixels: uint8, (H, W, 3), RGB, of any size from 1x1, as decoded: a picture that was resized or cropped after
            JPEG compression hides its blocks.

    Returns:
        The signals; the same pixels always give the same numbers.

    Raises:
        ModelError: ``pixels`` has another dtype or shape, or no pixel.

    Example:
        >>> import numpy as np
        >>> half_white = np.zeros((64, 64, 3), np.uint8)
        >>> half_white[:, 30:] = 200
        >>> signals = compute_signals(half_white)
        >>> round(signals.exposure, 2), round(signals.contrast, 2), signals.noise
        (0.47, 0.78, 0.0)
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise ModelError(
            f"signals need RGB pixels, uint8 of shape (H, W, 3) with H, W >= 1; got {pixels.dtype} of {pixels.shape}"
        )
    overview = _average_to_overview(pixels)  # (3, h, w)
    luma = _weigh_luma(overview)  # (h, w)
    detail_luma = _weigh_luma(_cut_detail(pixels))  # (<= 1024, <= 1024)
    sharpness = _measure_sharpness(luma)
    exposure = _measure_clipping(overview)
    contrast = _measure_contrast(luma)
    noise = _measure_noise(detail_luma)
    blockiness = _measure_blockiness(detail_luma)
    return Signals(
        sharpness=sharpness,
        exposure=exposure,
        contrast=contrast,
        colourfulness=_measure_colourfulness(overview),
        noise=noise,
        blockiness=blockiness,
        technical_quality=_grade_high(sharpness, *SHARPNESS_CURVE)
        * _grade_high(contrast, *CONTRAST_CURVE)
        * _grade_low(exposure, *EXPOSURE_CURVE)
        * _grade_low(noise, *NOISE_CURVE)
        * _grade_low(max(blockiness - 1.0, 0.0), *BLOCKINESS_CURVE),
    )


def _average_to_overview(pixels: npt.NDArray[np.uint8]) -> Floats:
    """Return float32 planes (3, h, w) of at most OVERVIEW_PIXELS, each value the mean of a square of pixels."""
    height, width = pixels.shape[:2]
    side = min(math.ceil(math.sqrt(height * width / OVERVIEW_PIXELS)), height, width)
    if side == 1:
        return _to_planes(pixels)
    height, width = height // side, width // side  # a remainder at the right and bottom edge is left out
    whole = pixels[: height * side, : width * side]
    rows = whole.reshape(height, side, -1).sum(axis=1, dtype=np.float32)  # (h, w * side * 3)
    sums = np.einsum("hwsc->chw", rows.reshape(height, width, side, 3))
    return np.asarray(sums / np.float32(side * side))


def _cut_detail(pixels: npt.NDArray[np.uint8]) -> Floats:
    """Return float32 planes (3, h, w) of the picture's centre at native resolution, cut on the 8x8 grid."""
    top, left = (max(side - DETAIL_SIDE, 0) // 2 // BLOCK_SIDE * BLOCK_SIDE for side in pixels.shape[:2])
    return _to_planes(pixels[top : top + DETAIL_SIDE, left : left + DETAIL_SIDE])


def _to_planes(pixels: npt.NDArray[np.uint8]) -> Floats:
    """Return (H, W, 3) pixels as float32 planes (3, H, W)."""
    return np.moveaxis(pixels, 2, 0).astype(np.float32, order="C")


def _weigh_luma(planes: Floats) -> Floats:
    """Return the luma (h, w), 0 to 255, of planes (3, h, w)."""
    red, green, blue = LUMA_WEIGHTS  # a matrix product is hardly faster, and may give equal pixels unequal lumas
    return np.asarray(red * planes[0] + green * planes[1] + blue * planes[2])


def _measure_sharpness(luma: Floats) -> float:
    """Return 1 minus the blur metric, of the more blurred direction; 0 where a side is shorter than 10 pixels.

    The metric averages the picture over 9 pixels and asks how much of the difference between neighbours that takes
    away: nearly all in a sharp picture, little in one that was blurred before. It compares a picture with itself, so
    that it does not depend on brightness and contrast.

    Source: Crete, Dolmiere, Ladret, Nicolas, "The blur effect: perception and estimation with a new no-reference
    perceptual blur metric", SPIE 6492, 2007.
    """
    return min(_sharpness_along_rows(luma), _sharpness_along_rows(luma.T))


def _sharpness_along_rows(luma: Floats) -> float:
    """Return the share of the steps within rows that averaging takes away, 0 to 1."""
    length, half = REBLUR_LENGTH, REBLUR_LENGTH // 2
    if luma.shape[1] <= length:
        return 0.0
    steps = np.abs(np.diff(luma, axis=1))[:, half:-half]  # (h, w - 9)
    # Two neighbouring averages share all pixels but the first and the last, so their difference needs no averaging.
    reblurred_steps = np.abs(luma[:, length:] - luma[:, :-length]) / length  # (h, w - 9)
    total = float(steps.sum())
    return float(np.maximum(steps - reblurred_steps, 0).sum()) / total if total else 0.0


def _measure_clipping(planes: Floats) -> float:
    """Return the share of pixels, 0 to 1, that are black in all three channels or white in all three."""
    clipped = (planes.max(axis=0) <= CLIPPED_BLACK) | (planes.min(axis=0) >= CLIPPED_WHITE)
    return float(clipped.mean())


def _measure_contrast(luma: Floats) -> float:
    """Return the range of luma between its 1st and 99th percentile, divided by 255: 0 (flat) to 1.

    Source: the measure of scikit-image's ``exposure.is_low_contrast``, which calls a picture flat below 0.05.
    """
    shares = np.cumsum(np.bincount(np.rint(luma).astype(np.uint8).ravel(), minlength=256)) / luma.size
    darkest, brightest = np.searchsorted(shares, (0.01, 0.99))
    return float(brightest - darkest) / 255


def _measure_colourfulness(planes: Floats) -> float:
    """Return the colourfulness in grey levels: 0 (grey), 15 slightly, 45 averagely, 109 extremely colourful.

    Source: Hasler and Suesstrunk, "Measuring colourfulness in natural images", SPIE 5007, 2003, its metric M(3).
    """
    red, green, blue = planes
    red_green = red - green
    yellow_blue = (red + green) / 2 - blue
    spread = math.hypot(red_green.std(), yellow_blue.std())
    return spread + 0.3 * math.hypot(red_green.mean(), yellow_blue.mean())


def _measure_noise(luma: Floats) -> float:
    """Return the standard deviation of noise in grey levels of luma; 0 where a side is shorter than 3 pixels.

    The filter is the difference of two Laplacians, blind to planes and ramps. Texture that is fine enough passes it
    and counts as noise. Noise that is independent between the channels has 0.67 of its standard deviation in luma.

    Source: Immerkaer, "Fast noise variance estimation", Computer Vision and Image Understanding 64(2), 1996.
    """
    if min(luma.shape) < 3:
        return 0.0
    response = np.diff(np.diff(luma, n=2, axis=0), n=2, axis=1)  # kernel [1 -2 1; -2 4 -2; 1 -2 1]
    return math.sqrt(math.pi / 2) / 6 * float(np.abs(response).mean())


def _measure_blockiness(luma: Floats) -> float:
    """Return the mean step across 8x8 block edges over the mean step elsewhere, 0 or more; 1 is none.

    About 1.2 at JPEG quality 80 and 2.5 at 10; 1 where the picture has no block edge.

    Source: the features B and A of Wang, Sheikh, Bovik, "No-reference perceptual quality assessment of JPEG compressed
    images", ICIP 2002. Their quotient stands in for the paper's fitted score, which also falls with noise and breaks
    down where no step changes its sign.
    """
    edge_sum = inner_sum = 0.0
    edges = inners = 0
    for lines in (luma, luma.T):
        steps = np.abs(np.diff(lines, axis=1))
        at_edges = steps[:, BLOCK_SIDE - 1 :: BLOCK_SIDE]
        edge_sum += float(at_edges.sum(dtype=np.float64))
        inner_sum += float(steps.sum(dtype=np.float64) - at_edges.sum(dtype=np.float64))
        edges += at_edges.size
        inners += steps.size - at_edges.size
    if not edges:
        return 1.0
    return (edge_sum / edges + FLAT_STEP) / (inner_sum / inners + FLAT_STEP)


def _grade_high(value: float, half: float, power: float) -> float:
    """Return a grade in [0, 1] that rises with ``value`` >= 0 and is one half at ``half``."""
    return float(value**power / (value**power + half**power))


def _grade_low(value: float, half: float, power: float) -> float:
    """Return a grade in [0, 1] that falls with ``value`` >= 0 and is one half at ``half``."""
    return 1.0 - _grade_high(value, half, power)
