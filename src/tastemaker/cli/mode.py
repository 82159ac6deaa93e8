"""Options for runs that go on from earlier ones, or share their work with others."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tastemaker.errors import ConfigurationError

_AGAIN, _PARTS = "Going on", "Running in parts"


def run_mode(
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Make rows again that were made with other models or options.", rich_help_panel=_AGAIN
        ),
    ] = False,
    new_fingerprint_only: Annotated[
        bool,
        typer.Option(
            "--new-fingerprint-only",
            help="Leave rows alone that were made with other models or options; do only what has no rows yet.",
            rich_help_panel=_AGAIN,
        ),
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Run the images again that failed, and no others.", rich_help_panel=_AGAIN),
    ] = False,
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Wait for another run on the same directory.", rich_help_panel=_AGAIN),
    ] = False,
    shard_index: Annotated[
        int | None,
        typer.Option(
            "--shard-index", min=0, help="Do only this part of the shards, counted from 0.", rich_help_panel=_PARTS
        ),
    ] = None,
    num_shards: Annotated[
        int | None, typer.Option("--num-shards", min=1, help="Number of parts.", rich_help_panel=_PARTS)
    ] = None,
    slurm_array: Annotated[
        bool,
        typer.Option("--slurm-array", help="Take both from the Slurm job array of this task.", rich_help_panel=_PARTS),
    ] = False,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            "--metrics-port",
            min=1,
            max=65535,
            help="Serve Prometheus metrics at http://127.0.0.1:PORT/metrics.",
            rich_help_panel=_PARTS,
        ),
    ] = None,
) -> Any:  # noqa: ANN401 - RunMode, which is imported only when a command runs
    """Return the `RunMode` of a command; `tastemaker.cli.options.takes_run_options` gives it these parameters.

    Raises:
        ConfigurationError: Options that do not go together.
    """
    from tastemaker.runs.options import RunMode, Slice, slice_of_slurm_array

    if overwrite and new_fingerprint_only:
        raise ConfigurationError("--overwrite does rows again, --new-fingerprint-only leaves them; say one of the two")
    if (shard_index is None) != (num_shards is None):
        raise ConfigurationError("--shard-index and --num-shards go together: --shard-index 0 --num-shards 8")
    if slurm_array and shard_index is not None:
        raise ConfigurationError("--slurm-array says which part this is; leave out --shard-index and --num-shards")
    part = slice_of_slurm_array() if slurm_array else None
    if shard_index is not None and num_shards is not None:
        part = Slice(shard_index, num_shards)
    return RunMode(
        overwrite=overwrite,
        new_fingerprint_only=new_fingerprint_only,
        retry_failed=retry_failed,
        wait=wait,
        part=part,
        metrics_port=metrics_port,
    )
