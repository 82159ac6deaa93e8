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
    from tastemaker.models.hub import ModelStatus

app = typer.Typer(no_args_is_help=True, help="Fetch, list and verify the models' weights.")

ModelDir = Annotated[
    Path | None,
    typer.Option(help="Directory of models. Default: $TASTEMAKER_MODEL_DIR, else the user's cache directory."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command(epilog="Example: tastemaker models pull --model-dir /data/models")
def pull(model_dir: ModelDir = None, scorer: ScorerOption = DEFAULT_SCORER) -> None:
    """Download the weights that are missing (1.7 GB for the default), check them, and print their paths."""
    from tastemaker.models.hub import ensure_weights

    found = find_scorer(scorer)
    for model in (found.backbone, found.head):
        typer.echo(ensure_weights(model, model_dir))


@app.command("list", epilog="Example: tastemaker models list --json")
def list_command(model_dir: ModelDir = None, scorer: ScorerOption = DEFAULT_SCORER, as_json: Json = False) -> None:
    """Show which weights are there, and where."""
    from tastemaker.models.hub import list_models

    _print_statuses(list_models(find_scorer(scorer), model_dir), as_json)


@app.command(epilog="Example: tastemaker models verify --model-dir /data/models")
def verify(model_dir: ModelDir = None, scorer: ScorerOption = DEFAULT_SCORER, as_json: Json = False) -> None:
    """Check the tensors and the SHA-256 of the weights; exit with 1 if anything is wrong."""
    from tastemaker.models.hub import list_models

    statuses = list_models(find_scorer(scorer), model_dir, with_sha256=True)
    _print_statuses(statuses, as_json)
    if any(status.problems for status in statuses):
        raise typer.Exit(1)


def _print_statuses(statuses: list[ModelStatus], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([asdict(status) for status in statuses], default=str, indent=2))
        return

    from rich.console import Console
    from rich.markup import escape

    console = Console(soft_wrap=True, highlight=False)  # a path stays on one line, however long
    for status in statuses:
        console.print(f"[bold]{status.id}[/] revision {status.revision or 'newest'}: {status.description}")
        console.print(f"  {escape(str(status.path))}")
        if status.size_bytes is not None:
            sha256 = f", sha256 {status.sha256}" if status.sha256 else ""
            console.print(f"  {status.size_bytes / 1e6:,.1f} MB{sha256}")
        console.print(f"  [red]{escape('; '.join(status.problems))}[/]" if status.problems else "  [green]ok[/]")
