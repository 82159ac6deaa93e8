"""What a report says: every number and every picture that it shows, asked of a score table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tastemaker.errors import ConfigurationError
from tastemaker.explorer.chart import band_width, decimals_of
from tastemaker.explorer.dimensions import built_in_dimensions
from tastemaker.explorer.failures import group_failures, list_failures
from tastemaker.explorer.index import Filter, ScoreIndex
from tastemaker.explorer.slices import BothCuts, Slices, compare_cuts, slice_view
from tastemaker.explorer.view import Cut, View
from tastemaker.models.published import scorer_of_column
from tastemaker.runs.runfile import RUN_FILE
from tastemaker.scores.cutoff import Top, find_percentiles
from tastemaker.scores.layout import read_note
from tastemaker.scores.marks import Marks
from tastemaker.scores.stacks import best_of_group, find_stacks, read_frames
from tastemaker.scores.table import EMBEDDING, ScoreTable
from tastemaker.selections.filter import find_kept_cut
from tastemaker.selections.selection import Selection, choose_rows
from tastemaker.selections.steps import Best, FunnelStep
from tastemaker.storage.place import Place

DEFAULT_TOP = Top(share=0.2)
"""The cut of a report where neither the caller nor the run chose one."""

KEEP_SHARES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 0.9)
KEEP_COUNTS = tuple(10**power for power in range(2, 10))
EXAMPLES_OF_A_REASON = 3
MOST_SLICES = 12
"""Rows of one kind of slice."""

_COMPARED_ROWS = 100_000
"""In larger tables, pictures that look alike may stand side by side: to read embeddings takes seconds for a million."""

_WINDOW = 4
"""So many times as many pictures as are shown are compared."""

_PICTURE_COLUMNS = (
    *("row_id", "image_id", "image_path", "caption", "width", "height", "orientation"),
    *("offset", "size", "shard", "xxh3"),
)


@dataclass(frozen=True, slots=True)
class KeepRow:
    """One line of "keep so many -> cut-off".

    Attributes:
        label: What was asked for: a share, a number, or a customary cut-off.
        cutoff: The cut-off, as `Cut.name` has it.
        kept: How many pass.
        share: Their part of the scored.
    """

    label: str
    cutoff: str
    kept: int
    share: float


@dataclass(frozen=True, slots=True)
class Band:
    """A band of scores, and the samples of it.

    Attributes:
        name: Its edges; the lower one belongs to it, the upper one does not.
        count: Images in it.
        row_ids: The samples, in the order of their scores.
    """

    name: str
    count: int
    row_ids: list[int]


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything in a report but the pixels.

    Attributes:
        column: What was ranked by.
        view: All scored images that a person did not reject, the best first.
        images, deleted, rejected: Rows of images, of images that are gone, and of rejected images with a score.
        failed: Images that could not be read or scored.
        cut: Where it is cut.
        origin: Who chose the cut, for the page.
        options: The options of `tastemaker select` that make the same cut.
        keep: "Keep so many -> cut-off", by share and number.
        customary: The same for the customary cut-offs of the scorer; empty where there are none.
        percentiles: Percentile -> score.
        bands: Samples for each band, best first.
        below: Rows just below the cut, the nearest last.
        above: Rows just above the cut, the nearest first.
        best: The best rows.
        worst: The worst rows, the worst first.
        slices: What the cut keeps of size, aspect ratio, format and source.
        reasons: Why images have no score: as `group_failures` has it, with the first ``examples``.
        scored_on: The day of the latest run.
        pictures: Row number -> the columns that a picture needs.
        funnel: What the steps of a recipe do; empty where there is no recipe.
        per: The column or expression in each of whose slices a second cut is made; empty where there is none.
        both_cuts: What the two cuts keep of each slice, those first that change most.
    """

    column: str
    view: View
    images: int
    deleted: int
    rejected: int
    failed: int
    cut: Cut
    origin: str
    options: tuple[str, ...]
    keep: list[KeepRow]
    customary: list[KeepRow]
    percentiles: dict[int, float]
    bands: list[Band]
    below: list[int]
    above: list[int]
    best: list[int]
    worst: list[int]
    slices: list[Slices]
    reasons: list[dict[str, Any]]
    scored_on: date
    pictures: dict[int, dict[str, Any]] = field(default_factory=dict)
    funnel: list[FunnelStep] = field(default_factory=list)
    per: str = ""
    both_cuts: list[BothCuts] = field(default_factory=list)

    @property
    def scored(self) -> int:
        """Images with a score that a person did not reject."""
        return len(self.view.rows)

    @property
    def share(self) -> float:
        """What the cut keeps of them."""
        return self.cut.kept / self.scored if self.scored else 0.0

    def shown(self) -> list[list[int]]:
        """Return the rows of pictures, each as row numbers."""
        return [self.below, self.above, self.best, self.worst, *(band.row_ids for band in self.bands)]


