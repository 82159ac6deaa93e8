"""The end of a run, in words or as JSON."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from tastemaker.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.table import Table

    from tastemaker.parity import ParityReport
    from tastemaker.runs.summary import RunSummary
    from tastemaker.selections.select import SelectSummary


_LEAST_WIDTH = 72
"""Characters that the tables need. A narrower terminal breaks the lines; rich would cut off the numbers."""


def print_summary(summary: RunSummary, as_json: bool, selection: SelectSummary | None = None) -> None:
    """Print what a run came to, on stdout.

    Args:
        summary: The run.
        as_json: Print it as JSON.
        selection: What was copied of it; None where nothing was cut.
    """
    if as_json:
        found = summary.as_json() | ({"selection": asdict(selection)} if selection else {})
        typer.echo(json.dumps(found, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(justify="right")
    table.add_column()
    table.add_row(f"{summary.images:,}", "images" + _seconds(summary))
    if selection is None:
        table.add_row(f"{summary.kept:,}", "scored")
    else:
        lowest = "" if selection.lowest is None else f", with a score of {selection.lowest:.3f} or more"
        table.add_row(f"{selection.chosen:,}", f"kept ({_share(selection.chosen, summary.images)}{lowest})")
    dropped = summary.dropped + (summary.kept - selection.chosen if selection else 0)
    if dropped or selection is not None:
        table.add_row(f"{dropped:,}", "dropped")
    table.add_row(f"{summary.failed:,}", "failed")
    if summary.deleted:
        table.add_row(f"{summary.deleted:,}", "deleted [dim](rows of pictures that are gone; not among the images)[/]")
    for reason, number in summary.reasons.items():
        table.add_row("", f"[dim]{number:,}  {reason.replace('_', ' ')}[/]")
    if extras := _missing_extras(summary.reasons):
        table.add_row("", _escape(f"to read them: pip install {' '.join(repr(extra) for extra in extras)}"))
    if summary.embeddings_normalised:
        table.add_row(f"{summary.embeddings_normalised:,}", "not of unit length as given: divided by their length")
    console = Console(highlight=False)
    console.width = max(console.width, _LEAST_WIDTH)
    console.print()
    console.print(table)
    if summary.percentiles:
        console.print()
        console.print(_percentiles_table(summary.percentiles))
        if summary.percentiles_of:
            console.print(f"[dim]of the scores in {summary.percentiles_of}[/]")
    if summary.stages:
        console.print()
        console.print(_stages_table(summary))
        console.print(f"[dim]{_escape(summary.bottleneck)}[/]", soft_wrap=True)
    if summary.parity is not None:
        console.print()
        console.print(_parity_line(summary.parity), soft_wrap=True)
    for remark in _remarks(summary):
        console.print()
        console.print(remark, soft_wrap=True)
    console.print()
    lead = "`tastemaker explore` shows them, `tastemaker select` cuts them"
    console.print(f"Rows: {_escape(summary.output_dir)}/rows  [dim]({lead})[/]", soft_wrap=True)
    if selection is not None:
        what = "list of the kept rows" if selection.kind == "manifest" else "originals of the kept"
        console.print(f"Kept: {_escape(selection.output)}  [dim]({what})[/]", soft_wrap=True)


def check_failures(summary: RunSummary, max_failures: str | None) -> None:
    """End the program with 1 if more images failed than ``max_failures``, a number or a share such as ``1%``."""
    if max_failures is None:
        return
    limit = parse_max_failures(max_failures, summary.images)
    if summary.failed > limit:
        typer.secho(f"tastemaker: {summary.failed:,} images failed, more than --max-failures {max_failures}", err=True)
        raise typer.Exit(1)


def parse_max_failures(text: str, images: int) -> float:
    """Return how many of so many images may fail.

    Raises:
        ConfigurationError: It is neither a number nor a share.

    Example:
        >>> parse_max_failures("1%", 500), parse_max_failures("0.5", 10), parse_max_failures("3", 10)
        (5.0, 5.0, 3.0)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*", text)
    if match is None:
        raise ConfigurationError(f"--max-failures {text!r} is neither a number such as 10 nor a share such as 1%")
    value = float(match[1])
    if match[2]:
        return value / 100 * images
    return value * images if "." in match[1] and value < 1 else value


def _missing_extras(reasons: dict[str, int]) -> list[str]:
    """Return the extras that images failed for want of."""
    return [f"tastemaker[{name}]" for name in ("heif", "raw") if f"needs_{name}" in reasons]


def _seconds(summary: RunSummary) -> str:
    done = summary.images_scored_now
    if not done:
        return ", all of them scored by an earlier run"
    rate = f"{done / summary.seconds:,.1f} images/s" if summary.seconds else ""
    before = f", {summary.images - done:,} of them by an earlier run" if done < summary.images else ""
    return f" in {summary.seconds:,.1f} s ({rate}, start included){before}"


def _percentiles_table(percentiles: dict[int, float]) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("percentile")
    for percentile in percentiles:
        table.add_column(str(percentile), justify="right")
    table.add_row("score", *(f"{score:.2f}" for score in percentiles.values()))
    return table


def _stages_table(summary: RunSummary) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("seconds")
    for column in ("set-up", "busy", "waiting for input", "waiting for room"):
        table.add_column(column, justify="right")
    for stage in summary.stages:
        times = (stage.setup_s, stage.busy_s, stage.waiting_for_input_s, stage.waiting_for_output_s)
        table.add_row(stage.name, *(f"{seconds:,.1f}" for seconds in times))
    return table


def _parity_line(report: ParityReport) -> str:
    difference, precision = report.score_difference, report.chosen["precision"]
    line = (
        f"{precision} against exact scores, on {report.images} images: {difference['median']:.4f} off in the "
        f"median, {difference['maximum']:.4f} at most"
    )
    return line if report.is_within_tolerance else f"[red]{line}: beyond the tolerance[/]; see tastemaker verify"


def _remarks(summary: RunSummary) -> list[str]:
    remarks = []
    if summary.is_mixed:
        remarks.append(
            "[yellow]The rows are mixed:[/] some were made with other models or options, and were left alone."
        )
    if summary.other_rows_files:
        remarks.append(
            f"Rows of other inputs are in {_escape(summary.output_dir)}, too (files: {summary.other_rows_files:,}): of "
            "another folder or shard, or of this one before it was moved or renamed. They stay in the table."
        )
    if summary.not_retried:
        remarks.append(
            f"{summary.not_retried:,} failed images were not run again: the fault lies in how their shards are made."
        )
    return remarks


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "0%"


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
