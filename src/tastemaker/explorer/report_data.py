"""What a report says: every number and every picture that it shows, asked of a score table."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tastemaker.errors import ConfigurationError
from tastemaker.explorer.chart import Scale, choose_scale, count_steps
from tastemaker.explorer.failures import KIND, label_of
from tastemaker.explorer.report_slices import SliceKind, slice_table
from tastemaker.models.published import published_scorers, scorer_of_column
from tastemaker.models.records import Scorer
from tastemaker.runs.runfile import RUN_FILE
from tastemaker.scores.cutoff import Top
from tastemaker.scores.distribution import Cutoff, TableSummary, Values
from tastemaker.scores.table import ScoreTable, sql_name
from tastemaker.selections.filter import find_kept_cut
from tastemaker.storage import is_remote

DEFAULT_TOP = Top(share=0.2)
"""The cut of a report where neither the caller nor the run chose one."""

KEEP_SHARES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 0.9)
KEEP_COUNTS = tuple(10**power for power in range(2, 10))
EXAMPLES_OF_A_REASON = 3
_REASONS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Cut:
    """The cut that a report is about.

    Attributes:
        found: Where it lies, and what passes.
        shown: The score that is named: what was asked for, or the lowest one that passes. None where nothing passes.
        origin: Who chose it, for the page.
        options: The options of `tastemaker select` that make the same cut.
        is_kept: SQL over ``rows``: whether an image passes, equal scores included.
        tied: Images with just the score at the cut that do not pass; those that come first in the table do.
    """

    found: Cutoff
    shown: float | None
    origin: str
    options: tuple[str, ...]
    is_kept: str
    tied: int


@dataclass(frozen=True, slots=True)
class KeepRow:
    """One line of "keep so many -> cut-off".

    Attributes:
        label: What was asked for: a share, a number, or a customary cut-off.
        score: The cut-off.
        kept: How many pass.
        share: Their part of the scored.
    """

    label: str
    score: float
    kept: int
    share: float


@dataclass(frozen=True, slots=True)
class ReasonRow:
    """Images without a score for one kind of reason.

    Attributes:
        reason: Its kind.
        status: ``failed`` or ``dropped``.
        count: Images.
        examples: (path, whole reason) of the first few.
    """

    reason: str
    status: str
    count: int
    examples: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Band:
    """A band of scores, and the samples of it.

    Attributes:
        low: Its lower edge, which belongs to it.
        high: Its upper edge, which does not.
        count: Images in it.
        row_ids: The samples, in the order of their scores.
    """

    low: float
    high: float
    count: int
    row_ids: list[int]


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything in a report but the pixels.

    Attributes:
        column: What was ranked by.
        summary: Counts and percentiles.
        scale: The axis.
        reaching: Images that reach each step of the axis.
        cut: The cut.
        keep: "Keep so many -> cut-off", by share and number.
        customary: The same for the customary cut-offs of the scorer; empty where there are none.
        bands: Samples for each band, best first.
        below: Rows just below the cut, the nearest last.
        above: Rows just above the cut, the nearest first.
        best: The best rows.
        worst: The worst rows, the worst first.
        slices: What the cut keeps of size, aspect ratio, format and source.
        reasons: Why images have no score.
        scored_on: The day of the latest run.
        pictures: Row number -> the columns that a picture needs.
    """

    column: str
    summary: TableSummary
    scale: Scale
    reaching: list[int]
    cut: Cut
    keep: list[KeepRow]
    customary: list[KeepRow]
    bands: list[Band]
    below: list[int]
    above: list[int]
    best: list[int]
    worst: list[int]
    slices: list[SliceKind]
    reasons: list[ReasonRow]
    scored_on: date
    pictures: dict[int, dict[str, Any]] = field(default_factory=dict)

    def shown(self) -> list[list[int]]:
        """Return the rows of pictures, each as row numbers."""
        return [self.below, self.above, self.best, self.worst, *(band.row_ids for band in self.bands)]


