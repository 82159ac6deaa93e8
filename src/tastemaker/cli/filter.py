"""``tastemaker filter``: a row for every image, and the originals of those that pass."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import Annotated, Any

import typer

from tastemaker.cli import options as o
from tastemaker.cli.score import run_and_print
from tastemaker.errors import ConfigurationError

EXAMPLE = "Example: tastemaker filter photos/ --top 20% --output best/"


class KeptAs(StrEnum):
    """How the kept originals are written."""

    AUTO = "auto"
    SHARDS = "shards"
    FOLDER = "folder"


@o.takes_run_options
def filter_images(
    inputs: o.InputsArgument,
    output: o.AnyOutputOption,
    options: Any,  # noqa: ANN401 - RunOptions, which is imported only when a command runs
    mode: Any,  # noqa: ANN401 - RunMode, the same
    min_score: Annotated[
        float | None,
        typer.Option("--min-score", help="Keep images with this score or more (4.5, 5, 6, 6.5 are usual)."),
    ] = None,
    top: Annotated[str | None, typer.Option("--top", help="Keep the best: a share (20%) or a number (1000).")] = None,
    kept_as: Annotated[
        KeptAs, typer.Option("--as", help="Write kept originals as tar shards or a folder; auto: as they came.")
    ] = KeptAs.AUTO,
    images_per_tar: Annotated[int, typer.Option("--images-per-tar", min=1, help="Samples in a tar at most.")] = 1000,
    max_failures: o.MaxFailuresOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Keep the images that score well: their originals byte for byte, and a row for every image.

    Of embeddings there are no originals: the rows say which are kept.
    """
    from tastemaker.scores.cutoff import parse_top

    if min_score is not None and top is not None:
        raise ConfigurationError(
            f"--min-score {min_score:g} and --top {top} are two cuts, and filter makes one. For the best {top} of what "
            f"reaches {min_score:g}: tastemaker score, then tastemaker select SCORES --top {top} "
            f'--where "aesthetic_score >= {min_score:g}" --to FOLDER'
        )
    if min_score is None and top is None:
        raise ConfigurationError("say what to keep: --min-score 5.5, or --top 20%, or --top 1000")
    options = replace(
        options,
        min_score=min_score,
        top=parse_top(top) if top else None,
        originals=_choose_kind(inputs, output, options) if kept_as is KeptAs.AUTO else kept_as.value,
        images_per_tar=images_per_tar,
    )
    run_and_print("filtering", inputs, output, options, mode, max_failures, as_json)


def _choose_kind(inputs: list[str], output: str, options: Any) -> str:  # noqa: ANN401 - RunOptions
    """Return ``none`` where the input is embeddings, ``shards`` where any of it is a tar, else ``folder``."""
    from tastemaker.embeddings.find import find_embeddings
    from tastemaker.imaging.shards import is_shard
    from tastemaker.stages.partition import FilePartitioningStage

    if find_embeddings(inputs, options.embedding_column, options.storage_options, output):
        return "none"
    groups = FilePartitioningStage(inputs, storage_options=options.storage_options, output_dir=output).process()
    return "shards" if any(is_shard(group.data[0]) for group in groups) else "folder"
