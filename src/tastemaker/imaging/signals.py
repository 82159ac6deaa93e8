"""Seven cheap measurements of a picture's technical faults, and one number that combines five of them.

They answer "is it blurred, clipped, flat, noisy or blocky?" from the pixels alone, without a model. They are a first
filter and no aesthetic score; the sharpness of the subject tells the frames of a burst apart.
``docs/technical-quality.md`` has measured values, and where they fail.

A picture is looked at in two samples, whose size does not grow with it. *Points* are single pixels on an even grid:
clipping, contrast and colourfulness need no more. *Tiles* are up to 35 squares of 64x64 pixels, denser in the middle
and on JPEG's 8x8 grid: noise and block edges are measured on the picture's own pixels, and sharpness on these too, or
where there are more than 13 million of them on squares of 2x2 or more.
"""

import math
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from tastemaker.errors import ModelError

POINTS = 2**14  # at most four times as many are taken
TILES = 35
TILE_SIDE = 64  # pixels, a multiple of BLOCK_SIDE
BLOCK_SIDE = 8  # pixels, JPEG's
SHARP_PIXELS = 6_000_000  # about so many, larger pictures are reduced to before their sharpness is measured
CENTRE = 0.15  # standard deviation of the weight of a tile's place, in widths and heights of the picture
CROWDING = 1.5  # the power that draws tiles to the middle; with 1 they are spread evenly
SPAN = 16  # pixels, over which contrast is measured that blur leaves
ROUNDING = 1 / 48  # squared grey levels: what rounding to whole ones adds to the variance of smooth pictures
QUIET_SHARE = 0.2  # of the tiles: the noisiest of these shows the noise, whatever texture the others have
LUMA_WEIGHTS = (77, 150, 29)  # over 256: ITU-R BT.601, which JPEG uses
CLIPPED_BLACK, CLIPPED_WHITE = 3, 252  # grey levels: the outermost 1/64 of the range at each end
FLAT_STEP = 0.1  # grey levels added to both sides of the blockiness ratio, so that it is 1 on a flat picture

# A signal's grade, in [0, 1], is a Hill curve (half, power): one half at `half`, and the steeper the larger `power`.
# Set by hand on seven photographs and their damaged versions, with values as below, so that a photograph keeps most of
# each grade and a gross fault loses most of one. docs/technical-quality.md says how well that carries over to others.
SHARPNESS_CURVE = (0.08, 4.0)  # photographs 0.09 to 0.44; blurred by sigma 2: 0.03 to 0.06
EXPOSURE_CURVE = (0.5, 3.0)  # photographs 0 to 0.22; 2.5 times brighter: up to 0.54
CONTRAST_CURVE = (0.2, 4.0)  # photographs 0.60 to 0.97; darkened by 0.15: 0.09 to 0.15
NOISE_CURVE = (12.0, 3.0)  # photographs 0.3 to 4.7, most of it texture; with noise of sigma 30: 15 to 20
BLOCKINESS_CURVE = (1.0, 2.0)  # of blockiness - 1: photographs 0 to 0.22; JPEG quality 5: 2 to 13

Pixels = npt.NDArray[np.uint8]
Levels = npt.NDArray[np.int16]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Signals:
    """The measurements of one picture. All are finite.

    Attributes:
        sharpness: 0 (blurred, or without detail) to 1: how much of the picture's contrast is in its finest detail, in
            the more blurred direction, mostly in the middle, without what is noise.
        subject_sharpness: 0 and up: contrast between neighbouring pixels over brightness, likewise. It compares frames
            of one scene, and says nothing about pictures of different things.
        exposure: share of clipped pixels, 0 to 1; 0 is best.
        contrast: range of luma between its 1st and 99th percentile over the full range, 0 (flat) to 1; 1 is best.
        colourfulness: Hasler & Suesstrunk 2003, in grey levels; 0 is grey, photographs seldom pass 110.
        noise: standard deviation in grey levels, Immerkaer 1996; 0 is best, fine texture counts as noise.
        blockiness: how much larger steps between JPEG blocks are than inside them; 1 is none, more is worse.
        technical_quality: product of the grades of sharpness, exposure, contrast, noise, blockiness; 0 to 1.
    """

    sharpness: float
    subject_sharpness: float
    exposure: float
    contrast: float
    colourfulness: float
    noise: float
    blockiness: float
    technical_quality: float


