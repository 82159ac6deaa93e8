"""The steps of a selection: each takes rows and leaves some of them. A recipe is a list of steps in a file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tastemaker.errors import ConfigurationError
from tastemaker.scores.cutoff import Top, mark_best, parse_top
from tastemaker.scores.groups import MIN_SIMILARITY
from tastemaker.scores.locations import IntArray
from tastemaker.scores.stacks import best_of_group, check_embeddings, find_stacks, read_frames
from tastemaker.scores.table import ScoreTable
from tastemaker.scores.variety import VARIETY, choose_varied
from tastemaker.storage.place import Place

GROUP = "group"
"""The column of what is selected that has the group of each row: the ``row_id`` of the group's first row."""

BEST_REASON = "best_reason"
"""The column of what is selected that says why a row is the best of several: ``sharpest of 5``; else null."""

PERCENTILE = "slice_percentile"
"""The column of what is selected that says which percentage of its slice's values are not above the row's."""

_MAX_BYTES, _MAX_STEPS = 1_000_000, 100

_CUT = re.compile(r"(?P<by>.+?)\s+top\s+(?P<top>[\d.,_]+\s*%?)(?:\s+per\s+(?P<per>.+))?", re.IGNORECASE | re.DOTALL)
_VARIED = re.compile(r"(?:(?P<by>.+?)\s+)?varied\s+(?P<count>[\d,_]+)", re.IGNORECASE | re.DOTALL)
_BEST = re.compile(r"best\s+of\s+group(?:\s+by\s+(?P<by>.+))?", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Left:
    """The rows that a step leaves.

    Attributes:
        rows: Their numbers, int64 (n,), ascending.
        columns: Name -> values (n,) that the steps found out about them.
    """

    rows: IntArray
    columns: dict[str, npt.NDArray[np.generic]]

    def take(self, marks: npt.NDArray[np.bool_], **columns: npt.NDArray[np.generic]) -> Left:
        """Return the marked rows, with further columns."""
        return Left(self.rows[marks], {name: column[marks] for name, column in (self.columns | columns).items()})


Step = Callable[[ScoreTable, Left], Left]
"""Takes the rows that the steps before it left. `str` of it is what a recipe says."""


@dataclass(frozen=True)
class Where:
    """Rows that meet a condition in SQL."""

    condition: str

    def __str__(self) -> str:
        return self.condition

    def __call__(self, table: ScoreTable, left: Left) -> Left:
        """Return the rows that meet it."""
        return left.take(np.isin(left.rows, table.present_rows(self.condition), assume_unique=True))


@dataclass(frozen=True)
class BestOfGroup:
    """Of pictures that look alike, the best frame, as `best_of_group` chooses it. Adds ``group`` and ``best_reason``.

    The column decides among frames that are as sharp and as well exposed. A row without an embedding is alone in its
    group; one without a value is never the best. Of a shot as raw and JPEG, both files stay where one does.
    """

    by: str
    min_similarity: float = MIN_SIMILARITY

    def __str__(self) -> str:
        return f"best of group by {self.by}"

    def __call__(self, table: ScoreTable, left: Left) -> Left:
        """Return the best of each group."""
        values = table.values(self.by)[left.rows]
        groups = find_stacks(table, left.rows, self.min_similarity)
        frames = read_frames(table, left.rows)
        best = best_of_group(groups, values, frames)
        shots = np.floor(frames.get("shot", np.arange(len(groups))))
        marks = np.isin(shots, shots[best.marks])
        return left.take(marks, **{GROUP: groups, BEST_REASON: best.reasons})


@dataclass(frozen=True)
class Varied:
    """The best rows by a column that are unlike each other, as `choose_varied` takes them."""

    by: str
    count: int
    variety: float = VARIETY

    def __str__(self) -> str:
        return f"{self.by} varied {self.count}"

    def __call__(self, table: ScoreTable, left: Left) -> Left:
        """Return them: exactly so many, where so many have a value and an embedding."""
        check_embeddings(table)
        chosen = choose_varied(
            table.values(self.by)[left.rows],
            lambda places: table.embeddings.take_unit(left.rows[places]),
            self.count,
            self.variety,
        )
        return left.take(np.isin(np.arange(len(left.rows)), chosen))


@dataclass(frozen=True)
class Reach:
    """Rows with a value or more, compared in the column's own precision."""

    by: str
    min_score: float

    def __str__(self) -> str:
        return f"{self.by} >= {self.min_score:g}"

    def __call__(self, table: ScoreTable, left: Left) -> Left:
        """Return the rows that reach it."""
        values = table.values(self.by)[left.rows]
        return left.take(values >= values.dtype.type(self.min_score))


@dataclass(frozen=True)
class Best:
    """The best rows; of equal values the first in the table.

    Attributes:
        by: Column that they are ranked by.
        top: How many, or which share of those that have a value.
        per: Column or SQL expression: so many of each slice of the rows in which it has the same value. Rows for which
            it is NULL are a slice, too. A slice gives at least one row. Adds the column ``slice_percentile``.
    """

    by: str
    top: Top
    per: str | None = None

    def __str__(self) -> str:
        return f"{self.by} top {self.top}" + (f" per {self.per}" if self.per else "")

    def __call__(self, table: ScoreTable, left: Left) -> Left:
        """Return the best rows, or the best of each slice."""
        values = table.values(self.by)[left.rows]
        if self.per is None:
            return left.take(mark_best(values, self.top))
        slices = table.slices(self.per)[left.rows]
        order = np.lexsort((-values, slices))  # slice by slice, the best first, NaN last; stable
        starts = np.flatnonzero(np.diff(slices[order], prepend=-1))
        marks, percentiles = np.zeros(len(values), np.bool_), np.full(len(values), np.nan, np.float32)
        for part in np.split(order, starts[1:]):
            inside = values[part]
            marks[part] = mark_best(inside, self.top)
            percentiles[part] = _percentiles(inside)
        return left.take(marks, **{PERCENTILE: percentiles})


def _percentiles(descending: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Return for each value which percentage of the values is not above it; NaN for NaN, which come last."""
    scored = int(np.count_nonzero(~np.isnan(descending)))
    above = np.searchsorted(-descending[:scored], -descending[:scored], side="left")
    shares = np.full(len(descending), np.nan, np.float32)
    shares[:scored] = 100 * (1 - above / max(scored, 1))
    return shares


def parse_step(text: str, rank_by: str, min_similarity: float = MIN_SIMILARITY, variety: float = VARIETY) -> Step:
    """Return a step of a recipe: ``COLUMN top 20%``, ``best of group``, ``varied 40``, or else a condition in SQL.

    Args:
        text: ``COLUMN top N`` and ``COLUMN top N%`` may go on with ``per COLUMN``, ``best of group`` with ``by
            COLUMN``.
        rank_by: What ``best of group`` and ``varied`` go by, where they do not say.
        min_similarity: Cosine from which on pictures look alike.
        variety: Of ``varied``, see `choose_varied`.

    Raises:
        ConfigurationError: The number after ``top`` is none.

    Example:
        >>> parse_step("clip_score top 30% per format", "aesthetic_score")
        Best(by='clip_score', top=Top(count=None, share=0.3), per='format')
        >>> parse_step("width >= 512", "aesthetic_score")
        Where(condition='width >= 512')
    """
    text = text.strip()
    if cut := _CUT.fullmatch(text):
        return Best(cut["by"], parse_top(cut["top"]), cut["per"])
    if varied := _VARIED.fullmatch(text):
        return Varied(varied["by"] or rank_by, int(re.sub("[,_]", "", varied["count"]) or 0), variety)
    if best := _BEST.fullmatch(text):
        return BestOfGroup(best["by"] or rank_by, min_similarity)
    return Where(text)


def read_recipe(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the steps in a recipe: a YAML file with a list under ``steps``, and a ``name`` and ``description`` if any.

    Args:
        path: Of the file, or a URL.

    Raises:
        ConfigurationError: There is no such file, or it is no recipe. The message says which line.
    """
    import yaml

    place = Place.of(path)
    entry = place.stat()
    if entry is None or not place.is_file():
        raise ConfigurationError(f"there is no recipe {place}")
    if entry.size > _MAX_BYTES:
        raise ConfigurationError(f"{place} is larger than {_MAX_BYTES:,} bytes, which no recipe is")
    try:
        text = place.read()
        node = yaml.compose(text, yaml.SafeLoader)
        names = [key.value for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
        recipe = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        why = f"{getattr(error, 'problem', error)}" + (f" in line {mark.line + 1}" if mark else "")
        raise ConfigurationError(
            f"{place} is no YAML: {why}. Put a step in quotes where YAML takes signs in it for its own"
        ) from error
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigurationError(f"{place} says `{twice}:` twice; once is meant")
    if not isinstance(recipe, dict) or not isinstance(recipe.get("steps"), list):
        raise ConfigurationError(f"{place} is no recipe: it needs a list of steps under `steps:`")
    if not recipe.keys() <= {"name", "description", "steps"}:
        raise ConfigurationError(f"{place}: a recipe has `name`, `description` and `steps`, and nothing else")
    wrong = next((number for number, step in enumerate(recipe["steps"], 1) if not isinstance(step, str)), None)
    if wrong is not None:
        raise ConfigurationError(f"{place}: step {wrong} is no text; put it in quotes")
    if len(recipe["steps"]) > _MAX_STEPS:
        raise ConfigurationError(f"{place} has {len(recipe['steps'])} steps; {_MAX_STEPS} is the limit")
    return tuple(recipe["steps"])


@dataclass(frozen=True)
class FunnelStep:
    """What one step did to the rows that reached it.

    Attributes:
        step: As a recipe says it.
        left: Rows after it.
        dropped: Rows that it dropped.
        only: Rows that all the steps without this one would keep, and all the steps together do not.
    """

    step: str
    left: int
    dropped: int
    only: int


def run_steps(table: ScoreTable, rows: IntArray, steps: Sequence[Step]) -> list[Left]:
    """Return what is there before the first step and after each: one more than there are steps."""
    stages = [Left(rows, {})]
    for step in steps:
        try:
            stages.append(step(table, stages[-1]))
        except ConfigurationError as error:
            raise ConfigurationError(f"{step}: {error}") from error
    return stages


def measure_funnel(table: ScoreTable, steps: Sequence[Step], stages: Sequence[Left]) -> list[FunnelStep]:
    """Return what each step did. All others are run once more for each, so it costs the square of their number.

    Args:
        table: The rows.
        steps: As `run_steps` took them.
        stages: As `run_steps` returned them.
    """
    funnel = []
    for number, step in enumerate(steps):
        before, after = len(stages[number].rows), len(stages[number + 1].rows)
        others = run_steps(table, stages[number].rows, steps[number + 1 :])[-1].rows
        only = np.setdiff1d(others, stages[-1].rows, assume_unique=True)
        funnel.append(FunnelStep(str(step), after, before - after, len(only)))
    return funnel