def gather(
    table: ScoreTable,
    *,
    min_score: float | None = None,
    top: Top | None = None,
    rank_by: str | None = None,
    seed: int = 0,
    samples: int = 8,
    recipe: Sequence[str] | None = None,
    per: str | None = None,
) -> ReportData:
    """Return what a report says of a table. The options are those of `write_report`."""
    marks = Marks(table)
    index = ScoreIndex(table, marks, rank_by)
    column, whole = index.ranked_by(), index.view(Filter())
    marks.close()
    view = whole.counted()
    if per is not None and top is None:
        raise ConfigurationError("per makes the cut in each slice: name a share or number with top")
    min_score, top, origin = _choose_cut(table, column, min_score, top)
    cut = view.cut(min_score, top)
    rows, place = view.rows.tolist(), cut.place
    half = len(rows) // 2
    present = len(table.present_rows())
    slices = [slice_view(table, view, kind, view.keeps(cut), MOST_SLICES) for kind in built_in_dimensions(table)]
    reasons = group_failures(table, column)
    for reason in reasons:
        reason["examples"] = list_failures(table, column, reason["kind"], 0)[:EXAMPLES_OF_A_REASON]
    data = ReportData(
        column=column,
        view=view,
        images=present,
        deleted=len(table) - present,
        rejected=len(whole.rows) - len(rows),
        failed=sum(reason["images"] for reason in reasons if reason["status"] == "failed"),
        cut=cut,
        origin=origin,
        options=_options(cut, top, "" if column == table.ranking else column),
        keep=_keep_rows(view),
        customary=[_keep_row(view, f"{score:g}", score) for score in _customary(column)],
        percentiles=find_percentiles(view.scores[np.isfinite(view.scores)]),
        bands=_sample_bands(table, view, column, seed, samples),
        below=_unlike(table, rows[place:], samples)[::-1],
        above=_unlike(table, rows[:place][::-1], samples),
        best=_unlike(table, rows[: len(rows) - half], samples),
        worst=_unlike(table, rows[len(rows) - half :][::-1], samples),
        slices=[kind for kind in slices if len(kind.slices) > 1],
        reasons=reasons,
        scored_on=_day_of(table),
        funnel=choose_rows(table, Selection(recipe=tuple(recipe))).funnel if recipe else [],
        per=per or "",
        both_cuts=compare_cuts(table, view, place, Best(column, top, per)) if per and top else [],
    )
    data.pictures.update(_picture_rows(table, view, place, data.shown()))
    return data


def _unlike(table: ScoreTable, rows: list[int], count: int) -> list[int]:
    """Return the first of some rows, of each stack only its best frame; in a large table, the first as they are."""
    window = np.array(rows[: _WINDOW * count], np.int64)
    if EMBEDDING not in table.columns or len(table) > _COMPARED_ROWS or not table.embeddings.size:
        return rows[:count]
    ascending = np.sort(window)
    ranks = np.argsort(np.argsort(window))  # of each row of the window, its place among them ascending
    scores = np.empty(len(window))
    scores[ranks] = -np.arange(len(window))
    best = ascending[best_of_group(find_stacks(table, ascending), scores, read_frames(table, ascending)).marks]
    return [int(row) for row in window[np.isin(window, best)][:count]]


def _choose_cut(
    table: ScoreTable, column: str, min_score: float | None, top: Top | None
) -> tuple[float | None, Top | None, str]:
    if min_score is not None and top is not None:
        raise ConfigurationError("give a cut-off or a top share, not both")
    if min_score is not None or top is not None:
        return min_score, top, "the one that was asked for"
    min_score, top = find_kept_cut(table, column)
    if min_score is not None or top is not None:
        return min_score, top, "the one that filter made"
    return None, DEFAULT_TOP, "the best fifth, as none was chosen"


