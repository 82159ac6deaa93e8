"""``tastemaker select``: the chosen originals, or a list of them, from rows that are there."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tastemaker.cli import options as o
from tastemaker.cli.progress import show_progress

EXAMPLE = "Example: tastemaker select scores/ --top 20% --to best/ --as folder"

ScoresArgument = Annotated[
    list[str], typer.Argument(metavar="SCORES...", help="Directories or files of rows, or URLs of them.")
]
RankByOption = Annotated[str, typer.Option("--rank-by", metavar="COLUMN", help="The column to cut by.")]
WhereOption = Annotated[
    str | None,
    typer.Option("--where", help="Only rows that meet this condition in SQL: 'width >= 512 and aesthetic_score < 9'."),
]


class As(StrEnum):
    """What is written."""

    WEBDATASET = "webdataset"
    FOLDER = "folder"
    LINKS = "links"
    MANIFEST = "manifest"
    UIDS = "uids"


def select(
    scores: ScoresArgument,
    to: Annotated[Path, typer.Option("--to", help="A folder; for a manifest or uids a file, its kind by extension.")],
    written_as: Annotated[As, typer.Option("--as", help="What is written.")] = As.WEBDATASET,
    min_score: Annotated[float | None, typer.Option("--min-score", help="Images with this score or more.")] = None,
    top: Annotated[str | None, typer.Option("--top", help="The best: a share (20%) or a number (1000).")] = None,
    where: WhereOption = None,
    rank_by: RankByOption = "aesthetic_score",
    images_per_tar: Annotated[int, typer.Option("--images-per-tar", min=1, help="Samples in a tar at most.")] = 1000,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another selection.")] = False,
    storage_options: o.StorageOptionsOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Write the originals of the best images, byte for byte, or a list of them. Nothing is scored again."""
    from tastemaker.scores.cutoff import parse_top
    from tastemaker.scores.select import select_images
    from tastemaker.scores.selection import Selection
    from tastemaker.scores.table import ScoreTable

    selection = Selection(where, min_score, parse_top(top) if top else None, rank_by)
    try:
        with show_progress("selecting") as update:
            summary = select_images(
                ScoreTable(scores, storage_options=o.parse_storage_options(storage_options)),
                to,
                selection,
                kind=written_as.value,
                images_per_tar=images_per_tar,
                overwrite=overwrite,
                on_progress=update,
            )
    except KeyboardInterrupt:
        typer.secho("tastemaker: stopped; nothing was written", err=True)
        raise typer.Exit(130) from None
    if as_json:
        typer.echo(json.dumps(asdict(summary), indent=2))
    else:
        cut = "" if summary.lowest is None else f", {rank_by} {summary.lowest:.3f} and up"
        typer.echo(f"{summary.written:,} of {summary.rows:,} images{cut}: {summary.output}")
        if summary.checked_by_size_only:
            typer.echo(f"{summary.checked_by_size_only:,} of them could be checked by their size only")
    if summary.skipped:
        kinds = ", ".join(f"{number:,} {kind}" for kind, number in summary.skipped.items())
        typer.secho(f"tastemaker: skipped {kinds}; see {summary.skipped_file}", fg="red", err=True)
        raise typer.Exit(1)
