"""Ways to slice a table: which slices there are, what they are called, and which of them say something.

The report and the page slice by these, so that both have the same slices of the same table.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.explorer.upright import aspect_sql
from tastemaker.imaging.signals import SIGNAL_NAMES
from tastemaker.scores.database import sql_text
from tastemaker.scores.table import ScoreTable

NOT_KNOWN = "not known"
"""The slice of the rows of which it cannot be told."""

SOURCE = "source"

_SQUARE = 1.05
"""Up to so many times as wide as high, or as high as wide, a picture is about square."""

_SIZES = (
    (256, "short side below 256 px"),
    (512, "256 to 511 px"),
    (768, "512 to 767 px"),
    (1024, "768 to 1023 px"),
    (2048, "1024 to 2047 px"),
)
_SEPARATORS = r"/\\" if os.sep == "\\" else "/"
"""What stands between folders, in a class of a regular expression: elsewhere a backslash is part of a name."""

_SAMPLED_ROWS = 2000
_MAX_KEYS = 24
_MAX_VALUE_LENGTH = 80


@dataclass(frozen=True, slots=True)
class Dimension:
    """One way to slice a table.

    Attributes:
        name: What is shown, and what the page asks for.
        sql: An expression whose text names the slice of a row; null where it cannot be told.
    """

    name: str
    sql: str

    @property
    def key(self) -> str:
        """SQL for the text by which rows are put together, never null."""
        return f"coalesce(({self.sql})::VARCHAR, '{NOT_KNOWN}')"

    def shorten(self, names: Collection[str]) -> dict[str, str]:
        """Return what the slices are called: of sources, without the folder that all are in."""
        shared = _shared_folder(set(names) - {NOT_KNOWN}) if self.name == SOURCE else ""
        return {name: name.removeprefix(shared) or "(top folder)" for name in names}


def built_in_dimensions(table: ScoreTable) -> list[Dimension]:
    """Return the ways to slice by what every table has, those with one slice only left out."""
    return [d for d in _built_in(table.columns) if _varies(table, d.sql)]


def list_dimensions(table: ScoreTable) -> list[Dimension]:
    """Return all ways to slice a table: built-in ones, entries of JSON sidecars and metadata, and signals in fifths."""
    have = set(table.columns)
    found = built_in_dimensions(table)
    for column in ("json", "metadata"):
        if column in have:
            found += [_json_dimension(column, key) for key in _json_keys(table, column)]
    if "rating" in have and _varies(table, "rating"):
        found.append(Dimension("rating", "rating::VARCHAR"))
    return found + [Dimension(name, sql) for name in SIGNAL_NAMES if name in have and (sql := _fifths(table, name))]


def sure_distance(kept: int, scored: int, share: float) -> float:
    """Return how far a slice's share is from the whole's at least: 0 where chance may explain it.

    Wilson's interval (E. B. Wilson, "Probable inference", JASA 22, 1927) of 99.9%, as the farthest of many slices
    are looked for.

    Args:
        kept: Pictures of the slice that a cut keeps.
        scored: All pictures of the slice, at least one.
        share: What the cut keeps of the whole.
    """
    z = 3.290527
    middle = (kept + z * z / 2) / (scored + z * z)
    half = z / (scored + z * z) * math.sqrt(kept * (scored - kept) / scored + z * z / 4)
    return max(middle - half - share, share - middle - half, 0.0)


def rank(kept: int, scored: int, share: float) -> tuple[float, float, int]:
    """Return by what slices are sorted: those first that are surely farthest from the whole."""
    return -sure_distance(kept, scored, share), -abs(kept / scored - share), -scored


def code_rows(table: ScoreTable, sql: str) -> tuple[list[str], npt.NDArray[np.int32]]:
    """Return the distinct values of an expression, as texts, and for every row the number of its own, -1 for null."""
    values = table.query(f"SELECT row_id, ({sql})::VARCHAR AS name FROM rows")
    encoded = pc.dictionary_encode(values.column("name")).combine_chunks()
    encoded = encoded.chunk(0) if isinstance(encoded, pa.ChunkedArray) else encoded
    codes = np.empty(len(values), np.int32)
    codes[values.column("row_id").to_numpy()] = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
    return [str(name) for name in encoded.dictionary.to_pylist()], codes


def source_dimension(columns: Collection[str]) -> Dimension:
    """Return how to slice by the shard or folder that a picture is in.

    Args:
        columns: Of the table.
    """
    folder = f"regexp_extract(image_path, '^(.*)[{_SEPARATORS}][^{_SEPARATORS}]*$', 1)"
    return Dimension(SOURCE, f"coalesce(shard, {folder})" if "shard" in columns else folder)


def _built_in(columns: Collection[str]) -> Iterable[Dimension]:
    have = set(columns)
    if {"width", "height"} <= have:
        cases = " ".join(f"WHEN least(width, height) < {below} THEN '{name}'" for below, name in _SIZES)
        yield Dimension(
            "size", f"CASE {cases} WHEN width IS NOT NULL AND height IS NOT NULL THEN '2048 px and more' END"
        )
        aspect = aspect_sql(columns)
        yield Dimension(
            "shape",
            f"CASE WHEN {aspect} < 0.5 THEN 'very tall, beyond 1:2' WHEN {aspect} < 1 / {_SQUARE} THEN 'portrait' "
            f"WHEN {aspect} <= {_SQUARE} THEN 'square, within 5%' WHEN {aspect} <= 2 THEN 'landscape' "
            f"WHEN {aspect} IS NOT NULL THEN 'very wide, beyond 2:1' END",
        )
    if "format" in have:
        yield Dimension("format", "format")
    yield source_dimension(columns)
    if "caption" in have:
        yield Dimension("caption", "CASE WHEN trim(coalesce(caption, '')) = '' THEN 'no caption' ELSE 'captioned' END")


def _varies(table: ScoreTable, sql: str) -> bool:
    (counts,) = table.query(
        f"SELECT count(DISTINCT ({sql})) AS values, count(*) FILTER (({sql}) IS NULL) AS missing FROM rows "
        "WHERE status IS DISTINCT FROM 'failed'"
    ).to_pylist()
    return bool(counts["values"] + (counts["missing"] > 0) > 1)


def _shared_folder(names: Collection[str]) -> str:
    """Return the folder that all names begin with, and its slash."""
    if not names:
        return ""
    first, last = min(names), max(names)
    same = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[: max(first.rfind("/", 0, same), first.rfind(os.sep, 0, same)) + 1]


def _json_keys(table: ScoreTable, column: str) -> list[str]:
    """Return the entries of the objects in a column that are short and of few values, told from its first rows."""
    texts = table.query(f"SELECT {column} FROM rows WHERE {column} IS NOT NULL LIMIT {_SAMPLED_ROWS}").column(0)
    values: dict[str, Counter[str]] = {}
    for text in texts.to_pylist():
        for key, value in _entries(text):
            values.setdefault(key, Counter())[value] += 1
    kept = [key for key, counts in values.items() if 1 < len(counts) <= max(20, counts.total() / 4)]
    return sorted(kept)[:_MAX_KEYS]


def _entries(text: str) -> list[tuple[str, str]]:
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        return []
    if not isinstance(entries, dict):
        return []
    return [
        (key, str(value))
        for key, value in entries.items()
        if isinstance(value, str | int | float)
        and max(len(key), len(str(value))) <= _MAX_VALUE_LENGTH
        and key.isprintable()  # no half emoji, and no line break
    ]


def _json_dimension(column: str, key: str) -> Dimension:
    path = sql_text(f"$.{json.dumps(key, ensure_ascii=False)}")
    return Dimension(
        f"{column}: {key}", f"CASE WHEN json_valid({column}) THEN json_extract_string({column}, {path}) END"
    )


def _fifths(table: ScoreTable, column: str) -> str:
    """Return an expression that puts a column of numbers into five parts of the same size; empty if it cannot."""
    present = table.values(column)
    present = present[np.isfinite(present)]
    if not len(present):
        return ""
    bounds = [f"{bound:.3g}" for bound in np.quantile(present, (0.2, 0.4, 0.6, 0.8))]
    if len(set(bounds)) < len(bounds):
        return ""
    cases = [f"WHEN {column} < {bounds[0]} THEN '1  below {bounds[0]}'"]
    cases += [
        f"WHEN {column} < {high} THEN '{n}  {low} to {high}'" for n, (low, high) in enumerate(pairwise(bounds), 2)
    ]
    cases.append(f"WHEN {column} IS NOT NULL THEN '5  {bounds[3]} and more'")
    return f"CASE {' '.join(cases)} END"
