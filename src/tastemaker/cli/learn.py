"""``tastemaker learn``: a taste of one's own from ratings."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tastemaker.cli import options as o
from tastemaker.cli.select import ScoresArgument

EXAMPLE = "Example: tastemaker learn scores/ --output mine.safetensors"


def learn(
    scores: ScoresArgument,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Write the head to this .safetensors file.")
    ],
    examples: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="CSV",
            help="Read ratings from a CSV with the columns image and rating, or winner and loser. "
            "Default: stars and rejections of the explorer, then those in the pictures' files.",
        ),
    ] = None,
    scorer: o.OwnScorerOption = None,
    model_dir: o.ModelDirOption = None,
    storage_options: o.StorageOptionsOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Learn which pictures you like from your ratings, and say how far that can be trusted."""
    from tastemaker.scores.table import ScoreTable
    from tastemaker.selections.learn import learn_taste

    options = o.parse_storage_options(storage_options)
    table = ScoreTable(scores, storage_options=options)
    summary = learn_taste(
        table,
        output,
        examples,
        scorer=scorer,
        model_dir=model_dir,
        storage_options=options,
    )
    if as_json:
        typer.echo(json.dumps(asdict(summary), indent=2))
        return
    left_out = f", {summary.unmatched} more name no picture with an embedding" if summary.unmatched else ""
    typer.echo(f"Learned from {summary.examples} {summary.kind} ({summary.source}{left_out}): {summary.output}")
    typer.echo(f"On pictures that it was not learned from, the {summary.measure} with 95% interval:")
    typer.echo(f"  what was learned   {summary.own}\n  {summary.scorer:<17}  {summary.reference}")
    typer.echo(f"  a constant         {summary.constant:.2f}")
    typer.echo(f"  difference         {summary.difference}")
    typer.echo(f"  gained since half  {summary.gain}")
    typer.echo(summary.verdict)
    for place in scores:
        typer.echo(f"See its scores: {shlex.join(['tastemaker', 'rescore', place, '--scorer', summary.output])}")
