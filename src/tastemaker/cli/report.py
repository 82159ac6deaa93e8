"""``tastemaker report``: one page that tells what the scores are like and what a cut-off keeps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from tastemaker.cli.columns import plain_text, print_columns
from tastemaker.cli.options import JsonOption, OriginalsOption, StorageOptionsOption, parse_storage_options
from tastemaker.cli.select import RankByOption
from tastemaker.cli.stopping import stoppable

if TYPE_CHECKING:
    from tastemaker.explorer.slices import BothCuts

EXAMPLE = "Example: tastemaker report scores/ --top 20% --output report.html"


def report(
    scores: Annotated[
        list[str],
        typer.Argument(metavar="SCORES", help="Read these rows: folders that score or filter wrote, files, or URLs."),
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Write the page to this file or URL.")
    ] = "report.html",
    cut_off: Annotated[
        float | None,
        typer.Option(
            "--cut-off",
            help="Keep images with this score or more. Default: the cut that filter made, else the best fifth.",
        ),
    ] = None,
    top: Annotated[
        str | None, typer.Option("--top", help="Keep the best images instead: a share (20%) or a number (1000).")
    ] = None,
    per: Annotated[
        str | None,
        typer.Option(
            "--per",
            metavar="COLUMN",
            help="With --top, compare the cut with the same cut in each slice: images with the same value in this "
            "column or expression.",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", metavar="FILE", help="Show what each step of this recipe drops (a YAML file)."),
    ] = None,
    rank_by: RankByOption = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Draw samples by this seed. The same seed draws the same ones.")
    ] = 0,
    samples: Annotated[int, typer.Option("--samples", min=1, max=100, help="Show this many pictures in a row.")] = 8,
    title: Annotated[
        str | None, typer.Option("--title", help="Give the page this heading. Default: the name of the source.")
    ] = None,
    originals: OriginalsOption = None,
    storage_options: StorageOptionsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write one HTML page about scores and a cut-off, to send and to print."""
    from tastemaker.explorer.report import write_report
    from tastemaker.selections.steps import read_recipe

    with stoppable("nothing was written"):
        summary = write_report(
            scores,
            output,
            min_score=cut_off,
            top=top,
            rank_by=rank_by,
            seed=seed,
            samples=samples,
            title=title,
            storage_options=parse_storage_options(storage_options),
            originals=originals or (),
            recipe=None if recipe is None else read_recipe(recipe),
            per=per,
        )
    if as_json:
        typer.echo(json.dumps(asdict(summary), indent=2))
        return
    typer.echo(summary.finding)
    if per is not None:
        _print_slices(summary.slices)
    size = f"{summary.bytes / 1e6:.1f} MB" if summary.bytes >= 1e5 else f"{summary.bytes / 1e3:.0f} kB"
    pictures = f"{summary.pictures:,} picture{'' if summary.pictures == 1 else 's'}"
    missing = f", {summary.missing:,} of them placeholders" if summary.missing else ""
    typer.echo(f"{summary.path}  {size}, {pictures}{missing}")
    if summary.refused:
        where = "in no place that you named; if you trust these rows, say --originals PLACE"
        typer.secho(
            f"tastemaker: not shown, of {summary.pictures:,} pictures: {summary.refused:,}, which are {where}", err=True
        )


def _print_slices(slices: Sequence[BothCuts]) -> None:
    """Print what the cut and the cut in each slice keep of the slices that change most."""
    from tastemaker.explorer.report_data import MOST_SLICES

    heads = ("slice", "images", "keeps", "with --per")
    lines = [
        (
            plain_text(part.name),
            f"{part.scored:,}",
            *(f"{kept / part.scored:.1%}" for kept in (part.kept, part.kept_per)),
        )
        for part in slices[:MOST_SLICES]
    ]
    print_columns(heads, lines)
    if len(slices) > len(lines):
        typer.echo(f"and {len(slices) - len(lines):,} slices that change less")