def gather(
    table: ScoreTable, *, min_score: float | None = None, top: Top | None = None, seed: int = 0, samples: int = 8
) -> ReportData:
    """Return what a report of a table says.

    Args:
        table: The scores.
        min_score: The cut; not together with ``top``. With neither that of `tastemaker filter`, else `DEFAULT_TOP`.
        top: The cut, as a number or share.
        seed: Of the samples of each band.
        samples: Pictures in each row of samples; the other rows follow it.
    """
    column = choose_column(table)
    values = table.values(column)
    ordered = np.sort(values[~np.isnan(values)])
    scale = choose_scale(ordered, column)
    cut = _choose_cut(table, column, values, min_score, top)
    half = len(ordered) // 2
    data = ReportData(
        column=column,
        summary=table.summary(column),
        scale=scale,
        reaching=count_steps(ordered, scale),
        cut=cut,
        keep=_keep_rows(ordered),
        customary=_customary_rows(ordered, _scorer_of(table, column)),
        bands=_sample_bands(table, column, scale, seed, samples),
        below=_ids(table, column, f"NOT ({cut.is_kept})", "DESC", "ASC", samples)[::-1],
        above=_ids(table, column, cut.is_kept, "ASC", "DESC", samples),
        best=_ids(table, column, "true", "DESC", "ASC", min(samples, len(ordered) - half)),
        worst=_ids(table, column, "true", "ASC", "DESC", min(samples, half)),
        slices=slice_table(table, column, cut.is_kept, scale, cut.found.share),
        reasons=_reasons(table, column),
        scored_on=_day_of(table),
    )
    wanted = {row_id for ids in data.shown() for row_id in ids}
    data.pictures.update(_picture_rows(table, column, cut.is_kept, sorted(wanted)))
    return data


def choose_column(table: ScoreTable) -> str:
    """Return what the images were ranked by: the aesthetic score, or technical quality where only that is there."""
    for column in ("aesthetic_score", "technical_quality"):
        if column in table.columns and not np.isnan(table.values(column)).all():
            return column
    return "aesthetic_score"


def _choose_cut(table: ScoreTable, column: str, values: Values, min_score: float | None, top: Top | None) -> Cut:
    if min_score is not None and top is not None:
        raise ConfigurationError("give a cut-off or a top share, not both")
    origin = "the one that was asked for"
    if min_score is None and top is None:
        min_score, top = find_kept_cut(table)
        origin = "the one that filter made"
        if min_score is None and top is None:
            origin = "the best fifth, as none was chosen"
    if min_score is not None:
        found = table.cutoff(min_score=min_score, column=column)
        shown: float | None = min_score
        options: tuple[str, ...] = ("--min-score", f"{min_score:.9g}")
    else:
        top = top or DEFAULT_TOP
        found = table.cutoff(top=top.share, keep=top.count, column=column)
        shown, options = found.score, ("--top", str(top))
    reaching = 0 if found.score is None else int(np.count_nonzero(values >= found.score))
    return Cut(found, shown, origin, options, _kept_condition(column, values, found), reaching - found.kept)


def _kept_condition(column: str, values: Values, found: Cutoff) -> str:
    """Return SQL that holds for exactly the images that a cut keeps: of equal scores the first ones."""
    if found.score is None:
        return "false"
    name, score = sql_name(column), f"'{found.score!r}'::DOUBLE"  # quoted, for infinity is a number too
    above = int(np.count_nonzero(values > found.score))
    at_the_cut = np.flatnonzero(values == values.dtype.type(found.score))
    last = int(at_the_cut[found.kept - above - 1])
    return f"({name} > {score} OR ({name} = {score} AND row_id <= {last})) AND NOT isnan({name})"


def _keep_rows(ordered: Values) -> list[KeepRow]:
    """Return the cut-off for usual shares and round numbers, the strictest first."""
    scored = len(ordered)
    wanted = {Top(share=share).of(scored): f"{share:.0%}" for share in KEEP_SHARES} if scored >= 8 else {}
    wanted |= {count: f"{count:,}" for count in KEEP_COUNTS if count < scored and count not in wanted}
    return [
        KeepRow(label, float(ordered[scored - kept]), kept, kept / scored) for kept, label in sorted(wanted.items())
    ]


def _scorer_of(table: ScoreTable, column: str) -> Scorer | None:
    """Return the scorer that filled a column, as its rows say; the column's default one where they do not."""
    names = {str(name) for entry in table.provenance if (name := entry.entries.get("scorer"))}
    default = scorer_of_column(column)
    if default is None or not names:
        return default
    known = [scorer for scorer in published_scorers().values() if scorer.name in names and scorer.column == column]
    return known[0] if len(names) == 1 and known else None


