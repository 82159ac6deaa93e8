"""``tastemaker cutoff``: the score at which so many images remain."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from tastemaker.cli import options as o
from tastemaker.cli.select import RankByOption, ScoresArgument, WhereOption

EXAMPLE = "Example: tastemaker cutoff scores/ --top 20% --top 1000"

DEFAULT = ("1%", "5%", "10%", "20%", "30%", "50%", "80%")


def cutoff(
    scores: ScoresArgument,
    top: Annotated[
        list[str] | None,
        typer.Option("--top", help="Find the cut-off for this share (20%) or number (1000). Repeatable."),
    ] = None,
    rank_by: RankByOption = None,
    where: WhereOption = None,
    storage_options: o.StorageOptionsOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Print the cut-off score that keeps a share or number of images. Images that you rejected do not count."""
    import numpy as np

    from tastemaker.scores.cutoff import find_cutoff, name_cutoff, parse_top
    from tastemaker.scores.table import ScoreTable
    from tastemaker.selections.selection import Selection, choose_rows

    tops = [parse_top(text) for text in top or DEFAULT]
    table = ScoreTable(scores, storage_options=o.parse_storage_options(storage_options))
    rows = choose_rows(table, Selection(where or "true")).rows  # without what is rejected
    values = np.sort(table.values(rank_by)[rows])  # NaN last
    cuts = [find_cutoff(values, wanted) for wanted in tops]
    if as_json:
        typer.echo(json.dumps([asdict(cut) for cut in cuts], indent=2))
        return
    for wanted, cut in zip(tops, cuts, strict=True):
        score = "none has a score"
        if cut.score is not None:
            lower = float(values[cut.scored - cut.kept - 1]) if cut.kept < cut.scored else None
            score = f"cut-off {name_cutoff(cut.score, lower, 2, values.dtype.type)}"
        typer.echo(f"top {wanted!s:>6}  keep {cut.kept:>12,}  {score}")