def _options(cut: Cut, top: Top | None, rank_by: str) -> tuple[str, ...]:
    """Return the cut as options of `tastemaker select`."""
    chosen = ("--top", str(top)) if top else ("--min-score", cut.name)
    return (*chosen, "--rank-by", rank_by) if rank_by else chosen


def _keep_rows(view: View) -> list[KeepRow]:
    """Return the cut-off for usual shares and round numbers, the strictest first."""
    scored = len(view.rows)
    wanted = {Top(share=share).of(scored): f"{share:.0%}" for share in KEEP_SHARES} if scored >= 8 else {}
    wanted |= {count: f"{count:,}" for count in KEEP_COUNTS if count < scored and count not in wanted}
    return [_keep_row(view, label, Top(kept)) for kept, label in sorted(wanted.items())]


def _keep_row(view: View, label: str, where: float | Top) -> KeepRow:
    cut = view.cut(None, where) if isinstance(where, Top) else view.cut(where, None)
    return KeepRow(label, cut.name, cut.kept, cut.kept / len(view.rows) if len(view.rows) else 0.0)


def _customary(column: str) -> Iterable[float]:
    scorer = scorer_of_column(column)
    return scorer.customary_cutoffs if scorer else ()


def _sample_bands(table: ScoreTable, view: View, column: str, seed: int, samples: int) -> list[Band]:
    """Return some images of each band, drawn by the seed: the same rows and seed give the same ones."""
    if not len(view.rows):
        return []
    low, high = view.chart.low, view.chart.high
    width = band_width(column, low, high)
    numbers = np.arange(np.floor(low / width), np.ceil(high / width) + 1)
    edges = np.round(numbers * width, 9)
    ends = len(view.rows) - np.searchsorted(view.ascending, edges.astype(view.scores.dtype), side="left")
    ends[0], ends[-1] = len(view.rows), 0  # the outermost bands have what lies beyond the axis
    bands = []
    for number in range(len(edges) - 2, -1, -1):
        rows = view.rows[ends[number + 1] : ends[number]]
        mixed = np.random.default_rng([seed, number]).permutation(rows)[: _WINDOW * samples]
        drawn = _unlike(table, mixed.tolist(), samples)
        low_end, high_end = (f"{edge:.{decimals_of(width)}f}" for edge in edges[number : number + 2])
        if len(rows):
            bands.append(Band(f"{low_end}–{high_end}", len(rows), rows[np.isin(rows, drawn)].tolist()))
    return bands


def _picture_rows(table: ScoreTable, view: View, place: int, shown: list[list[int]]) -> dict[int, dict[str, Any]]:
    wanted = np.unique(np.array([row for rows in shown for row in rows], np.int64))
    known = [name for name in _PICTURE_COLUMNS if name == "row_id" or name in table.columns]
    places = np.full(len(table), -1, np.int64)
    places[view.rows] = np.arange(len(view.rows))
    rows = [dict.fromkeys(_PICTURE_COLUMNS) | row for row in table.take(wanted, known).to_pylist()]
    return {
        row["row_id"]: row
        | {"score": float(view.scores[places[row["row_id"]]]), "is_kept": places[row["row_id"]] < place}
        for row in rows
    }


def _day_of(table: ScoreTable) -> date:
    """Return the day of the latest run: as its run file has it, else when its rows were written.

    A report of the same scores has the same date, whenever it is made.
    """
    files = [path for source in table.sources if (path := source.place.local_path) is not None]
    days = [day for folder in {file.parent for file in files} if (day := _day_of_the_run(folder)) is not None]
    if not days:
        times = [file.stat().st_mtime for file in files]
        days = [datetime.fromtimestamp(max(times), UTC).date()] if times else [datetime.now(UTC).date()]
    return max(days)


def _day_of_the_run(folder: Path) -> date | None:
    """Return the day that the run file of this folder, or of the nearest one above it, has."""
    path = next((f / RUN_FILE for f in (folder, *folder.parents) if (f / RUN_FILE).is_file()), None)
    try:
        return None if path is None else datetime.fromisoformat(read_note(Place.at(str(path)))["started"]).date()
    except (OSError, ValueError, KeyError, TypeError):
        return None