SIGNALS_VERSION = "2"
"""What the provenance of rows says: another number was measured otherwise."""

SIGNAL_NAMES: tuple[str, ...] = tuple(field.name for field in fields(Signals))


def compute_signals(pixels: Pixels) -> Signals:
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
    points = _take_points(pixels)
    side = max(1, round(math.sqrt(pixels.shape[0] * pixels.shape[1] / SHARP_PIXELS)))
    tiles, weights = _cut_tiles(pixels, TILE_SIDE * side)
    own = tiles[:, :TILE_SIDE, :TILE_SIDE]
    noises = _measure_noise(own)
    reduced = _average(tiles, side)
    sharpness, subject_sharpness = _measure_sharpness(
        reduced, weights, noises if side == 1 else _measure_noise(reduced)
    )
    exposure = _measure_clipping(points)
    contrast = _measure_contrast(_weigh_luma(points))
    noise = float(noises.mean())
    blockiness = _measure_blockiness(own)
    return Signals(
        sharpness=sharpness,
        subject_sharpness=subject_sharpness,
        exposure=exposure,
        contrast=contrast,
        colourfulness=_measure_colourfulness(points),
        noise=noise,
        blockiness=blockiness,
        technical_quality=_grade_high(sharpness, *SHARPNESS_CURVE)
        * _grade_high(contrast, *CONTRAST_CURVE)
        * _grade_low(exposure, *EXPOSURE_CURVE)
        * _grade_low(noise, *NOISE_CURVE)
        * _grade_low(max(blockiness - 1.0, 0.0), *BLOCKINESS_CURVE),
    )


