"""A view of a score table: the scored pictures that pass a filter, best first, and where it is cut."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tastemaker.errors import ConfigurationError
from tastemaker.explorer.chart import Chart, decimals_of, make_chart
from tastemaker.explorer.facets import Mask
from tastemaker.scores.cutoff import Top, name_cutoff, parse_top


@dataclass(frozen=True)
class Cut:
    """Where a view is cut.

    Attributes:
        score: The cut-off: what was asked for, or the lowest score that is kept. None where nothing is.
        place: So many of the view lie before the cut; those of them that are not rejected are kept.
        kept: Their number.
        name: The cut-off with as many digits as it takes to keep the same pictures; empty where there is none.
        tied: Pictures behind the cut, and not rejected, whose score equals the lowest that is kept.
        top: The share or number that was asked for; None for a score.
        places: Of what is kept, where that is not all before the cut: pictures that are unlike each other. Else None.
    """

    score: float | None
    place: int
    kept: int
    name: str
    tied: int
    top: Top | None = None
    places: list[int] | None = None

    @property
    def text(self) -> str:
        """What asks for this share or number again, as `ScoreIndex.cut` takes it; empty for a score."""
        if self.top is None or self.top.count is None:
            return str(self.top or "")
        return f"{'top' if self.places is None else 'varied'} {self.top}"


@dataclass
class View:
    """The scored pictures that pass a filter, the best first; of equal scores, those first in the table.

    Attributes:
        rows: Numbers of their rows, uint32 (n,).
        scores: float (n,), descending.
        smallest_step: By how much an arrow key moves the cut-off.
        is_rejected: bool (n,): what a person rejected is shown, but never kept and in no count.
        version: Of the ratings that this is from.
        whole: The chart of all pictures, where the filter lets only some pass.
        unlike: Version of the ratings and number -> places of so many that are unlike each other, as they were chosen.
    """

    rows: npt.NDArray[np.uint32]
    scores: npt.NDArray[Any]
    smallest_step: float
    is_rejected: npt.NDArray[np.bool_]
    version: int
    whole: Chart | None = None
    unlike: dict[tuple[int, int], list[int]] = field(default_factory=dict)

    @cached_property
    def ascending(self) -> npt.NDArray[Any]:
        """The scores from the lowest to the highest."""
        return self.scores[::-1].copy()

    @cached_property
    def chart(self) -> Chart:
        """How the scores are spread, on the axis of the whole."""
        return make_chart(self.ascending, self.smallest_step, self.whole)

    @property
    def images(self) -> int:
        """How many pictures count."""
        return len(self.rows) - int(np.count_nonzero(self.is_rejected))

    def counted(self) -> View:
        """Return the view without what is rejected."""
        counts = ~self.is_rejected
        return replace(self, rows=self.rows[counts], scores=self.scores[counts], is_rejected=self.is_rejected[counts])

    def count_from(self, score: float) -> int:
        """Return how many pictures have this score or more, compared in the precision of the stored scores."""
        return len(self.rows) - int(np.searchsorted(self.ascending, self.scores.dtype.type(score), side="left"))

    def cut(self, score: float | None, top: Top | None) -> Cut:
        """Return where a cut lies for a score, or for a share or number of the pictures that count.

        Raises:
            ConfigurationError: It is neither.
        """
        decimals = decimals_of(self.smallest_step)
        if top is None:
            if score is None or math.isnan(score):
                raise ConfigurationError("a cut-off is a score, a share such as 20%, or a number of images")
            place = self.count_from(score)
            name = max(f"{score:.{decimals}f}", f"{score:.9g}", key=len) if math.isfinite(score) else f"{score}"
            return Cut(score, place, self._kept(place), name, 0)
        kept = top.of(self.images)
        if not kept:
            return Cut(None, 0, 0, "", 0, top)
        place = int(np.flatnonzero(~self.is_rejected)[kept - 1]) + 1 if self.is_rejected.any() else kept
        lowest = float(self.scores[place - 1])
        lower = float(self.scores[place]) if place < len(self.rows) else None
        tied = self._kept(self.count_from(lowest)) - kept
        name = name_cutoff(lowest, lower, decimals, self.scores.dtype.type)
        return Cut(lowest, place, kept, name, tied, top)

    def keeps(self, cut: Cut) -> Mask:
        """Return bool (n,): which pictures a cut keeps."""
        keeps = ~self.is_rejected
        if cut.places is None:
            keeps[cut.place :] = False
        else:
            keeps &= np.isin(np.arange(len(keeps)), cut.places)
        return keeps

    def read_cut(self, text: str) -> tuple[float | None, Top | None]:
        """Return what a person typed as a cut-off: a score, or a share such as 20%, or a number such as 100k.

        Raises:
            ConfigurationError: It is neither.
        """
        plain = re.sub(r"[\s_]|,(?=\d{3}(?!\d))", "", text.lower())  # 5,5 is no 55: in many languages it is 5.5
        minus = "-?" if self.chart.first < 0 else ""
        match = re.fullmatch(rf"(top)?({minus}\d*\.?\d+|\d+\.)(%|k|m|images?|pictures?)?", plain)
        if not match:
            raise ConfigurationError("type a score, a share (20%) or a number (100k)")
        word, number, unit = match.groups()
        if unit == "%":
            return None, parse_top(f"{number}%")
        if not word and not unit and ("." in number or float(number) <= self.chart.end):
            return float(number), None
        return None, parse_top(f"{round(float(number) * {'k': 1e3, 'm': 1e6}.get(unit, 1))}")

    def _kept(self, place: int) -> int:
        return place - int(np.count_nonzero(self.is_rejected[:place]))
