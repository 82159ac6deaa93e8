"""Where to cut: a number or a share of the images, which ones those are, and how scores are spread."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tastemaker.checks import check_positive
from tastemaker.errors import ConfigurationError

PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)
"""Percentiles of the scores that a summary states."""

Values = npt.NDArray[np.floating[Any]]
"""A column of numbers: float32 or float64 (n,), NaN where there is none."""


@dataclass(frozen=True, slots=True)
class Top:
    """The best images: a number of them, or a share.

    Attributes:
        count: How many; None where a share is meant.
        share: Which part of the scored images, in (0, 1]; None where a number is meant.

    Raises:
        ConfigurationError: A share that is not in (0, 1], or a number below 1.
    """

    count: int | None = None
    share: float | None = None

    def __post_init__(self) -> None:
        if self.share is not None and not 0 < self.share <= 1:
            raise ConfigurationError(f"{self.share:g} is no share of the images: the best fifth is 0.2")
        check_positive("count", self.count)

    def __str__(self) -> str:
        return f"{self.count}" if self.share is None else f"{self.share * 100:g}%"

    def of(self, scored: int) -> int:
        """Return how many images that is, of so many that have a score; a share is rounded, and 1 at least."""
        if self.count is not None:
            return min(self.count, scored)
        return min(scored, max(1, round(scored * (self.share or 0))))


def parse_top(text: str | Top) -> Top:
    """Return what ``20%`` or ``1000`` means; what is read already comes back as it is.

    Raises:
        ConfigurationError: It means nothing.

    Example:
        >>> parse_top("20%"), parse_top("1,000")
        (Top(count=None, share=0.2), Top(count=1000, share=None))
    """
    if isinstance(text, Top):
        return text
    if not isinstance(text, str):
        raise ConfigurationError(f"{text!r} is no text: write a share as '20%', a number as '1000'")
    percent = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", text)
    if percent and 0 < float(percent[1]) <= 100:
        return Top(share=float(percent[1]) / 100)
    number = text.strip()
    if re.fullmatch(r"\d{1,3}(,\d{3})+", number):  # 5,5 is no 55: in many languages it is five and a half
        number = number.replace(",", "")
    number = number.replace("_", "")
    if number.isdecimal() and int(number) > 0:
        return Top(count=int(number))
    raise ConfigurationError(f"{text!r} is neither a share such as 20% nor a number such as 1000")


def mark_best(scores: npt.NDArray[np.float32], top: Top) -> npt.NDArray[np.bool_]:
    """Return which of the scores are the best; a NaN never is, and of equal scores the first ones are.

    Example:
        >>> mark_best(np.array([5, 7, np.nan, 5], np.float32), Top(count=2))
        array([ True,  True, False, False])
    """
    order = np.argsort(-scores, kind="stable")  # NaN last
    wanted = top.of(int(np.count_nonzero(~np.isnan(scores))))
    marks = np.zeros(len(scores), np.bool_)
    marks[order[:wanted]] = True
    return marks


def name_cutoff(
    lowest: float, next_lower: float | None, decimals: int, kind: Callable[[float], np.floating] = np.float32
) -> str:
    """Return a cut-off with as few digits as keep the same images: all that reach it, and no other.

    Where the next lower score is equal, no cut-off parts the two, and the score is returned.

    Args:
        lowest: The lowest score that is kept.
        next_lower: The highest that is not; None where all are kept.
        decimals: So many at least.
        kind: The type in which scores are compared.

    Example:
        >>> name_cutoff(5.4437, 5.4429, 2), name_cutoff(5.4437, 5.21, 2), name_cutoff(5.4437, None, 2)
        ('5.443', '5.44', '5.44')
    """
    for digits in range(decimals, 18) if np.isfinite(lowest) else ():
        named = float(f"{lowest:.{digits}f}")
        named = float(f"{named - 10.0**-digits:.{digits}f}") if kind(named) > kind(lowest) else named
        if next_lower is None or kind(named) > kind(next_lower):
            return f"{named:.{digits}f}"
    return str(kind(lowest))  # as few digits as tell it from other numbers of its type


@dataclass(frozen=True)
class Cutoff:
    """Where a cut lies, and what passes it.

    Attributes:
        score: The lowest value that is kept; None where nothing is.
        kept: Images that pass. Where several have the score at the cut, and only some of them may pass, those that come
            first in the table do.
        share: Their part of the scored images, 0 where there are none.
        scored: Images that have a value: neither null nor NaN. Pictures that are gone are no images.
    """

    score: float | None
    kept: int
    share: float
    scored: int


@dataclass(frozen=True)
class TableSummary:
    """What a table comes to.

    Attributes:
        column: The column that the figures below are of.
        images: All rows but those of pictures that are gone.
        kept, dropped, failed: Images of that status.
        deleted: Rows of pictures that are gone; no other figure has them.
        reasons: Kind of reason -> images, the commonest first; images without a reason are left out.
        scored: Rows with a value in the column: neither null nor NaN.
        minimum, maximum, mean: Of those, the mean of the finite ones; None where there are none.
        percentiles: Percentile -> value, with linear interpolation; empty where there are none.
    """

    column: str
    images: int
    kept: int
    dropped: int
    failed: int
    deleted: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    scored: int = 0
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    percentiles: dict[int, float] = field(default_factory=dict)


def find_cutoff(values: Values, cut: Top | float) -> Cutoff:
    """Return where a cut lies; `mark_best` marks the same images.

    Args:
        values: float (n,), NaN where there is none.
        cut: Keep the best of the values, or all from this value on, compared in the values' own precision.

    Raises:
        ConfigurationError: The value is NaN.

    Example:
        >>> find_cutoff(np.array([5, 7, np.nan, 5], np.float32), Top(count=2))
        Cutoff(score=5.0, kept=2, share=0.6666666666666666, scored=3)
    """
    present = values[~np.isnan(values)]
    if isinstance(cut, Top):
        kept = cut.of(len(present))
        score = float(np.partition(present, len(present) - kept)[len(present) - kept]) if kept else None
    else:
        if math.isnan(cut):
            raise ConfigurationError(f"a cut-off of {cut} is no number, and no score reaches it")
        passing = present[present >= values.dtype.type(cut)]
        kept, score = len(passing), float(passing.min()) if len(passing) else None
    return Cutoff(score, kept, kept / len(present) if len(present) else 0.0, len(present))


def describe_values(values: Values) -> dict[str, object]:
    """Return the fields of a `TableSummary` that tell of a column.

    Args:
        values: float (n,), NaN where there is none.
    """
    present = values[~np.isnan(values)]
    if not len(present):
        return {}
    return {
        "scored": len(present),
        "minimum": float(present.min()),
        "maximum": float(present.max()),
        "mean": float(present[np.isfinite(present)].mean(dtype=np.float64)) if np.isfinite(present).any() else None,
        "percentiles": find_percentiles(present),
    }


def find_percentiles(values: Values) -> dict[int, float]:
    """Return percentile -> value for each of `PERCENTILES`, with linear interpolation; empty where there are no values.

    Args:
        values: float (n,), without NaN. Infinities count as numbers that are too large.
    """
    if not len(values):
        return {}
    wide = values.astype(np.float64)
    with np.errstate(invalid="ignore"):
        found = np.percentile(wide, PERCENTILES)
    found = np.where(np.isnan(found), np.percentile(wide, PERCENTILES, method="lower"), found)  # between infinities
    return {percentile: float(value) for percentile, value in zip(PERCENTILES, found, strict=True)}
