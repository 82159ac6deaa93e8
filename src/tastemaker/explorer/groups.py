"""Groups of pictures that look alike, for the page: found once, when first asked for, and the same for every filter."""

from __future__ import annotations

from functools import cached_property
from threading import Lock

import numpy as np
import numpy.typing as npt

from tastemaker.errors import ConfigurationError
from tastemaker.explorer.dimensions import code_rows
from tastemaker.scores.stacks import Frames, best_of_group, find_stacks, read_frames
from tastemaker.scores.table import EMBEDDING, ScoreTable

GROUP = "group"
"""A column of this name is taken as it is; without one, groups are found by the embeddings."""

Numbers = npt.NDArray[np.int64]


class Groups:
    """The groups of a table's pictures.

    Args:
        table: The rows.

    Attributes:
        are_given: Whether the table has them as a column.
        are_offered: Whether there are any, or embeddings to find them by.
    """

    def __init__(self, table: ScoreTable) -> None:
        self._table = table
        self._numbers: Numbers | None = None
        self._lock = Lock()
        self.are_given = GROUP in table.columns
        self.are_offered = self.are_given or EMBEDDING in table.columns

    @property
    def are_known(self) -> bool:
        """Whether they can be had at once."""
        return self.are_given or self._numbers is not None

    def numbers(self) -> Numbers:
        """Return the group of each row, int64 (n,): equal numbers are one group. The first time it may take minutes.

        Raises:
            ConfigurationError: There are neither groups nor embeddings.
            MissingExtraError: There are so many embeddings that it needs the extra ``groups``.
        """
        with self._lock:
            if self._numbers is None:
                self._numbers = self._given() if self.are_given else self._found()
            return self._numbers

    def best(self, rows: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
        """Return the places of the best frame of each group among rows that are sorted, best first; ascending."""
        groups = self.numbers()[rows]
        frames = {name: values[rows] for name, values in self._frames.items()}
        return np.flatnonzero(best_of_group(groups, -np.arange(len(rows)), frames).marks)

    def best_frame(self, members: Numbers, scores: npt.NDArray[np.floating]) -> tuple[int, str]:
        """Return the best row of a group and why it is; -1 and nothing where none has a score.

        Args:
            members: Its rows, as `members` returns them.
            scores: What they are ranked by, (n,).
        """
        frames = {name: values[members] for name, values in self._frames.items()}
        best = best_of_group(np.zeros(len(members), np.int64), scores, frames)
        place = np.flatnonzero(best.marks)
        return (int(members[place[0]]), best.reasons[place[0]] or "") if len(place) else (-1, "")

    def sizes(self, rows: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
        """Return how many pictures the table has of each of these rows' groups."""
        return self._sizes[self.numbers()[rows]]

    @cached_property
    def _sizes(self) -> Numbers:
        return np.bincount(self.numbers())

    def members(self, row: int) -> Numbers:
        """Return the rows of a row's group, with itself, ascending."""
        numbers = self.numbers()
        return np.flatnonzero(numbers == numbers[row])

    def _given(self) -> Numbers:
        names, codes = code_rows(self._table, f'"{GROUP}"')
        alone = np.arange(len(names), len(names) + len(codes), dtype=np.int64)  # who has none is alone
        return np.where(codes < 0, alone, codes)

    def _found(self) -> Numbers:
        numbers, rows = np.arange(len(self._table), dtype=np.int64), self._table.present_rows()
        if EMBEDDING not in self._table.columns or not self._table.embeddings.size:
            raise ConfigurationError("the table has neither groups nor embeddings to find them by")
        numbers[rows] = find_stacks(self._table, rows)
        return numbers

    @cached_property
    def _frames(self) -> Frames:
        return read_frames(self._table, np.arange(len(self._table)))
