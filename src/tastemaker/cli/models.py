"""``tastemaker models``: fetch, list and verify the weights."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tastemaker.cli.options import ScorerOption
from tastemaker.models.published import DEFAULT_SCORER, find_scorer

if TYPE_CHECKING:
    from tastemaker.models.hub import WeightsCheck
    from tastemaker.models.records import WeightsRecord

app = typer.Typer(no_args_is_help=True, help="Fetch, list and verify the models' weights.")

ModelDir = Annotated[
    Path | None,
    typer.Option(help="Look in this folder. Default: $TASTEMAKER_MODEL_DIR, else your cache folder."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command(epilog="Example: tastemaker models pull --model-dir /data/models")
def pull(model_dir: ModelDir = None, scorer: ScorerOption = DEFAULT_SCORER) -> None:
    """Download the weights that are missing (1.7 GB for the default), check them, and print their paths."""
    from tastemaker.models.hub import ensure_weights

    for model in find_scorer(scorer).files:
        typer.echo(ensure_weights(model, model_dir))


@app.command("list", epilog="Example: tastemaker models list --json")
def list_command(model_dir: ModelDir = None, scorer: ScorerOption = DEFAULT_SCORER, as_json: Json = False) -> None:
    """List the weights: which are there, and where."""
    _check_and_print(model_dir, scorer, as_json, with_sha256=False)


@app.command(epilog="Example: tastemaker models verify --model-dir /data/models")
def verify(model_dir: ModelDir = None, scorer: ScorerOption = DEFAULT_SCORER, as_json: Json = False) -> None:
    """Check the tensors and the SHA-256 of the weights. The exit code is 1 if anything is wrong."""
    if _check_and_print(model_dir, scorer, as_json, with_sha256=True):
        raise typer.Exit(1)


def _check_and_print(model_dir: Path | None, scorer: str, as_json: bool, *, with_sha256: bool) -> bool:
    """Print what is where the weights should be, and return whether anything is wrong with them."""
    from tastemaker.models.hub import find_weights

    models = find_scorer(scorer).files
    checks = [find_weights(model, model_dir, with_sha256=with_sha256) for model in models]
    if as_json:
        rows = [
            {"id": model.id, "revision": model.revision, "description": model.description, **asdict(check)}
            for model, check in zip(models, checks, strict=True)
        ]
        typer.echo(json.dumps(rows, default=str, indent=2))
    else:
        for model, check in zip(models, checks, strict=True):
            _print_check(model, check)
    return any(check.problems for check in checks)


def _print_check(model: WeightsRecord, check: WeightsCheck) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(soft_wrap=True, highlight=False)  # a path stays on one line, however long
    console.print(f"[bold]{model.id}[/] revision {model.revision or 'newest'}: {model.description}")
    console.print(f"  {escape(str(check.path))}")
    if check.size_bytes is not None:
        console.print(f"  {check.size_bytes / 1e6:,.1f} MB" + (f", sha256 {check.sha256}" if check.sha256 else ""))
    console.print(f"  [red]{escape('; '.join(check.problems))}[/]" if check.problems else "  [green]ok[/]")
