"""Where to cut: a number or a share of the images, and which ones those are."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tastemaker.checks import check_positive
from tastemaker.errors import ConfigurationError


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
    return f"{kind(lowest)}"