def _take_points(pixels: Pixels) -> Pixels:
    """Return planes (3, n) of the pixels on an even grid: 2**14 to 2**16 of them, or all."""
    step = max(1, math.isqrt(pixels.shape[0] * pixels.shape[1] // POINTS))
    down, across = min(step, pixels.shape[0]), min(step, pixels.shape[1])
    return np.ascontiguousarray(np.moveaxis(pixels[::down, ::across], 2, 0)).reshape(3, -1)


def _cut_tiles(pixels: Pixels, side: int) -> tuple[Levels, Floats]:
    """Return the luma of up to TILES tiles, int16 (n, h, w) with h, w <= side, and the weight of each, summing to 1."""
    height, width = pixels.shape[:2]
    down = min(-(-height // side), max(1, round(math.sqrt(TILES * height / width))))
    across = min(-(-width // side), max(1, TILES // down))
    tops, lefts = _spread(height, side, down), _spread(width, side, across)
    cut = [pixels[top : top + side, left : left + side] for top in tops for left in lefts]
    luma = _weigh_luma(np.ascontiguousarray(np.moveaxis(np.stack(cut), 3, 0)))
    rows, columns = (_weigh_places(starts, side, whole) for starts, whole in ((tops, height), (lefts, width)))
    weights = np.outer(rows, columns).ravel()
    return luma, weights / weights.sum()


def _spread(whole: int, side: int, count: int) -> npt.NDArray[np.int64]:
    """Return where tiles begin along one side of the picture, on the 8x8 grid."""
    even = np.linspace(-1, 1, count) if count > 1 else np.zeros(1)
    places = 0.5 + 0.5 * np.sign(even) * np.abs(even) ** CROWDING
    return (places * max(whole - side, 0)).astype(np.int64) // BLOCK_SIDE * BLOCK_SIDE


def _weigh_places(starts: npt.NDArray[np.int64], side: int, whole: int) -> Floats:
    """Return the weight of tiles by how far their middles are from the picture's."""
    middles = (starts + min(side, whole) / 2) / whole - 0.5
    return np.asarray(np.exp(-((middles / CENTRE) ** 2) / 2))


def _weigh_luma(planes: Pixels) -> Levels:
    """Return the luma, int16 from 0 to 255, of planes (3, ...)."""
    red, green, blue = (np.uint16(weight) * plane for weight, plane in zip(LUMA_WEIGHTS, planes, strict=True))
    return np.asarray((red + green + blue + np.uint16(128)) >> 8).view(np.int16)


def _average(tiles: Levels, side: int) -> Levels:
    """Return tiles averaged over squares of whole pixels; a remainder at the edge is left out."""
    if side == 1 or min(tiles.shape[1:]) < side:
        return tiles
    height, width = tiles.shape[1] // side * side, tiles.shape[2] // side * side
    rows = np.add.reduce([tiles[:, number:height:side] for number in range(side)], dtype=np.int32)
    columns = np.add.reduce([rows[:, :, number:width:side] for number in range(side)])
    return np.asarray((columns + side * side // 2) // (side * side), np.int16)


def _measure_sharpness(tiles: Levels, weights: Floats, noises: Floats) -> tuple[float, float]:
    """Return the sharpness of the picture and of its subject; two zeros where a side has 16 pixels or fewer.

    *Detail* is the mean square of second differences between neighbours, *contrast* that of differences over 16 pixels,
    *edges* that of first differences, mostly of the tiles in the middle. Detail and edges are of the direction that has
    less of them, which is what shake leaves. It is known what noise adds to mean squares, and
    is taken away.

    Blur lowers detail long before it lowers contrast, so the share of detail compares pictures of anything. Among
    pictures of one thing, edges over brightness tell smaller blurs apart, and no change of the framing moves them far.

    Source: the energies of the gradient and of the Laplacian in Pertuz, Puig, Garcia, "Analysis of focus measure
    operators for shape-from-focus", Pattern Recognition 46(5), 2013; along one axis at a time.
    """
    if min(tiles.shape[1:]) <= SPAN:
        return 0.0, 0.0
    quiet = np.interp(QUIET_SHARE * (len(noises) - 1), np.arange(len(noises)), np.sort(noises))
    noise = float(quiet) ** 2 + ROUNDING
    details, edges, contrasts = [], [], []
    for axis in (1, 2):
        steps = _step(tiles, axis)
        edges.append(float(weights @ _mean_squares(steps)))
        details.append(float(_mean_squares(_step(steps, axis)).mean()))
        contrasts.append(float(_mean_squares(_step(tiles, axis, SPAN)).mean()))
    detail = max(min(details) - 6 * noise, 0.0)
    contrast = max(sum(contrasts) / 2 - 2 * noise, 1.0)  # a grey level: less is a flat picture
    edge = max(min(edges) - 2 * noise, 0.0)
    return math.sqrt(detail / (detail + contrast)), math.sqrt(edge) / max(_total(tiles) / tiles.size, 1.0)


def _step(tiles: Levels, axis: int, over: int = 1) -> Levels:
    """Return the differences of pixels so far apart, one below the other (axis 1) or side by side (2)."""
    return tiles[:, over:] - tiles[:, :-over] if axis == 1 else tiles[:, :, over:] - tiles[:, :, :-over]


def _total(values: Levels) -> int:
    """Return the sum of values in tiles, which are few enough for 32 bits."""
    return int(values.sum(dtype=np.int32))


def _mean_squares(values: Levels) -> Floats:
    """Return the mean square of each tile."""
    flat = values.astype(np.float32).reshape(len(values), -1)
    return np.asarray(np.einsum("ij,ij->i", flat, flat) / flat.shape[1], np.float64)


def _measure_clipping(points: Pixels) -> float:
    """Return the share of pixels, 0 to 1, that are black in all three channels or white in all three."""
    red, green, blue = points
    darkest, brightest = np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)
    return float(((brightest <= CLIPPED_BLACK) | (darkest >= CLIPPED_WHITE)).mean())


def _measure_contrast(luma: Levels) -> float:
    """Return the range of luma between its 1st and 99th percentile, divided by 255: 0 (flat) to 1.

    Source: the measure of scikit-image's ``exposure.is_low_contrast``, which calls a picture flat below 0.05.
    """
    shares = np.cumsum(np.bincount(luma, minlength=256)) / luma.size
    darkest, brightest = np.searchsorted(shares, (0.01, 0.99))
    return float(brightest - darkest) / 255


def _measure_colourfulness(points: Pixels) -> float:
    """Return the colourfulness in grey levels: 0 (grey), 15 slightly, 45 averagely, 109 extremely colourful.

    Source: Hasler and Suesstrunk, "Measuring colourfulness in natural images", SPIE 5007, 2003, its metric M(3).
    """
    red, green, blue = points.astype(np.float32)
    red_green = red - green
    yellow_blue = (red + green) / 2 - blue
    spread = math.hypot(red_green.std(), yellow_blue.std())
    return spread + 0.3 * math.hypot(red_green.mean(), yellow_blue.mean())


def _measure_noise(tiles: Levels) -> Floats:
    """Return the standard deviation of noise of each tile in grey levels of luma; 0 where a side is under 3 pixels.

    The filter is the difference of two Laplacians, blind to planes and ramps. Texture that is fine enough passes it
    and counts as noise. Noise that is independent between the channels has 0.67 of its standard deviation in luma.

    Source: Immerkaer, "Fast noise variance estimation", Computer Vision and Image Understanding 64(2), 1996.
    """
    if min(tiles.shape[1:]) < 3:
        return np.zeros(len(tiles))
    response = _step(_step(_step(_step(tiles, 1), 1), 2), 2)  # kernel [1 -2 1; -2 4 -2; 1 -2 1]
    sums = np.abs(response).reshape(len(tiles), -1).sum(axis=1, dtype=np.int32)
    return np.asarray(math.sqrt(math.pi / 2) / 6 * (sums / response[0].size), np.float64)


def _measure_blockiness(tiles: Levels) -> float:
    """Return the mean step across 8x8 block edges over the mean step elsewhere, 0 or more; 1 is none.

    About 1.2 at JPEG quality 80 and 2.5 at 10; 1 where the picture has no block edge.

    Source: the features B and A of Wang, Sheikh, Bovik, "No-reference perceptual quality assessment of JPEG compressed
    images", ICIP 2002. Their quotient stands in for the paper's fitted score, which also falls with noise and breaks
    down where no step changes its sign.
    """
    edge_sum = inner_sum = edges = inners = 0
    for axis in (1, 2):
        steps = np.abs(_step(tiles, axis))
        at_edges = steps[:, BLOCK_SIDE - 1 :: BLOCK_SIDE] if axis == 1 else steps[:, :, BLOCK_SIDE - 1 :: BLOCK_SIDE]
        edge_sum += _total(at_edges)
        inner_sum += _total(steps)
        edges += at_edges.size
        inners += steps.size - at_edges.size
    if not edges:
        return 1.0
    return (edge_sum / edges + FLAT_STEP) / ((inner_sum - edge_sum) / inners + FLAT_STEP)


def _grade_high(value: float, half: float, power: float) -> float:
    """Return a grade in [0, 1] that rises with ``value`` >= 0 and is one half at ``half``."""
    return float(value**power / (value**power + half**power))


def _grade_low(value: float, half: float, power: float) -> float:
    """Return a grade in [0, 1] that falls with ``value`` >= 0 and is one half at ``half``."""
    return 1.0 - _grade_high(value, half, power)
