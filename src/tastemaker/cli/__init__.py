"""The command line: one file a command. Each parses, calls one library function, and prints."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from tastemaker import __version__
from tastemaker.cli import (
    cutoff,
    demo,
    explore,
    filter,  # noqa: A004 - the command is called so
    learn,
    report,
    rescore,
    score,
    scorers,
    search,
    select,
    top,
    verify,
)
from tastemaker.cli.columns import plain_text
from tastemaker.errors import ConfigurationError, TastemakerError, was_interrupted

app = typer.Typer(
    name="tastemaker",
    help="Score, rank and filter images by aesthetic quality.",
    epilog="Example: tastemaker filter photos/ --top 20% --output best/",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
_SCORE, _CHOOSE, _LOOK, _SETUP = "Score", "Choose", "Look", "Models and scripts"

app.command("score", epilog=score.EXAMPLE, rich_help_panel=_SCORE)(score.score)
app.command("filter", epilog=filter.EXAMPLE, rich_help_panel=_SCORE)(filter.filter_images)
app.command("select", epilog=select.EXAMPLE, rich_help_panel=_CHOOSE)(select.select)
app.command("cutoff", epilog=cutoff.EXAMPLE, rich_help_panel=_CHOOSE)(cutoff.cutoff)
app.command("top", epilog=top.EXAMPLE, rich_help_panel=_CHOOSE)(top.top)
app.command("rescore", epilog=rescore.EXAMPLE, rich_help_panel=_SCORE)(rescore.rescore)
app.command("learn", epilog=learn.EXAMPLE, rich_help_panel=_SCORE)(learn.learn)
app.command("search", epilog=search.EXAMPLE, rich_help_panel=_CHOOSE)(search.search)
app.command("explore", epilog=explore.EXAMPLE, rich_help_panel=_LOOK)(explore.explore)
app.command("report", epilog=report.EXAMPLE, rich_help_panel=_LOOK)(report.report)
app.command("verify", epilog=verify.EXAMPLE, rich_help_panel=_SETUP)(verify.verify)
app.add_typer(scorers.app, name="scorers", rich_help_panel=_SETUP)
app.command("demo", epilog=demo.EXAMPLE, rich_help_panel=_LOOK)(demo.demo)


@app.callback(invoke_without_command=True)
def _common(version: bool = typer.Option(False, "--version", help="Print the version and end.")) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command(
    rich_help_panel=_SETUP,
    epilog="Example: tastemaker run curate_images.py --input-dir shards/",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
def run(
    script: Annotated[
        Path, typer.Argument(metavar="SCRIPT", help="Run this Python script, which imports nemo_curator.")
    ],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="ARGUMENTS", help="Hand these arguments to the script.")
    ] = None,
) -> None:
    """Run a script written for NeMo Curator, unchanged, on Tastemaker."""
    from tastemaker.cli.run import run_script

    run_script(script, arguments or [])


def main() -> None:
    """Run the command line.

    Exit codes: 0 done, 1 done with failures or stopped by one, 2 wrong options, 130 Ctrl-C, 143 SIGTERM.
    """
    _open_closed_streams()
    logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.WARNING)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files may be no text, or none in the terminal's encoding
            stream.reconfigure(errors="backslashreplace")
    logging.getLogger("tastemaker.models.hub").setLevel(logging.INFO)  # a download takes minutes
    warnings.filterwarnings("ignore", module=r"PIL\.")  # what it warns of ends in a row
    red = None if os.environ.get("NO_COLOR") else "red"
    try:
        _refuse_empty(sys.argv[1:])
        app()
    except TastemakerError as error:
        typer.secho(plain_text(f"tastemaker: {error}", "\n"), fg=red, err=True)
        sys.exit(2 if isinstance(error, ValueError) else 1)
    except (KeyboardInterrupt, ImportError) as error:  # while the commands are put together
        if not was_interrupted(error):
            raise
        sys.exit(130)
    except MemoryError:
        typer.secho("tastemaker: the process has too little memory", fg=red, err=True)
        sys.exit(1)
    except OSError as error:
        place = "" if error.filename is None else f"{os.fspath(error.filename)}: "
        what = error.strerror or str(error)
        if "No usable temporary directory" in what:
            what = "no folder for temporary files can be written to; set TMPDIR to one that can"
        elif isinstance(error, FileNotFoundError) and error.strerror and error.filename is None:
            what = "the folder that you are in is gone; change to another"
        typer.secho(plain_text(f"tastemaker: {place}{what}"), fg=red, err=True)
        sys.exit(1)


def _refuse_empty(arguments: list[str]) -> None:
    """Raise `ConfigurationError` for an argument that is empty: most often a shell variable that is not set."""
    own = arguments[:2] if arguments[:1] == ["run"] else arguments  # what follows is the script's
    for number, argument in enumerate(own):
        if argument and not re.fullmatch("--[^=]+=", argument):
            continue
        before = f"what follows {own[number - 1]!r}" if number else "the first argument"
        name = argument.rstrip("=") or before
        raise ConfigurationError(f"{name} is empty; is a variable of the shell not set?")


def _open_closed_streams() -> None:
    """Let a standard stream that the caller has closed lead nowhere: a file of results would get its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - for as long as the process runs
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
