"""``tastemaker explore``: the score table in a browser."""

from __future__ import annotations

from typing import Annotated

import typer

from tastemaker.cli import options as o
from tastemaker.cli.select import RankByOption
from tastemaker.cli.stopping import stoppable

EXAMPLE = "Example: tastemaker explore photos/"


def explore(
    scores: Annotated[
        list[str],
        typer.Argument(
            metavar="SCORES|PICTURES",
            help="Show these rows: folders that score or filter wrote, or URLs of them. Or score these pictures, and "
            "show them as they come.",
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIRECTORY",
            help="Write the rows of PICTURES to this folder. Default: a folder of your own data, which is printed.",
        ),
    ] = None,
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
    """Open a page on this machine: look at pictures by score, and find a cut-off.

    Folders of pictures are scored meanwhile. The same command goes on from there.
    """
    from tastemaker.explorer.launch import explore as serve

    def say(address: str, rows: str) -> None:
        typer.echo(address)
        if rows:
            typer.echo(f"The pictures are scored now, and their scores kept in {rows}", err=True)
        typer.echo("The address holds a token: only who has it can open the page. Ctrl-C ends the program.", err=True)

    with stoppable("ratings and scores are saved; the same command goes on from here"):
        options = o.parse_storage_options(storage_options)
        serve(scores, port, not no_browser, say, options, originals or (), rank_by, model_dir, output)
