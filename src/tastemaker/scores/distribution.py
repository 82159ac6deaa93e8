"""What the scores of a table come to: counts, percentiles, and where a cut lies."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tastemaker.errors import ConfigurationError
from tastemaker.scores.cutoff import Top

PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)
"""Percentiles of the scores that a summary states."""

Values = npt.NDArray[np.floating[Any]]
"""A column of numbers: float32 or float64 (n,), NaN where there is none."""


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
    """Return where a cut lies; `tastemaker.scores.cutoff.mark_best` marks the same images.

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
