"""``tastemaker scorers``: list what can score, fetch the weights, and verify them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tastemaker.cli.options import ScorersOption
from tastemaker.models.published import DEFAULT_SCORER, find_scorer, published_scorers

if TYPE_CHECKING:
    from tastemaker.models.hub import WeightsCheck
    from tastemaker.models.records import Model, Scorer

app = typer.Typer(help="List what can score, and fetch and verify the weights.", invoke_without_command=True)

ModelDir = Annotated[
    Path | None,
    typer.Option(help="Look in this folder. Default: $TASTEMAKER_MODEL_DIR, else your cache folder."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_HEADS = ("scorer", "column", "range", "cut-offs", "licence", "weights", "backbone")


@app.callback(epilog="Example: tastemaker scorers --json")
def list_scorers(context: typer.Context, model_dir: ModelDir = None, as_json: Json = False) -> None:
    """List the scorers: column, range, customary cut-offs, licence of the head, and whether the weights are here."""
    if context.invoked_subcommand is not None:
        return
    rows = [_describe(scorer, model_dir) for scorer in published_scorers().values()]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    lines = [_HEADS, *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        typer.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


@app.command(epilog="Example: tastemaker scorers pull --model-dir /data/models")
def pull(model_dir: ModelDir = None, scorer: ScorersOption = None) -> None:
    """Download the weights that are missing (1.7 GB for the default), check them, and print their paths."""
    from tastemaker.models.hub import ensure_weights
    from tastemaker.storage.drafts import draft_folder

    draft_folder()  # clears what a download that was killed left
    for model in _files(scorer):
        typer.echo(f"{model.id}: licence {model.licence or 'not known'}", err=True)
        typer.echo(ensure_weights(model, model_dir))


@app.command(epilog="Example: tastemaker scorers verify --model-dir /data/models")
def verify(model_dir: ModelDir = None, scorer: ScorersOption = None, as_json: Json = False) -> None:
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


def _describe(scorer: Scorer, model_dir: Path | None) -> dict[str, Any]:
    from tastemaker.models.hub import find_weights

    parts: dict[str, Model] = {"backbone": scorer.backbone, "head": scorer.head}
    missing = [name for name, model in parts.items() if find_weights(model, model_dir).problems]
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
    weights = f"no {' and '.join(row['missing'])}" if row["missing"] else "here"
    return (row["name"], row["column"], f"{low:g} to {high:g}", cutoffs, row["licence"], weights, row["backbone"])


def _print_check(model: Model, check: WeightsCheck) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(soft_wrap=True, highlight=False)  # a path stays on one line, however long
    console.print(f"[bold]{model.id}[/] revision {model.revision or 'newest'}: {model.description}")
    console.print(f"  {escape(str(check.path))}")
    if check.size_bytes is not None:
        console.print(f"  {check.size_bytes / 1e6:,.1f} MB" + (f", sha256 {check.sha256}" if check.sha256 else ""))
    console.print(f"  [red]{escape('; '.join(check.problems))}[/]" if check.problems else "  [green]ok[/]")
