"""The end of a run, in words or as JSON."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, astuple
from typing import TYPE_CHECKING

import typer

from tastemaker.cli.columns import print_columns
from tastemaker.errors import ConfigurationError

if TYPE_CHECKING:
    from tastemaker.parity import ParityReport
    from tastemaker.runs.summary import RunSummary
    from tastemaker.selections.select import SelectSummary


def print_summary(
    summary: RunSummary, *, as_json: bool, selection: SelectSummary | None = None, verbose: bool = False
) -> None:
    """Print what a run came to, on stdout.

    Args:
        summary: The run.
        as_json: Print it as JSON.
        selection: What was copied of it; None where nothing was cut.
        verbose: Print percentiles and the times of the stages, too.
    """
    if as_json:
        found = summary.as_json() | ({"selection": asdict(selection)} if selection else {})
        typer.echo(json.dumps(found, indent=2))
        return
    typer.echo(f"{_images(summary.images)}{_seconds(summary)}: {_outcome(summary, selection)}")
    if summary.percentiles:
        typer.echo(_scores(summary.percentiles))
    for remark in _remarks(summary):
        typer.echo(remark)
    if verbose:
        _print_tables(summary)
    lead = "`tastemaker explore` shows them, `tastemaker select` cuts them"
    typer.echo(f"Rows: {summary.output_dir}/rows  ({lead})")
    if selection is not None:
        what = "list of the kept rows" if selection.kind == "manifest" else "originals of the kept"
        typer.echo(f"Kept: {selection.output}  ({what})")


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


def _images(number: int) -> str:
    return f"{number:,} image{'' if number == 1 else 's'}"


def _seconds(summary: RunSummary) -> str:
    done = summary.images_scored_now
    if not done:
        return ", all of them from an earlier run"
    rate = f" ({done / summary.seconds:,.1f} images/s with the start)" if summary.seconds else ""
    before = f", {summary.images - done:,} of them from an earlier run" if done < summary.images else ""
    return f" in {summary.seconds:,.1f} s{rate}{before}"


def _outcome(summary: RunSummary, selection: SelectSummary | None) -> str:
    """Return ``6 scored, 1 failed (1 not an image)``, or what a cut kept."""
    if selection is None:
        parts = [f"{summary.kept:,} scored"]
    else:
        share = f"{selection.chosen / summary.images:.1%}" if summary.images else "0%"
        lowest = "" if selection.lowest is None else f", with a score of {selection.lowest:.3f} or more"
        parts = [f"{selection.chosen:,} kept ({share}{lowest})"]
    dropped = summary.dropped + (summary.kept - selection.chosen if selection else 0)
    if dropped or selection is not None:
        parts.append(f"{dropped:,} dropped")
    reasons = ", ".join(f"{number:,} {reason.replace('_', ' ')}" for reason, number in summary.reasons.items())
    parts.append(f"{summary.failed:,} failed" + (f" ({reasons})" if reasons else ""))
    return ", ".join(parts)


def _scores(percentiles: dict[int, float]) -> str:
    low, middle, high = (percentiles[percentile] for percentile in (5, 50, 95))
    return f"Scores: {middle:.2f} in the median, nine in ten from {low:.2f} to {high:.2f}"


def _remarks(summary: RunSummary) -> list[str]:
    from tastemaker.stages.choice import describe  # which loads pyarrow

    remarks = []
    if extras := [f"'tastemaker[{name}]'" for name in ("heif", "raw") if f"needs_{name}" in summary.reasons]:
        remarks.append(f"To read more of them: pip install {' '.join(extras)}")
    if passed_over := describe(summary.passed_over):
        remarks.append(f"Passed over: {passed_over}")
    if summary.deleted:
        remarks.append(f"{summary.deleted:,} rows are of pictures that are gone. They are not among the images.")
    if summary.embeddings_normalised:
        number = summary.embeddings_normalised
        remarks.append(f"{number:,} embeddings were not of unit length. They were divided by their length.")
    if summary.is_mixed:
        remarks.append("The rows are mixed: some were made with other models or options, and were left alone.")
    if summary.other_rows_files:
        remarks.append(
            f"Rows of other inputs are in {summary.output_dir}, too (files: {summary.other_rows_files:,}): of "
            "another folder or shard, or of this one before it was moved or renamed. They stay in the table."
        )
    if summary.redone:
        why = ", ".join(f"{number:,} {reason}" for reason, number in summary.redone.items())
        remarks.append(f"Rows made again: {why}.")
    if summary.moved:
        remarks.append(f"{summary.moved:,} files were found at a new place. Their rows were kept, and state it now.")
    if summary.rerated:
        remarks.append(f"{_images(summary.rerated)} rated otherwise in sidecars since. The rows state it now.")
    if summary.not_retried:
        remarks.append(
            f"{summary.not_retried:,} failed images were not run again: the fault lies in how their shards are made."
        )
    if summary.parity is not None:
        remarks.append(_parity_line(summary.parity))
    return remarks


def _parity_line(report: ParityReport) -> str:
    difference, precision = report.score_difference, report.chosen["precision"]
    beyond = "" if report.is_within_tolerance else ": beyond the tolerance; see tastemaker verify"
    return (
        f"Scores in {precision} against exact ones, on {report.images} images: {difference['median']:.4f} off in the "
        f"median, {difference['maximum']:.4f} at most{beyond}"
    )


def _print_tables(summary: RunSummary) -> None:
    if summary.percentiles:
        typer.echo(f"\nPercentiles of the scores{f' in {of}' if (of := summary.percentiles_of) else ''}")
        print_columns(("percentile", "score"), [(f"{p}", f"{score:.2f}") for p, score in summary.percentiles.items()])
    if summary.stages:
        typer.echo("\nSeconds of the stages")
        lines = [(stage.name, *(f"{s:,.1f}" for s in astuple(stage)[1:])) for stage in summary.stages]
        print_columns(("stage", "set-up", "busy", "waiting for input", "waiting for room"), lines)
        typer.echo(f"{summary.bottleneck}\n")
