"""Options for runs that go on from earlier ones, or share their work with others."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tastemaker.errors import ConfigurationError

_AGAIN, _PARTS = "Continue an earlier run", "Run in parts"


def run_mode(
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Score images again whose rows were made with other models or options.",
            rich_help_panel=_AGAIN,
        ),
    ] = False,
    new_fingerprint_only: Annotated[
        bool,
        typer.Option(
            "--new-fingerprint-only",
            help="Keep rows that were made with other models or options. Score only images without rows.",
            rich_help_panel=_AGAIN,
        ),
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Score the failed images again, and no others.", rich_help_panel=_AGAIN),
    ] = False,
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Wait until another run on the same folder ends.", rich_help_panel=_AGAIN),
    ] = False,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            "--metrics-port",
            min=1,
            max=65535,
            help="Serve Prometheus metrics at http://127.0.0.1:PORT/metrics.",
            rich_help_panel="Cluster",
        ),
    ] = None,
) -> Any:  # noqa: ANN401 - RunMode, which is imported only when a command runs
    """Return the `RunMode` of a command; `tastemaker.cli.options.takes_run_options` gives it these parameters.

    Raises:
        ConfigurationError: Options that do not go together.
    """
    given = dict(locals())
    from tastemaker.runs.options import RunMode

    if overwrite and new_fingerprint_only:
        raise ConfigurationError(
            "--overwrite replaces old rows, and --new-fingerprint-only keeps them. Give one of the two"
        )
    return RunMode(**given)


def run_part(
    shard_index: Annotated[
        int | None,
        typer.Option(
            "--shard-index", min=0, help="Score only this part of the input, counted from 0.", rich_help_panel=_PARTS
        ),
    ] = None,
    num_shards: Annotated[
        int | None,
        typer.Option("--num-shards", min=1, help="Split the input into this many parts.", rich_help_panel=_PARTS),
    ] = None,
    slurm_array: Annotated[
        bool,
        typer.Option(
            "--slurm-array", help="Take part and number of parts from the Slurm job array.", rich_help_panel=_PARTS
        ),
    ] = False,
) -> Any:  # noqa: ANN401 - Slice or None, the same
    """Return the part of a run that a command does, None for all of it.

    Raises:
        ConfigurationError: Options that do not go together.
    """
    from tastemaker.runs.options import Slice, slice_of_slurm_array

    if (shard_index is None) != (num_shards is None):
        raise ConfigurationError("give --shard-index and --num-shards together, such as --shard-index 0 --num-shards 8")
    if slurm_array and shard_index is not None:
        raise ConfigurationError("--slurm-array chooses the part. Leave out --shard-index and --num-shards")
    if shard_index is not None and num_shards is not None:
        return Slice(shard_index, num_shards)
    return slice_of_slurm_array() if slurm_array else None
