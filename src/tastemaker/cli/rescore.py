"""``tastemaker rescore``: the scores of another head for rows that are there."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from tastemaker.cli import options as o
from tastemaker.cli.stopping import stoppable
from tastemaker.models.published import DEFAULT_SCORER

EXAMPLE = "Example: tastemaker rescore scores/ --predictor mine.safetensors --output mine/"


def rescore(
    scores: Annotated[
        str, typer.Argument(metavar="SCORES", help="Read this folder or URL of results, which has embeddings.")
    ],
    output: Annotated[str, typer.Option("--output", "-o", metavar="DIR", help="Write the new rows to this folder.")],
    predictor: o.PredictorOption = None,
    scorer: o.ScorerOption = DEFAULT_SCORER,
    model_dir: o.ModelDirOption = None,
    storage_options: o.StorageOptionsOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Score the stored embeddings with another head, in seconds. No picture is read."""
    from tastemaker.runs.rescore import rescore as score_again

    with stoppable("rows files that are finished stay, and the same command goes on from there"):
        summary = score_again(
            scores,
            output,
            predictor=predictor,
            scorer=scorer,
            model_dir=model_dir,
            storage_options=o.parse_storage_options(storage_options),
        )
    if as_json:
        typer.echo(json.dumps(asdict(summary), indent=2))
        return
    before = (
        f", {summary.finished_before:,} of {summary.files:,} files were finished" if summary.finished_before else ""
    )
    typer.echo(f"{summary.scored:,} of {summary.rows:,} rows have a score: {summary.output_dir}{before}")
    if summary.rounding is not None:
        typer.echo(f"Rows store embeddings in float16, which moves a score by at most {summary.rounding:.4f}.")
