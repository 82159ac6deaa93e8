"""``tastemaker scorers``: list what can score, fetch the weights, and verify them."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from tastemaker.cli.columns import print_columns
from tastemaker.cli.effect import refuse_without_effect
from tastemaker.cli.options import JsonOption, ModelDirOption, ScorersOption
from tastemaker.models.published import DEFAULT_SCORER, find_scorer, published_scorers

if TYPE_CHECKING:
    from tastemaker.models.hub import WeightsCheck
    from tastemaker.models.records import Model, Scorer

app = typer.Typer(help="List what can score, and fetch and verify the weights.", invoke_without_command=True)

_HEADS = ("scorer", "column", "range", "cut-offs", "licence", "weights", "backbone")


@app.callback(epilog="Example: tastemaker scorers --json")
def list_scorers(context: typer.Context, model_dir: ModelDirOption = None, as_json: JsonOption = False) -> None:
    """List the scorers: column, range, customary cut-offs, licence of the head, and whether the weights are here."""
    if (named := context.invoked_subcommand) is not None:
        behind = (False, f"before {named}: say it behind")
        refuse_without_effect(context, model_dir=behind, as_json=behind)
        return
    rows = [_describe(scorer, model_dir) for scorer in published_scorers().values()]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    print_columns(_HEADS, [_cells(row) for row in rows])


@app.command(epilog="Example: tastemaker scorers pull --model-dir /data/models")
def pull(model_dir: ModelDirOption = None, scorer: ScorersOption = None) -> None:
    """Download the weights that are missing (1.7 GB for the default), check them, and print their paths."""
    from tastemaker.models.hub import ensure_weights
    from tastemaker.storage.drafts import draft_folder

    draft_folder()  # clears what a download that was killed left
    for model in _files(scorer):
        typer.echo(f"{model.id}: licence {model.licence or 'not known'}", err=True)
        typer.echo(ensure_weights(model, model_dir))


@app.command(epilog="Example: tastemaker scorers verify --model-dir /data/models")
def verify(model_dir: ModelDirOption = None, scorer: ScorersOption = None, as_json: JsonOption = False) -> None:
    """Say where the weights are, and check their tensors and SHA-256. The exit code is 1 if anything is wrong."""
    from tastemaker.models.hub import find_weights

    models = _files(scorer)
    checks = [find_weights(model, model_dir, with_sha256=True) for model in models]
    if as_json:
        rows = [
            {"id": model.id, "revision": model.revision, "description": model.description, **asdict(check)}
            for model, check in zip(models, checks, strict=True)
        ]
        typer.echo(json.dumps(rows, default=str, indent=2))
    else:
        for model, check in zip(models, checks, strict=True):
            _print_check(model, check)
    if any(check.problems for check in checks):
        raise typer.Exit(1)


def _files(scorers: list[str] | None) -> list[Model]:
    """Return the files of some scorers, each once."""
    return list(dict.fromkeys(model for name in scorers or [DEFAULT_SCORER] for model in find_scorer(name).files))


def _describe(scorer: Scorer, model_dir: str | None) -> dict[str, Any]:
    from tastemaker.models.hub import find_weights

    needed = (scorer.files[0], scorer.files[-1])  # the last is the head, or the tokenizer where text is the head
    missing = [type(model).__name__.lower() for model in needed if find_weights(model, model_dir).problems]
    return {
        "name": scorer.name,
        "column": scorer.column,
        "backbone": scorer.backbone.id,
        "range": scorer.score_range,
        "customary_cutoffs": scorer.customary_cutoffs,
        "licence": scorer.head.licence,
        "backbone_licence": scorer.backbone.licence,
        "missing": missing,
    }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    low, high = row["range"]
    cutoffs = ", ".join(f"{cutoff:g}" for cutoff in row["customary_cutoffs"])
    weights = f"no {' and no '.join(row['missing'])}" if row["missing"] else "here"
    return (row["name"], row["column"], f"{low:g} to {high:g}", cutoffs, row["licence"], weights, row["backbone"])


def _print_check(model: Model, check: WeightsCheck) -> None:
    typer.echo(f"{model.id} revision {model.revision or 'newest'}: {model.description}")
    typer.echo(f"  {check.path}")
    if check.size_bytes is not None:
        typer.echo(f"  {check.size_bytes / 1e6:,.1f} MB" + (f", sha256 {check.sha256}" if check.sha256 else ""))
    typer.echo(f"  {'; '.join(check.problems) or 'ok'}")