def _customary_rows(ordered: Values, scorer: Scorer | None) -> list[KeepRow]:
    scored = len(ordered)
    rows = []
    for score in scorer.customary_cutoffs if scorer else ():
        kept = scored - int(np.searchsorted(ordered, ordered.dtype.type(score), side="left"))
        rows.append(KeepRow(f"{score:g}", score, kept, kept / scored if scored else 0.0))
    return rows


def _sample_bands(table: ScoreTable, column: str, scale: Scale, seed: int, samples: int) -> list[Band]:
    """Return so many images of each band, drawn by the seed: the same table and seed give the same ones."""
    found = table.query(
        f"SELECT {scale.band_of(sql_name(column))} AS band, "
        f"count(*) AS number, arg_min(row_id, hash(row_id, {int(seed)}), {int(samples)}) AS row_ids "
        f"FROM rows WHERE {table.has_value(column)} GROUP BY 1 ORDER BY 1 DESC"
    ).to_pylist()
    return [Band(scale.edge(row["band"]), scale.edge(row["band"] + 1), row["number"], row["row_ids"]) for row in found]


def _ids(table: ScoreTable, column: str, condition: str, order: str, ties: str, limit: int) -> list[int]:
    found = table.query(
        f"SELECT row_id FROM rows WHERE {table.has_value(column)} AND ({condition}) "
        f"ORDER BY {sql_name(column)} {order}, row_id {ties} LIMIT {int(limit)}"
    )
    ids: list[int] = found.column(0).to_pylist()
    return ids


def _picture_rows(table: ScoreTable, column: str, is_kept: str, row_ids: list[int]) -> dict[int, dict[str, Any]]:
    optional = ("caption", "width", "height", "orientation", "offset", "size", "shard", "xxh3")
    columns = ", ".join(
        [
            *("row_id", "image_id", "image_path"),
            *(sql_name(c) if c in table.columns else f"NULL AS {c}" for c in optional),
        ]
    )
    rows = table.query(
        f"SELECT {columns}, {sql_name(column)} AS score, {is_kept} AS is_kept FROM rows WHERE list_contains(?, row_id)",
        [row_ids],
    )
    return {row["row_id"]: row for row in rows.to_pylist()}


def _reasons(table: ScoreTable, column: str) -> list[ReasonRow]:
    """Return why images have no score, the commonest first, with the first examples of each."""
    found = table.query(
        f"SELECT status, {KIND} AS kind, count(*) AS number, min(row_id, {EXAMPLES_OF_A_REASON}) AS first FROM rows "
        f"WHERE {table.lacks_value(column)} GROUP BY 1, 2 ORDER BY number DESC, status, kind LIMIT {_REASONS_SHOWN}"
    ).to_pylist()
    wanted = [row_id for row in found for row_id in row["first"]]
    named = table.query(
        "SELECT row_id, image_path, coalesce(reason, '') AS reason FROM rows WHERE list_contains(?, row_id)", [wanted]
    )
    known = {row["row_id"]: (row["image_path"] or "", row["reason"]) for row in named.to_pylist()}
    return [
        ReasonRow(label_of(row["kind"]), row["status"], row["number"], [known[i] for i in sorted(row["first"])])
        for row in found
    ]


def _day_of(table: ScoreTable) -> date:
    """Return the day of the latest run: as its run file has it, else when its rows were written.

    A report of the same scores has the same date, whenever it is made.
    """
    files = [Path(source.path) for source in table.sources if not is_remote(source.path)]
    days = [day for folder in {file.parent for file in files} if (day := _day_of_the_run(folder)) is not None]
    if not days:
        times = [file.stat().st_mtime for file in files]
        days = [datetime.fromtimestamp(max(times), UTC).date()] if times else [datetime.now(UTC).date()]
    return max(days)


def _day_of_the_run(folder: Path) -> date | None:
    """Return the day that the run file of this folder, or of the nearest one above it, has."""
    path = next((f / RUN_FILE for f in (folder, *folder.parents) if (f / RUN_FILE).is_file()), None)
    try:
        return None if path is None else datetime.fromisoformat(json.loads(path.read_bytes())["started"]).date()
    except (OSError, ValueError, KeyError, TypeError):
        return None
