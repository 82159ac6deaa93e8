"""``tastemaker rescore``: the columns of scorers for rows that are there."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from tastemaker.cli import options as o
from tastemaker.cli.stopping import stoppable
from tastemaker.models.published import DEFAULT_SCORER

EXAMPLE = "Example: tastemaker rescore scores/ --scorer mine.safetensors --scorer nsfw"


def rescore(
    scores: Annotated[
        str,
        typer.Argument(metavar="SCORES", help="Score the rows of this folder or URL again. They must hold embeddings."),
    ],
    scorer: o.ScorersOption = None,
    model_dir: o.ModelDirOption = None,
    storage_options: o.StorageOptionsOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Score again from the stored embeddings, in seconds: add or renew columns. No picture is read."""
    from tastemaker.runs.rescore import rescore as score_again

    options = o.parse_storage_options(storage_options)
    with stoppable("rows files that are finished stay, and the same command goes on from there"):
        summary = score_again(scores, scorer or DEFAULT_SCORER, model_dir=model_dir, storage_options=options)
    if as_json:
        typer.echo(json.dumps(asdict(summary), indent=2))
        return
    for column, number in summary.scored.items():
        typer.echo(
            f"{column}: {number:,} of {summary.rows:,} rows have a score. They store embeddings in float16, which "
            f"moves it by {summary.rounding[column]:.4f} at most"
        )
    if summary.finished_before:
        typer.echo(f"{summary.finished_before:,} of {summary.files:,} files had these columns already.")
