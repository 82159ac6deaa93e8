"""Facets: what pictures are told apart by, to be clicked: folder, date, camera, lens. And orders other than by score.

A facet is a number for each row, four bytes, made when it is first asked for. Filters and counts are then array
operations: nothing that is clicked becomes SQL.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from threading import Lock
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tastemaker.checks import check_choice
from tastemaker.errors import ConfigurationError
from tastemaker.explorer.dimensions import code_rows, source_dimension
from tastemaker.scores.marks import REJECTED, Ratings
from tastemaker.scores.table import ScoreTable

Mask = npt.NDArray[np.bool_]

STARS = ("rejected", "unrated", "1", "2", "3", "4", "5")
"""Values of the facet ``rated``, in the order of the ratings from `REJECTED` to 5."""

FACETS = ("rated", "date", "camera", "lens", "folder")
"""In the order in which they are shown."""

_ORDERS = {
    "oldest": "captured_at NULLS LAST, row_id",
    "newest": "captured_at DESC NULLS LAST, row_id",
    "stars": "",
    "name": "lower(parse_filename(coalesce(image_id, image_path, ''), false, 'both_slash')), image_id, row_id",
}
"""Orders other than by score: name -> SQL for all rows."""

_KEPT_ORDERS = 2
"""Orders of all rows that are remembered: eight bytes a row."""

MAX_DAYS = 62
"""Pictures of more days than these are told apart by month."""

MAX_VALUES = 100
"""Values of a facet that are shown at most; a search finds the others."""


@dataclass(frozen=True)
class Facet:
    """A facet of all rows.

    Attributes:
        name: One of `FACETS`.
        values: What is told apart.
        codes: int32 (n,): the number of each row's value, -1 where it has none.
    """

    name: str
    values: Sequence[str]
    codes: npt.NDArray[np.int32]

    @cached_property
    def shown(self) -> list[str]:
        """What the values are called: of folders without the one that all are in."""
        shortened = source_dimension(()).shorten(self.values) if self.name == "folder" else {}
        return [shortened.get(value, value) for value in self.values]

    @cached_property
    def tells_apart(self) -> bool:
        """Whether the table's rows differ in it."""
        return len(self.values) + bool((self.codes < 0).any()) > 1

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Value -> its number."""
        return {value: number for number, value in enumerate(self.values)}

    def meets(self, wanted: str) -> Mask:
        """Return bool (n,): which rows have one of the values that a filter names."""
        chosen = parse_values(self.name, wanted)
        is_chosen = np.zeros(len(self.values) + 1, np.bool_)
        is_chosen[[self.numbers[value] for value in chosen if value in self.numbers]] = True
        is_chosen[-1] = None in chosen
        met: Mask = is_chosen[self.codes]  # -1 is the last
        return met

    def count(self, wanted: str, passes: Mask, search: str = "") -> tuple[list[FacetValue], int]:
        """Return the commonest values, what is chosen among them, and how many more there are.

        Args:
            wanted: What is chosen.
            passes: bool (n,): the rows that pass everything but this facet.
            search: A part of the names; upper or lower case is the same.
        """
        chosen = parse_values(self.name, wanted)
        counts = np.bincount(self.codes[passes] + 1, minlength=len(self.values) + 1)
        missing, images = int(counts[0]), counts[1:]
        first = [self.numbers[value] for value in chosen if value in self.numbers]
        rest = np.argsort(-images, kind="stable")[: np.count_nonzero(images)]
        found = [*first, *rest[~np.isin(rest, first)].tolist()]
        if search:
            found = [number for number in found if search.lower() in self.shown[number].lower()]
        shown = sorted(found[:MAX_VALUES], key=lambda number: self._rank(number, int(images[number])))
        values = [
            FacetValue(self.values[number], self.shown[number], int(images[number]), self.values[number] in chosen)
            for number in shown
        ]
        if (missing or None in chosen) and not search:
            values.append(FacetValue(None, "not known", missing, None in chosen))
        return values, len(found) - len(shown)

    def _rank(self, number: int, images: int) -> tuple[float, str]:
        """Return by what values are sorted: stars from five down, dates by time, others by their pictures."""
        order = {"rated": -number, "date": 0}.get(self.name, -images)
        return order, self.shown[number]


class FacetValue(NamedTuple):
    """A value of a facet, as the page shows it.

    Attributes:
        value: What a filter names it by; None for the rows that have none.
        name: What it is called.
        images: How many pictures have it, of those that pass everything but this facet.
        is_on: Whether it is chosen.
    """

    value: str | None
    name: str
    images: int
    is_on: bool


class Facets:
    """The facets of a table.

    Args:
        table: The rows.
    """

    def __init__(self, table: ScoreTable) -> None:
        self._table = table
        self._known: dict[str, Facet] = {}
        self._lock = Lock()
        self._ordered = lru_cache(_KEPT_ORDERS)(self._order_rows)

    @cached_property
    def orders(self) -> list[str]:
        """Those that the table can be put in."""
        times = "SELECT 1 FROM rows WHERE captured_at IS NOT NULL LIMIT 1"
        has_times = "captured_at" in self._table.columns and len(self._table.query(times))
        return [order for order in _ORDERS if has_times or "captured_at" not in _ORDERS[order]]

    def facet(self, name: str, ratings: Ratings) -> Facet:
        """Return a facet.

        Args:
            name: One of `FACETS`.
            ratings: What counts as the rating of each row.

        Raises:
            ConfigurationError: There is no such facet.
        """
        check_choice("facet", name, FACETS)
        if name == "rated":
            return Facet(name, STARS, ratings.astype(np.int32) - REJECTED)
        with self._lock:
            if name not in self._known:
                sql = self._sql(name)
                coded = code_rows(self._table, sql) if sql else ([], np.full(len(self._table), -1, np.int32))
                self._known[name] = Facet(name, *coded)
            return self._known[name]

    def arrange(self, rows: npt.NDArray[np.uint32], order: str, ratings: Ratings) -> npt.NDArray[np.int64]:
        """Return the places of rows in another order; int64 (n,). Those of which it is not known come last.

        Args:
            rows: Best first.
            order: One of `orders`. Of equal ones, those that come first in the table do for times, else the best.
            ratings: What counts as the rating of each row.

        Raises:
            ConfigurationError: There is no such order.
        """
        check_choice("order", order, self.orders)
        if order == "stars":
            return np.argsort(-ratings[rows].astype(np.int64), kind="stable")
        places = np.full(len(self._table), -1, np.int64)
        places[rows] = np.arange(len(rows))
        arranged = places[self._ordered(order)]
        return arranged[arranged >= 0]

    def _order_rows(self, order: str) -> npt.NDArray[np.int64]:
        """Return the numbers of all rows in an order."""
        found = self._table.query(f"SELECT row_id FROM rows ORDER BY {_ORDERS[order]}")
        return np.asarray(found["row_id"], np.int64)

    def _sql(self, name: str) -> str:
        """Return an expression whose text is the value of a row; empty where the table has no such column."""
        if name == "folder":
            return source_dimension(self._table.columns).sql
        if name in ("camera", "lens"):
            return name if name in self._table.columns else ""
        if "captured_at" not in self._table.columns:
            return ""
        days = self._table.query("SELECT count(DISTINCT captured_at::DATE) AS days FROM rows")["days"][0].as_py()
        return f"strftime(captured_at, '{'%Y-%m' if days > MAX_DAYS else '%Y-%m-%d'}')"


def parse_values(name: str, text: str) -> Collection[str | None]:
    """Return the values that a filter names: of ``rated`` with commas between, of others as a JSON list.

    Raises:
        ConfigurationError: It is no list of them.

    Example:
        >>> sorted(parse_values("rated", "4,5")), parse_values("camera", '["NIKON D850"]')
        (['4', '5'], ['NIKON D850'])
    """
    if name == "rated":
        values = text.split(",") if text else []
        for value in values:
            check_choice("rated", value, STARS)
        return values
    try:
        found = json.loads(text or "[]")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(value is None or isinstance(value, str) for value in found):
        raise ConfigurationError(f"the values of {name} are a JSON list of texts, not {text[:100]!r}")
    return found
