"""``tastemaker explore``: the score table in a browser."""

from __future__ import annotations

from typing import Annotated

import typer

from tastemaker.cli import options as o
from tastemaker.cli.select import RankByOption
from tastemaker.cli.stopping import stoppable

EXAMPLE = "Example: tastemaker explore scores/"


def explore(
    scores: Annotated[
        list[str],
        typer.Argument(metavar="SCORES", help="Show these rows: folders that score or filter wrote, or URLs of them."),
    ],
    port: Annotated[
        int | None,
        typer.Option("--port", min=1, max=65535, help="Serve the page at this port. Default: 8765, or a free one."),
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address, and open no browser.")] = False,
    rank_by: RankByOption = None,
    originals: o.OriginalsOption = None,
    model_dir: o.ModelDirOption = None,
    storage_options: o.StorageOptionsOption = None,
) -> None:
    """Open a page on this machine: look at pictures by score, and find a cut-off."""
    from tastemaker.explorer.launch import explore as serve

    def say(address: str) -> None:
        typer.echo(address)
        typer.echo("The address holds a token: only who has it can open the page. Ctrl-C ends the program.", err=True)

    with stoppable("ratings are saved"):
        options = o.parse_storage_options(storage_options)
        serve(scores, port, not no_browser, say, options, originals or (), rank_by, model_dir)
