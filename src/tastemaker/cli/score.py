"""``tastemaker score``: a row for every image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import typer

from tastemaker.cli import options as o
from tastemaker.cli.effect import refuse_without_effect
from tastemaker.cli.inputs import gather_inputs
from tastemaker.cli.stopping import stoppable
from tastemaker.cli.summary import check_failures, parse_max_failures, print_summary
from tastemaker.progress import show_progress

EXAMPLE = "Example: tastemaker score shards/*.tar --output scores/"


@o.takes_run_options
def score(
    context: typer.Context,
    output: o.AnyOutputOption,
    options: Any,  # noqa: ANN401 - RunOptions, which is imported only when a command runs
    mode: Any,  # noqa: ANN401 - RunMode, the same
    part: Any,  # noqa: ANN401 - Slice, the same
    inputs: o.InputsArgument = None,
    files_from: o.FilesFromOption = None,
    null: o.NullOption = False,
    max_failures: o.MaxFailuresOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Score images, and write one row for each image to Parquet files."""
    refuse_without_effect(context, null=(files_from is not None, "without --files-from"))
    if max_failures is not None:
        parse_max_failures(max_failures, 0)  # a wrong value is an error before the work, not after it
    named, options = gather_inputs(inputs, files_from, options, null=null)
    with stoppable("the same command goes on from here"), show_progress("scoring") as update:
        from tastemaker.runs.run import run_scoring

        summary = run_scoring(named, output, options, replace(mode, part=part), on_progress=update)
    print_summary(summary, as_json=as_json, verbose=options.verbose)
    check_failures(summary, max_failures)
