"""The slices of a view for the page: how many of each every cut-off keeps, so that the page follows the handle."""

from __future__ import annotations

from typing import Any

import numpy as np

from tastemaker.explorer.dimensions import NOT_KNOWN, Dimension, code_rows, rank
from tastemaker.explorer.index import View
from tastemaker.scores.table import ScoreTable, sql_text

MAX_SLICES = 120
"""Slices that are sent to the page; those surely farthest from the whole come first, the rest is counted together."""


def slice_view(
    table: ScoreTable, view: View, dimension: Dimension, first: int, number: int, kept: int
) -> dict[str, Any]:
    """Return the slices of a view, those whose keep rate is surely farthest from the whole first.

    Args:
        table: The rows.
        view: The pictures that are sliced.
        dimension: How.
        first: Number of the lowest cut-off: it is ``first * step``.
        number: How many cut-offs. For each of them it is told how many of a slice are kept, so that the page can follow
            the handle.
        kept: How many of the view the present cut-off keeps.
    """
    keys, codes = code_rows(table, dimension.key)
    codes = codes[view.rows]
    bins = np.clip(np.searchsorted(view.edges(first, number), view.scores, side="right") - 1, 0, max(number - 1, 0))
    images = np.bincount(codes, minlength=len(keys)).tolist()
    kept_images = np.bincount(codes[:kept], minlength=len(keys)).tolist()
    share = kept / max(len(view.rows), 1)
    present = [code for code in range(len(keys)) if images[code]]
    present.sort(key=lambda code: (*rank(kept_images[code], images[code], share), keys[code]))
    chosen = present[:MAX_SLICES]
    names = dimension.shorten([keys[code] for code in present])
    slices = []
    for code in chosen:
        from_edge = np.bincount(bins[codes == code], minlength=number)[::-1].cumsum()[::-1].tolist()
        slices.append(
            {"name": names[keys[code]], "where": _condition(dimension, keys[code])}
            | {"images": images[code], "kept": from_edge}
        )
    return {"slices": slices, "others": len(present) - len(chosen)}


def _condition(dimension: Dimension, key: str) -> str:
    """Return SQL for the rows of a slice, as short as a person would write it."""
    sql = dimension.sql if dimension.sql.isidentifier() else f"({dimension.sql})"
    if key == NOT_KNOWN:
        return f"{sql} IS NULL"
    return f"{sql} = {sql_text(key)}"
