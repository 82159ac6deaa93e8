"""What a cut-off does to parts of the table: shards, formats, sizes, shapes, and the entries of JSON sidecars."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.explorer.index import View
from tastemaker.imaging.signals import SIGNAL_NAMES
from tastemaker.scores.table import ScoreTable

MAX_SLICES = 120
"""Slices that are sent to the page; those furthest from the whole come first, the rest is counted together."""

FEW = 30
"""A slice with fewer pictures says little: it comes after the others, whatever its keep rate."""

_SAMPLED_ROWS = 2000
_MAX_KEYS = 24
_MAX_VALUE_LENGTH = 80

_MEGAPIXELS = "width * height / 1e6"
_RATIO = "width::DOUBLE / nullif(height, 0)"
_BUILT_IN = {
    "shard": "regexp_extract(shard, '[^/]+$')",
    "folder": "CASE WHEN shard IS NULL THEN regexp_replace(image_path, '/?[^/]*$', '') END",
    "format": "format",
    "size": (
        f"CASE WHEN {_MEGAPIXELS} < 0.25 THEN '1  below 0.25 megapixels' WHEN {_MEGAPIXELS} < 1 THEN '2  0.25 to 1' "
        f"WHEN {_MEGAPIXELS} < 4 THEN '3  1 to 4' WHEN {_MEGAPIXELS} < 12 THEN '4  4 to 12' "
        f"WHEN {_MEGAPIXELS} IS NOT NULL THEN '5  12 megapixels and more' END"
    ),
    "shape": (
        f"CASE WHEN {_RATIO} > 2 THEN 'panorama, wider than 2:1' WHEN {_RATIO} > 1.05 THEN 'landscape' "
        f"WHEN {_RATIO} >= 1 / 1.05 THEN 'square' WHEN {_RATIO} >= 0.5 THEN 'portrait' "
        f"WHEN {_RATIO} IS NOT NULL THEN 'tall, beyond 1:2' END"
    ),
    "caption": "CASE WHEN caption IS NULL OR trim(caption) = '' THEN 'no caption' ELSE 'captioned' END",
}


@dataclass(frozen=True)
class Dimension:
    """One way to slice the table.

    Attributes:
        name: Shown to the user, and what the page asks for.
        sql: An expression whose text names the slice of a row.
    """

    name: str
    sql: str


def list_dimensions(table: ScoreTable) -> list[Dimension]:
    """Return the ways to slice a table: built-in ones, entries of JSON sidecars and metadata, and signals in fifths."""
    have = set(table.columns)
    found = [
        Dimension(name, sql) for name, sql in _BUILT_IN.items() if _columns_in(sql) <= have and _varies(table, sql)
    ]
    for column in ("json", "metadata"):
        if column in have:
            found += [_json_dimension(column, key) for key in _json_keys(table, column)]
    if "rating" in have:
        found.append(Dimension("rating", "rating::VARCHAR"))
    found += [Dimension(name, sql) for name in SIGNAL_NAMES if name in have and (sql := _fifths(table, name))]
    return found


def slice_view(
    table: ScoreTable, view: View, dimension: Dimension, first: int, number: int, kept: int
) -> dict[str, Any]:
    """Return the slices of a view, those whose keep rate is furthest from the whole first.

    Args:
        table: The rows.
        view: The pictures that are sliced.
        dimension: How.
        first: Number of the lowest cut-off: it is ``first * step``.
        number: How many cut-offs. For each of them it is told how many of a slice are kept, so that the page can follow
            the handle.
        kept: How many of the view the present cut-off keeps.
    """
    names, codes = _slice_rows(table, dimension)
    codes = codes[view.rows]
    bins = np.clip(np.searchsorted(view.edges(first, number), view.scores, side="right") - 1, 0, max(number - 1, 0))
    images = np.bincount(codes, minlength=len(names))
    kept_images = np.bincount(codes[:kept], minlength=len(names))
    distance = np.abs(kept_images / np.maximum(images, 1) - kept / max(len(view.rows), 1))
    order = np.lexsort((-images, -distance, images < FEW))
    order = order[images[order] > 0]
    slices = []
    for code in order[:MAX_SLICES].tolist():
        counts = np.bincount(bins[codes == code], minlength=number)
        from_edge = counts[::-1].cumsum()[::-1].tolist()
        slices.append({"name": names[code], "images": int(images[code]), "kept": from_edge})
    return {"slices": slices, "others": max(0, len(order) - MAX_SLICES), "few": FEW, "sql": dimension.sql}


def _slice_rows(table: ScoreTable, dimension: Dimension) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Return the names of the slices, and for every row of the table the number of its own."""
    values = table.query(f"SELECT row_id, coalesce(({dimension.sql})::VARCHAR, 'none') AS name FROM rows")
    encoded = pc.dictionary_encode(values.column("name")).combine_chunks()
    encoded = encoded.chunk(0) if isinstance(encoded, pa.ChunkedArray) else encoded
    codes = np.empty(len(values), np.int64)
    codes[values.column("row_id").to_numpy()] = encoded.indices.to_numpy(zero_copy_only=False)
    return [str(name) for name in encoded.dictionary.to_pylist()], codes


def _columns_in(sql: str) -> set[str]:
    return set(re.findall(r"\b(?:shard|image_path|format|width|height|caption)\b", sql.replace("captioned", "")))


def _varies(table: ScoreTable, sql: str) -> bool:
    found = table.query(f"SELECT count(DISTINCT ({sql})), count(*) - count({sql}) FROM rows").to_pylist()[0]
    distinct, missing = found.values()
    return bool(distinct + (missing > 0) > 1)


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
    except ValueError:
        return []
    if not isinstance(entries, dict):
        return []
    return [
        (key, str(value))
        for key, value in entries.items()
        if isinstance(value, str | int | float) and len(str(value)) <= _MAX_VALUE_LENGTH
    ]


def _json_dimension(column: str, key: str) -> Dimension:
    path = json.dumps(key, ensure_ascii=False).replace("'", "''")
    return Dimension(
        f"{column}: {key}", f"CASE WHEN json_valid({column}) THEN json_extract_string({column}, '$.{path}') END"
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
