"""A distribution as a drawing: its axis, its bars as SVG paths, and counts for a cut-off that is moved."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tastemaker.models.published import scorer_of_column
from tastemaker.scores.distribution import Values

_BANDS_IN_RANGE = 18
"""A band is no narrower than this part of the range of a column: 0.5 for scores from 1 to 10."""

_MOST_BANDS = 14
_STEPS_IN_BAND = 50
_BAR_STEPS = (1, 2, 5, 10, 25, 50)
_MOST_BARS = 120
_FAR_OUT = 1.5
"""Beyond so many times the distance between the 1st and 99th percentile, values are counted and not drawn."""


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis of scores.

    Attributes:
        start: Its left end.
        bands: Number of bands: what the page has a row of samples for.
        band: Width of a band: 0.5 for aesthetic scores, unless they lie very far apart.
    """

    start: float
    bands: int
    band: float

    @property
    def end(self) -> float:
        """Its right end."""
        return self.edge(self.bands)

    @property
    def step(self) -> float:
        """What a cut-off moves by."""
        return self.band / _STEPS_IN_BAND

    @property
    def decimals(self) -> int:
        """Decimals that a score is shown with."""
        return max(0, -math.floor(math.log10(self.step) + 1e-9))

    @property
    def edge_decimals(self) -> int:
        """Decimals that the edge of a band is shown with."""
        return max(0, -math.floor(math.log10(self.band) + 1e-9))

    def edge(self, number: int) -> float:
        """Return the lower edge of a band."""
        return round(self.start + number * self.band, 9)

    def percent(self, value: float) -> float:
        """Return how far from the left end a value lies, in percent of the axis, within it."""
        share = (value - self.start) / (self.end - self.start)
        return round(100 * min(max(share, 0.0), 1.0), 3)

    def band_of(self, column: str) -> str:
        """Return SQL for the number of the band of a column; what lies outside is in the first or last one."""
        number = f"floor(({column}::DOUBLE - {self.start!r}) / {self.band!r})"
        return f"least(greatest({number}, 0), {self.bands - 1})::INTEGER"


def choose_scale(values: Values, column: str) -> Scale:
    """Return an axis on which the values can be read.

    Args:
        values: float (n,), without NaN, sorted.
        column: What they are; aesthetic scores have bands of 0.5 or more.
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        lowest, highest = _range_of(column) or (0.0, 1.0)
        band = _choose_band(highest - lowest, column)
        return Scale(lowest, round((highest - lowest) / band), band)
    low, high = float(finite[0]), float(finite[-1])
    first, last = (float(np.percentile(finite, percentile)) for percentile in (1, 99))
    if last > first:
        low = max(low, first - _FAR_OUT * (last - first))
        high = min(high, last + _FAR_OUT * (last - first))
    band = _choose_band(high - low, column)
    start, end = math.floor(low / band), math.floor(high / band) + 1
    if end - start == 1:
        start, end = start - 1, end + 1
    return Scale(round(start * band, 9), end - start, band)


def _choose_band(spread: float, column: str) -> float:
    if (known := _range_of(column)) is not None:
        narrowest = _round_up((known[1] - known[0]) / _BANDS_IN_RANGE)
    else:
        narrowest = 10.0 ** (math.floor(math.log10(spread)) - 1) if spread > 0 else 0.1
    factor: int = next(
        f for f in (1, 2, 5, 10, 20, 50, *(10**n for n in range(2, 40))) if spread / narrowest / f < _MOST_BANDS
    )
    return round(narrowest * factor, 9)


def _range_of(column: str) -> tuple[float, float] | None:
    scorer = scorer_of_column(column)
    if scorer is not None:
        return scorer.score_range
    return (0.0, 1.0) if column == "technical_quality" else None


def _round_up(width: float) -> float:
    """Return the next of 1, 2, 5, 10 and so on, or of their tenths, hundredths and so on."""
    power = 10.0 ** math.floor(math.log10(width))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= width)


def count_steps(values: Values, scale: Scale) -> list[int]:
    """Return how many values reach each step of an axis, from its left to its right end: one more than steps.

    Args:
        values: float (n,), without NaN, sorted.
        scale: The axis.
    """
    steps = scale.bands * _STEPS_IN_BAND + 1
    edges = np.array([round(scale.start + number * scale.step, 9) for number in range(steps)], values.dtype)
    counts: list[int] = (len(values) - np.searchsorted(values, edges, side="left")).tolist()
    return counts


def make_bars(reaching: list[int], scored: int) -> list[int]:
    """Return the heights of bars, in images: fewer bars where there are fewer images.

    Args:
        reaching: As `count_steps` returns it.
        scored: Images with a score.
    """
    wanted = min(max(2.5 * scored ** (1 / 3), 8), _MOST_BARS)
    steps = len(reaching) - 1
    width = min(_BAR_STEPS, key=lambda size: abs(math.log(steps / size / wanted)))
    edges = reaching[::width]
    return [left - right for left, right in pairwise(edges)]


def draw_bars(bars: list[int]) -> str:
    """Return bars as an SVG path in a box that is ``len(bars)`` wide and 100 high. None of an image is invisible."""
    tallest, gap = max(bars, default=0) or 1, 0.14 if len(bars) < 70 else 0.0
    parts = []
    for number, count in enumerate(bars):
        if count:
            top = 100 - max(100 * count / tallest, 0.6)
            parts.append(f"M{number + gap / 2:g} 100V{top:.5g}h{1 - gap:g}V100z")
    return "".join(parts)
