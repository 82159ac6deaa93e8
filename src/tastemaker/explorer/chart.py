"""A distribution as a drawing: its axis, its bars as an SVG path, and the counts of every cut-off in reach."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tastemaker.models.published import scorer_of_column

Values = npt.NDArray[np.floating[Any]]

WIDTH, HEIGHT = 1000, 100
"""Of the box that bars are drawn in. A page stretches it."""

MAX_EDGES = 20_000
"""Cut-offs whose counts are sent to a page at most; where scores lie further apart, the step grows."""

_MOST_BARS = 200
_MOST_TICKS = 13
_MOST_BANDS = 14
_BANDS_IN_RANGE = 18
"""A band is no narrower than this part of the range of a column: 0.5 for scores from 1 to 10."""

_STEPS_IN_RANGE = 900
"""So many steps of a cut-off, about, lie in the range of a column."""

_NICE = (1, 2, 5)


@dataclass(frozen=True, slots=True)
class Chart:
    """How scores are spread.

    Attributes:
        low, high: Ends of the axis, each a multiple of the step. A few scores may lie beyond.
        first, step: The cut-offs that a handle can reach are ``first * step`` and following.
        reaching: How many scores reach each of them, from the first, which all reach, to one that none does.
        bar: Width of a bar, in score.
    """

    low: float
    high: float
    first: int
    step: float
    reaching: list[int]
    bar: float

    @property
    def decimals(self) -> int:
        """Decimals that tell one step from the next."""
        return decimals_of(self.step)

    @property
    def end(self) -> float:
        """The cut-off that no score reaches."""
        return round((self.first + len(self.reaching) - 1) * self.step, 9)

    def percent(self, value: float) -> float:
        """Return how far from the left end a value lies, in percent of the axis, within it."""
        return round(100 * min(max((value - self.low) / (self.high - self.low), 0.0), 1.0), 3)

    def ticks(self) -> list[str]:
        """Return round numbers on the axis, few enough to have room."""
        step = nice_step(self.step, (self.high - self.low) / _MOST_TICKS)
        numbers = range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)
        return [f"{number * step:.{decimals_of(step)}f}" for number in numbers]

    def draw(self, scores: Values) -> str:
        """Return the bars of some scores on this axis as an SVG path. The highest is as high as the box.

        Args:
            scores: float (n,), ascending, without NaN.
        """
        numbers = np.arange(math.floor(self.low / self.bar), math.ceil(self.high / self.bar) + 1)
        edges = np.round(numbers * self.bar, 9)
        places = np.searchsorted(scores, edges.astype(scores.dtype), side="left")
        counts = np.diff(places)
        width = WIDTH * self.bar / (self.high - self.low)
        gap = min(1.0, width / 4)
        most = max(int(counts.max(initial=0)), 1)
        parts = []
        for edge, count in zip(edges[:-1], counts.tolist(), strict=True):
            left = WIDTH * (edge - self.low) / (self.high - self.low)
            start, stop = max(left + gap / 2, 0.0), min(left + width - gap / 2, float(WIDTH))
            if count and stop > start:
                top = HEIGHT - max(HEIGHT * count / most, 0.8)
                parts.append(f"M{start:.5g} {HEIGHT}V{top:.4g}H{stop:.5g}V{HEIGHT}z")
        return "".join(parts)


def make_chart(scores: Values, smallest: float, whole: Chart | None = None) -> Chart:
    """Return how scores are spread.

    Args:
        scores: float (n,), ascending, without NaN.
        smallest: The step of a cut-off, unless scores lie too far apart for it.
        whole: Of all scores, where these are some of them: its axis, bars and cut-offs are taken.
    """
    if whole is not None and whole.reaching:
        edges = np.round((whole.first + np.arange(len(whole.reaching))) * whole.step, decimals_of(whole.step))
        reaching = (len(scores) - np.searchsorted(scores, edges.astype(scores.dtype), side="left")).tolist()
        return replace(whole, reaching=reaching)
    finite = scores[np.isfinite(scores)]
    step = smallest
    while len(finite) and float(finite[-1] - finite[0]) / step > MAX_EDGES:
        step *= 10
    if not len(finite):
        return Chart(0.0, 1.0, 0, step, [], 0.1)
    first, last = math.floor(finite[0] / step), math.floor(finite[-1] / step) + 1
    edges = np.round(np.arange(first, last + 1) * step, decimals_of(step)).astype(scores.dtype)
    reaching = (len(scores) - np.searchsorted(scores, edges, side="left")).tolist()
    low, high = np.percentile(finite, (0.05, 99.95))
    low = float(max(finite[0], low - (high - low) / 5))  # a few far away do not stretch the axis
    high = float(min(finite[-1], high + (high - low) / 5))
    room = max((high - low) * 0.02, 2 * step)
    low, high = (
        round(end(value / step) * step, 9) for end, value in ((math.floor, low - room), (math.ceil, high + room))
    )
    bar = nice_step(step, (high - low) / min(_MOST_BARS, max(14, 2 * len(scores) ** 0.4)))
    return Chart(low, high, first, step, reaching, bar)


def band_width(column: str, low: float, high: float) -> float:
    """Return the width of bands that samples are drawn from: 0.5 for aesthetic scores that do not lie far apart."""
    return nice_step(0.001, max(_range_of(column) / _BANDS_IN_RANGE, (high - low) / _MOST_BANDS))


def step_of(column: str, values: Values) -> float:
    """Return by how much an arrow key moves a cut-off: a power of ten, 0.01 for scores from 1 to 10.

    Args:
        column: Whose record tells the range. Where there is no record, the values do, if they leave 0 to 1.
        values: float (n,), NaN where there is none.
    """
    spread = _range_of(column)
    finite = values[np.isfinite(values)]
    if scorer_of_column(column) is None and len(finite) and not 0 <= finite.min() <= finite.max() <= 1:
        spread = float(finite.max() - finite.min()) or spread
    return float(10.0 ** math.floor(math.log10(spread / _STEPS_IN_RANGE) + 1e-9))


def _range_of(column: str) -> float:
    scorer = scorer_of_column(column)
    return scorer.score_range[1] - scorer.score_range[0] if scorer else 1.0


def nice_step(smallest: float, least: float) -> float:
    """Return 1, 2 or 5 times a power of ten of the smallest step: the first that is not below ``least``.

    Example:
        >>> nice_step(0.01, 0.013), nice_step(0.01, 0.31)
        (0.02, 0.5)
    """
    power = smallest
    while least > 5 * power * (1 + 1e-9):
        power *= 10
    return round(next(n * power for n in _NICE if n * power >= least * (1 - 1e-9)), 9)


def decimals_of(step: float) -> int:
    """Return the decimals of multiples of a step.

    Example:
        >>> decimals_of(0.01), decimals_of(0.5), decimals_of(20)
        (2, 1, 0)
    """
    return max(0, -math.floor(math.log10(step) + 1e-9))
