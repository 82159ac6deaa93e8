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
        list[str] | None, typer.Option("--top", help="A share (20%) or a number (1000); repeatable.")
    ] = None,
    rank_by: RankByOption = "aesthetic_score",
    where: WhereOption = None,
    storage_options: o.StorageOptionsOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Print which score keeps how many images."""
    from tastemaker.scores.cutoff import parse_top
    from tastemaker.scores.table import ScoreTable

    tops = [parse_top(text) for text in top or DEFAULT]
    table = ScoreTable(scores, storage_options=o.parse_storage_options(storage_options))
    cuts = [table.cutoff(top=t.share, keep=t.count, column=rank_by, where=where) for t in tops]
    if as_json:
        typer.echo(json.dumps([asdict(cut) for cut in cuts], indent=2))
        return
    for wanted, cut in zip(tops, cuts, strict=True):
        score = "none has a score" if cut.score is None else f"cut-off {cut.score:.4f}"
        typer.echo(f"top {wanted!s:>6}  keep {cut.kept:>12,}  {score}")
