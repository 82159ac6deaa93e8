"""What a cut does to parts of a table: size, aspect ratio, format, source. A cut that is biased is seen here."""

from __future__ import annotations

from dataclasses import dataclass

from tastemaker.explorer.chart import Scale, draw_bars
from tastemaker.explorer.dimensions import Dimension, built_in_dimensions, rank, sure_distance
from tastemaker.scores.table import ScoreTable, sql_name

MOST_SLICES = 12
"""Rows of one kind of slice; what is left is one row together."""

HISTOGRAM_PARTS = 4
"""Bars in each band of a slice's small histogram."""


@dataclass(frozen=True, slots=True)
class Slice:
    """The scored images that have something in common.

    Attributes:
        name: What they have in common.
        scored: Their number.
        kept: How many of them pass.
        share: ``kept / scored``.
        difference: Their share less that of the whole table.
        is_chance: Whether a random choice of as many images may well differ as much (999 times in 1,000).
        bars: Their scores, as `draw_bars` draws them.
        bar_count: Number of the bars.
    """

    name: str
    scored: int
    kept: int
    share: float
    difference: float
    is_chance: bool
    bars: str
    bar_count: int


@dataclass(frozen=True, slots=True)
class SliceKind:
    """All slices of one kind, those first that are surely farthest from the whole.

    Attributes:
        title: What they differ in.
        slices: At most `MOST_SLICES` of them.
        others: Slices that are not among them.
    """

    title: str
    slices: list[Slice]
    others: int


def slice_table(table: ScoreTable, column: str, is_kept: str, scale: Scale, share: float) -> list[SliceKind]:
    """Return what a cut keeps of every slice; kinds with one slice only are left out.

    Args:
        table: The scores.
        column: What is cut by.
        is_kept: SQL: whether an image passes.
        scale: The axis of the small histograms.
        share: What the cut keeps of the whole.
    """
    kinds = (_slice_by(table, dimension, column, is_kept, scale, share) for dimension in built_in_dimensions(table))
    return [kind for kind in kinds if len(kind.slices) > 1]


def _slice_by(
    table: ScoreTable, dimension: Dimension, column: str, is_kept: str, scale: Scale, share: float
) -> SliceKind:
    quoted, key, title = sql_name(column), dimension.key, dimension.name.capitalize()
    scored = f"FROM rows WHERE {table.has_value(column)}"
    counted = table.query(
        f"SELECT {key} AS key, count(*) AS scored, count(*) FILTER ({is_kept}) AS kept {scored} GROUP BY 1"
    ).to_pylist()
    counted.sort(key=lambda row: (*rank(row["kept"], row["scored"], share), row["key"]))
    chosen = counted[:MOST_SLICES]
    if not chosen:
        return SliceKind(title, [], 0)
    fine = Scale(scale.start, scale.bands * HISTOGRAM_PARTS, scale.band / HISTOGRAM_PARTS)
    counts: dict[str, list[int]] = {row["key"]: [0] * fine.bands for row in chosen}
    for row in table.query(
        f"SELECT {key} AS key, {fine.band_of(quoted)} AS bar, count(*) AS number {scored} "
        f"AND list_contains(?, {key}) GROUP BY 1, 2",
        [list(counts)],
    ).to_pylist():
        counts[row["key"]][row["bar"]] = row["number"]
    names = dimension.shorten([row["key"] for row in counted])
    slices = [
        Slice(
            names[row["key"]],
            row["scored"],
            row["kept"],
            row["kept"] / row["scored"],
            row["kept"] / row["scored"] - share,
            sure_distance(row["kept"], row["scored"], share) == 0,
            draw_bars(counts[row["key"]]),
            fine.bands,
        )
        for row in chosen
    ]
    return SliceKind(title, slices, len(counted) - len(chosen))
