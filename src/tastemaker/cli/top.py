"""``tastemaker top``: the best and the worst images, as a table."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tastemaker.cli import options as o
from tastemaker.cli.columns import plain_name, print_columns
from tastemaker.cli.select import RankByOption, ScoresArgument

if TYPE_CHECKING:
    from tastemaker.scores.table import ScoreTable

EXAMPLE = "Example: tastemaker top scores/ -n 10"

_NEEDED = ("image_id", "image_path", "shard", "offset", "size", "xxh3", "reason")


def top(
    scores: ScoresArgument,
    number: Annotated[
        int, typer.Option("--number", "-n", min=1, help="Print this many of the best, and of the worst.")
    ] = 10,
    rank_by: RankByOption = None,
    storage_options: o.StorageOptionsOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Print the best and the worst images with their scores."""
    from tastemaker.scores.table import ScoreTable

    table = ScoreTable(scores, storage_options=o.parse_storage_options(storage_options))
    rank_by = rank_by or table.ranking
    ranked = _rank(table, number, rank_by)
    if as_json:
        typer.echo(json.dumps([{"rank": rank + 1, **row} for rank, row in ranked], indent=2))
        return
    _print_table(ranked, rank_by)


def _rank(table: ScoreTable, number: int, rank_by: str) -> list[tuple[int, dict[str, Any]]]:
    """Return rank, from 0, and row of the best and the worst."""
    values = table.values(rank_by)
    order = (-values).argsort(kind="stable")
    scored = int((values == values).sum())  # a NaN differs from itself
    ranks = [rank for rank in range(scored) if rank < number or rank >= scored - number]
    rows = table.take(order[ranks], [name for name in _NEEDED if name in table.columns]).to_pylist()
    return [(rank, {rank_by: float(values[order[rank]]), **row}) for rank, row in zip(ranks, rows, strict=True)]


def _print_table(ranked: list[tuple[int, dict[str, Any]]], rank_by: str) -> None:
    lines = [(f"{rank + 1:,}", f"{row[rank_by]:.3f}", plain_name(row)) for rank, row in ranked]
    gap = next((n for n in range(1, len(ranked)) if ranked[n][0] > ranked[n - 1][0] + 1), None)
    print_columns(("rank", rank_by, "image"), lines if gap is None else [*lines[:gap], ("...", "", ""), *lines[gap:]])
