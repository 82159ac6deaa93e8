"""``tastemaker top``: the best and the worst images, as a table."""

from __future__ import annotations

from typing import Annotated

import typer

from tastemaker.cli import options as o
from tastemaker.cli.select import RankByOption, ScoresArgument

EXAMPLE = "Example: tastemaker top scores/ -n 10"


def top(
    scores: ScoresArgument,
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="How many of each.")] = 10,
    rank_by: RankByOption = "aesthetic_score",
    storage_options: o.StorageOptionsOption = None,
) -> None:
    """Print the best and the worst images with their scores."""
    from rich.console import Console
    from rich.table import Table

    from tastemaker.scores.table import ScoreTable

    table = ScoreTable(scores, storage_options=o.parse_storage_options(storage_options))
    values = table.values(rank_by)
    order = (-values).argsort(kind="stable")
    scored = int((values == values).sum())  # a NaN differs from itself
    shown = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    shown.add_column("rank", justify="right")
    shown.add_column(rank_by, justify="right")
    shown.add_column("image", overflow="fold")
    ranks = [rank for rank in range(scored) if rank < number or rank >= scored - number]
    rows = table.take(order[ranks], ["image_path", rank_by]).to_pylist()
    for rank, row in zip(ranks, rows, strict=True):
        if rank == max(number, scored - number) and rank > 0:
            shown.add_section()
        shown.add_row(f"{rank + 1:,}", f"{row[rank_by]:.3f}", row["image_path"])
    Console(highlight=False, markup=False).print(shown)
