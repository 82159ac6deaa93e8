"""``tastemaker verify``: how far the fast way is from the exact one, on this machine and on these images."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from tastemaker.cli import options as o
from tastemaker.cli.columns import print_columns
from tastemaker.models.published import DEFAULT_SCORER

if TYPE_CHECKING:
    from tastemaker.parity import ParityReport

_FEW = 30
"""Images of which a median begins to say something."""

EXAMPLE = "Example: tastemaker verify --images photos/ --precision int8"


def verify(
    images: Annotated[
        list[str] | None,
        typer.Option(
            "--images", help="Compare on these images: a folder, shard, file or glob. Default: built-in pictures."
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Compare this many images, spread over all.")] = 32,
    model_dir: o.ModelDirOption = None,
    scorer: o.ScorerOption = DEFAULT_SCORER,
    precision: o.PrecisionOption = "auto",
    device: o.DeviceOption = "auto",
    threads: o.ThreadsOption = None,
    preprocess: o.PreprocessOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Compare the scores of a device and precision with exact ones.

    The exit code is 1 if they differ by more than the tolerance.
    """
    from rich.console import Console
    from rich.progress import Progress

    from tastemaker.parity import verify_parity

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("comparing", total=2 * limit)
        report = verify_parity(
            images or (),
            limit,
            model_dir=model_dir,
            device=device,
            precision=precision,
            threads=threads,
            scorer=scorer,
            preprocess=preprocess,
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    if as_json:
        typer.echo(json.dumps({**asdict(report), "is_within_tolerance": report.is_within_tolerance}, indent=2))
    else:
        print_report(report, "your images" if images else "built-in pictures; --images takes your own")
    if not report.is_within_tolerance:
        raise typer.Exit(1)


def print_report(report: ParityReport, source: str) -> None:
    """Print a report, on stdout."""
    from tastemaker.parity import MAX_DIFFERENCE, MAX_MEDIAN_DIFFERENCE

    typer.echo(f"\n{report.images:,} images ({source})\n")
    ways = (
        ("exact", report.exact, report.exact_images_per_s),
        ("chosen", report.chosen, report.chosen_images_per_s),
    )
    columns = ("precision", "device", "backend")
    print_columns(("", *columns, "images/s"), [(n, *(way[c] for c in columns), f"{r:,.2f}") for n, way, r in ways])
    difference = report.score_difference
    typer.echo(
        f"\nscore difference  {difference['median']:.4f} in the median, {difference['p99']:.4f} at 99%, "
        f"{difference['maximum']:.4f} at most"
    )
    sides = ", ".join(f"{number} at {cut}" for cut, number in report.side_changes.items())
    if sides:  # the scorer has customary cut-offs
        typer.echo(f"images that change side  {sides}")
    if report.images < _FEW:
        typer.echo(f"{report.images:,} images say little of others: compare {_FEW} or more with --limit and --images")
    verdict = "within" if report.is_within_tolerance else "beyond"
    typer.echo(
        f"\n{verdict} the tolerance: a score difference of {MAX_MEDIAN_DIFFERENCE} in the median, "
        f"{MAX_DIFFERENCE} at most"
    )
