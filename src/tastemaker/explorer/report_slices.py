"""What a cut does to parts of a table: size, aspect ratio, format, source. A cut that is biased is seen here."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tastemaker.explorer.chart import Scale, draw_bars
from tastemaker.scores.table import ScoreTable

MOST_SLICES = 12
"""Rows of one kind of slice; what is left is one row together."""

HISTOGRAM_PARTS = 4
"""Bars in each band of a slice's small histogram."""

_SHORT_SIDE = "least(width, height)"
_ASPECT = "width / height"

KINDS = {
    "Size": "CASE WHEN width IS NULL THEN NULL "
    + " ".join(
        f"WHEN {_SHORT_SIDE} < {below} THEN '{name}'"
        for below, name in (
            (256, "short side below 256 px"),
            (512, "256 to 511 px"),
            (768, "512 to 767 px"),
            (1024, "768 to 1023 px"),
            (2048, "1024 to 2047 px"),
        )
    )
    + " ELSE '2048 px and more' END",
    "Aspect ratio": f"CASE WHEN width IS NULL THEN NULL WHEN {_ASPECT} < 0.5 THEN 'very tall, below 1:2' "
    f"WHEN {_ASPECT} < 0.8 THEN 'portrait, below 4:5' WHEN {_ASPECT} <= 1.25 THEN 'about square' "
    f"WHEN {_ASPECT} <= 2 THEN 'landscape, above 5:4' ELSE 'very wide, above 2:1' END",
    "Format": "format",
    "Source": r"coalesce(shard, regexp_extract(image_path, '^(.*)[/\\][^/\\]*$', 1))",
}
"""Kind of slice -> SQL for the name of an image's slice; null where it cannot be told."""


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
    kinds = (_slice_by(table, title, name, column, is_kept, scale, share) for title, name in KINDS.items())
    return [kind for kind in kinds if len(kind.slices) > 1]


def _slice_by(
    table: ScoreTable, title: str, name: str, column: str, is_kept: str, scale: Scale, share: float
) -> SliceKind:
    quoted, name = f'"{column}"', f"coalesce({name}, 'not known')"
    scored = f"FROM rows WHERE {table.has_value(column)}"
    counted = table.query(
        f"SELECT {name} AS name, count(*) AS scored, count(*) FILTER ({is_kept}) AS kept {scored} GROUP BY 1 ORDER BY 1"
    ).to_pylist()
    counted.sort(key=lambda row: (*_rank(row["kept"], row["scored"], share), row["name"]))
    chosen = counted[:MOST_SLICES]
    if not chosen:
        return SliceKind(title, [], 0)
    fine = Scale(scale.start, scale.bands * HISTOGRAM_PARTS, scale.band / HISTOGRAM_PARTS)
    counts: dict[str, list[int]] = {row["name"]: [0] * fine.bands for row in chosen}
    for row in table.query(
        f"SELECT {name} AS name, {fine.band_of(quoted)} AS bar, count(*) AS number {scored} "
        f"AND list_contains(?, {name}) GROUP BY 1, 2",
        [list(counts)],
    ).to_pylist():
        counts[row["name"]][row["bar"]] = row["number"]
    shared = _shared_folder(list(counts)) if title == "Source" else ""
    slices = [
        Slice(
            row["name"].removeprefix(shared) or "(top folder)",
            row["scored"],
            row["kept"],
            row["kept"] / row["scored"],
            row["kept"] / row["scored"] - share,
            _sure_distance(row["kept"], row["scored"], share) == 0,
            draw_bars(counts[row["name"]]),
            fine.bands,
        )
        for row in chosen
    ]
    return SliceKind(title, slices, len(counted) - len(chosen))


def _shared_folder(names: list[str]) -> str:
    """Return the folder that all names begin with, and its slash."""
    first, last = min(names), max(names)
    same = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[: max(first.rfind("/", 0, same), first.rfind("\\", 0, same)) + 1]


def _rank(kept: int, scored: int, share: float) -> tuple[float, float]:
    return -_sure_distance(kept, scored, share), -abs(kept / scored - share)


def _sure_distance(kept: int, scored: int, share: float) -> float:
    """Return how far a slice's share is from the whole's at least: 0 where chance may explain it.

    Wilson's interval (E. B. Wilson, "Probable inference", JASA 22, 1927) of 99.9%, as the farthest of many slices
    are looked for.
    """
    z = 3.290527
    middle = (kept + z * z / 2) / (scored + z * z)
    half = z / (scored + z * z) * math.sqrt(kept * (scored - kept) / scored + z * z / 4)
    return max(middle - half - share, share - middle - half, 0.0)
