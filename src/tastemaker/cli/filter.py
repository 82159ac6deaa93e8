"""``tastemaker filter``: score, then copy the originals of those that pass."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from tastemaker.cli import options as o
from tastemaker.cli.effect import refuse_without_effect
from tastemaker.cli.inputs import gather_inputs
from tastemaker.cli.select import report_skipped
from tastemaker.cli.stopping import stoppable
from tastemaker.cli.summary import check_failures, parse_max_failures, print_summary
from tastemaker.errors import ConfigurationError
from tastemaker.models.published import find_scorer
from tastemaker.progress import show_one_after_the_other

_USUAL = ", ".join(f"{cutoff:g}" for cutoff in find_scorer().customary_cutoffs)

EXAMPLE = "Example: tastemaker filter photos/ --top 20% --output best/"


@o.takes_run_options
def filter_images(
    context: typer.Context,
    output: o.AnyOutputOption,
    options: Any,  # noqa: ANN401 - RunOptions, which is imported only when a command runs
    mode: Any,  # noqa: ANN401 - RunMode, the same
    inputs: o.InputsArgument = None,
    files_from: o.FilesFromOption = None,
    null: o.NullOption = False,
    min_score: Annotated[
        float | None,
        typer.Option("--min-score", help=f"Keep images with this score or more. Usual are {_USUAL}."),
    ] = None,
    top: Annotated[
        str | None, typer.Option("--top", help="Keep the best images: a share (20%) or a number (1000).")
    ] = None,
    kept_as: Annotated[
        Literal["auto", "webdataset", "folder", "links"],
        typer.Option(
            "--as", help="Write the kept originals in this form. auto takes tars if an input is a tar, else files."
        ),
    ] = "auto",
    images_per_tar: Annotated[
        int, typer.Option("--images-per-tar", min=1, help="Put at most this many images into a tar.")
    ] = 1000,
    max_failures: o.MaxFailuresOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Score images, and copy the originals of the best.

    The copies are in DIRECTORY/kept, byte for byte. For embeddings, DIRECTORY/kept.parquet lists the rows.
    """
    refuse_without_effect(
        context,
        images_per_tar=(kept_as in ("auto", "webdataset"), "without --as webdataset"),
        null=(files_from is not None, "without --files-from"),
    )
    if min_score is not None and top is not None:
        raise ConfigurationError(
            f"--min-score {min_score:g} and --top {top} are two cuts, and filter makes one. For the best {top} of what "
            f"reaches {min_score:g}: tastemaker score, then tastemaker select SCORES --top {top} "
            f'--where "{options.ranking} >= {min_score:g}" --to FOLDER'
        )
    if min_score is None and top is None:
        raise ConfigurationError("nothing says which images to keep. Add --top 20%, --top 1000 or --min-score 5.5")
    if max_failures is not None:
        parse_max_failures(max_failures, 0)  # a wrong value is an error before the work, not after it
    from tastemaker.scores.cutoff import parse_top
    from tastemaker.selections import filter as library
    from tastemaker.selections.selection import Selection

    named, options = gather_inputs(inputs, files_from, options, null=null)
    selection = Selection(min_score=min_score, top=parse_top(top) if top else None)
    with (
        stoppable("the same command goes on from here"),
        show_one_after_the_other("scoring", "copying") as (on_scored, on_selected),
    ):
        found = library.filter_images(
            named,
            output,
            selection,
            options,
            mode,
            kind=kept_as,
            images_per_tar=images_per_tar,
            on_scored=on_scored,
            on_selected=on_selected,
        )
    print_summary(found.run, as_json=as_json, selection=found.selection, verbose=options.verbose)
    check_failures(found.run, max_failures)
    if found.selection is not None:
        report_skipped(found.selection)
