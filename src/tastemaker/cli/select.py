"""``tastemaker select``: the chosen originals, or a list of them, from rows that are there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tastemaker.cli import options as o
from tastemaker.cli.columns import plain_text, print_columns
from tastemaker.cli.effect import refuse_without_effect
from tastemaker.cli.stopping import stoppable
from tastemaker.errors import ConfigurationError
from tastemaker.progress import Progress, show_progress

if TYPE_CHECKING:
    from tastemaker.scores.table import ScoreTable
    from tastemaker.selections.rating import StarOptions
    from tastemaker.selections.select import SelectSummary
    from tastemaker.selections.selection import Selection
    from tastemaker.selections.steps import FunnelStep

EXAMPLE = "Example: tastemaker select scores/ --top 20% --to best/ --as folder"

ScoresArgument = Annotated[
    list[str],
    typer.Argument(metavar="SCORES", help="Read these rows: folders that score or filter wrote, files, or URLs."),
]
RankByOption = Annotated[
    str | None,
    typer.Option(
        "--rank-by",
        metavar="COLUMN",
        help="Rank by this column or SQL expression, such as 'aesthetic_score + 3 * clip_score'. Default: the run's "
        "first scorer.",
    ),
]
WhereOption = Annotated[
    str | None,
    typer.Option(
        "--where", help="Take only rows that meet this SQL condition: 'width >= 512 and aesthetic_score < 9'."
    ),
]


_STARS = {
    "embedded": ("copy has its stars inside now", "copies have their stars inside now"),
    "already_rated": ("copy was left as it is: it has a rating", "copies were left as they are: they have a rating"),
    "without_stars": ("copy gets no stars by its score", "copies get no stars by their scores"),
    "no_jpeg": ("copy is no JPEG, and has no stars inside", "copies are no JPEGs, and have no stars inside"),
    "failed": (
        "copy could not take stars; _tastemaker/unrated.jsonl says why",
        "copies could not take stars; _tastemaker/unrated.jsonl says why",
    ),
}
"""What became of copies that stars were to go into, of one and of several."""


def select(
    context: typer.Context,
    scores: ScoresArgument,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="PATH",
            help="Write to this folder or URL. For a manifest, uids or pdf, name a file.",
        ),
    ] = None,
    written_as: Annotated[
        Literal["webdataset", "folder", "links", "manifest", "uids", "pdf", "xmp"],
        typer.Option(
            "--as",
            help="Write copies (webdataset, folder), links, a list (manifest, uids), a contact sheet (pdf), or stars "
            "beside originals (xmp).",
        ),
    ] = "webdataset",
    min_score: Annotated[float | None, typer.Option("--min-score", help="Take images with this score or more.")] = None,
    top: Annotated[
        str | None, typer.Option("--top", help="Take the best images: a share (20%) or a number (1000).")
    ] = None,
    per: Annotated[
        str | None,
        typer.Option(
            "--per",
            metavar="COLUMN",
            help="With --top, make the cut in each slice: images with the same value in this column or expression.",
        ),
    ] = None,
    where: WhereOption = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", metavar="FILE", help="Take the images that the steps in this YAML file leave."),
    ] = None,
    best_of_group: Annotated[
        bool,
        typer.Option("--best-of-group", help="Of images that look alike, take only the best. The cut comes after."),
    ] = False,
    min_similarity: Annotated[
        float,
        typer.Option("--min-similarity", help="Call images alike if the cosine of their embeddings is this or more."),
    ] = 0.95,
    varied: Annotated[
        int | None,
        typer.Option(
            "--varied", min=1, metavar="N", help="Of what is left, take the N best that are unlike each other."
        ),
    ] = None,
    variety: Annotated[
        float,
        typer.Option(
            "--variety", min=0, max=1, help="With --varied: 0 takes the best, 1 what is most unlike the others."
        ),
    ] = 0.5,
    with_rejected: Annotated[bool, typer.Option("--with-rejected", help="Take images that you rejected, too.")] = False,
    rank_by: RankByOption = None,
    images_per_tar: Annotated[
        int, typer.Option("--images-per-tar", min=1, help="Put at most this many images into a tar.")
    ] = 1000,
    grid: Annotated[
        str, typer.Option("--grid", help="Put so many pictures on a page of a contact sheet: columns x rows.")
    ] = "4x5",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace another selection in the same place.")
    ] = False,
    embed: Annotated[bool, typer.Option("--embed", help="Write stars into the copied JPEGs.")] = False,
    stars_bounds: Annotated[
        str,
        typer.Option(
            "--stars-bounds",
            help="Give 5, 4, 3, 2 and 1 stars to these best shares of all images. 'none' writes only what you said in "
            "the explorer.",
        ),
    ] = "5%,20%,50%,80%,100%",
    overwrite_ratings: Annotated[
        bool, typer.Option("--overwrite-ratings", help="Replace ratings that images have already.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --as xmp or --undo, print what would be done, and do nothing.")
    ] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="Take back what the same command wrote: the copies, the list, or the stars.")
    ] = False,
    originals: o.OriginalsOption = None,
    storage_options: o.StorageOptionsOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Copy or list the originals of the best images. It reads rows, and scores nothing."""
    from tastemaker.scores.cutoff import parse_top
    from tastemaker.scores.table import ScoreTable
    from tastemaker.selections.contact import Grid
    from tastemaker.selections.rating import StarOptions
    from tastemaker.selections.selection import Selection
    from tastemaker.selections.stars import parse_star_bounds
    from tastemaker.selections.steps import read_recipe

    is_xmp = written_as == "xmp"
    beside = (
        not is_xmp,
        "with --as xmp, which writes beside the originals, where programs look for them: leave it out",
    )
    starred = (is_xmp or embed, "without --as xmp or --embed")
    refuse_without_effect(
        context,
        to=beside,
        overwrite=beside,
        embed=(written_as in ("webdataset", "folder"), "without copies: say --as folder or --as webdataset"),
        stars_bounds=starred,
        overwrite_ratings=starred,
        images_per_tar=(written_as == "webdataset", "without --as webdataset"),
        grid=(written_as == "pdf", "without --as pdf"),
        variety=(varied is not None, "without --varied"),
        min_similarity=(best_of_group, "without --best-of-group"),
        dry_run=(
            is_xmp or undo,
            "without --as xmp or --undo. `tastemaker cutoff` tells how many images a cut keeps",
        ),
    )
    if not is_xmp and to is None:
        raise ConfigurationError("nothing says where to write. Add --to FOLDER, or --to FILE for a manifest or uids")
    places = o.parse_storage_options(storage_options)
    if undo:
        _take_back(scores, to, originals or (), places, dry_run=dry_run, as_json=as_json)
        return
    best = parse_top(top) if top else None
    if (
        is_xmp
        and where is None
        and min_score is None
        and best is None
        and recipe is None
        and not best_of_group
        and varied is None
    ):
        where = "true"  # stars are for all images
    selection = Selection(
        where,
        min_score,
        best,
        rank_by,
        best_of_group=best_of_group,
        varied=varied,
        variety=variety,
        min_similarity=min_similarity,
        with_rejected=with_rejected,
        per=per,
        recipe=None if recipe is None else read_recipe(recipe),
    )
    stars = StarOptions(parse_star_bounds(stars_bounds), overwrite_ratings) if is_xmp or embed else None
    table = ScoreTable(scores, storage_options=places, originals=originals or ())
    if to is None:
        _write_stars(table, selection, stars, dry_run=dry_run, as_json=as_json)
        return
    _write(
        table,
        to,
        selection,
        as_json=as_json,
        kind=written_as,
        images_per_tar=images_per_tar,
        overwrite=overwrite,
        stars=stars,
        grid=Grid.parse(grid),
    )


def _take_back(
    scores: list[str],
    to: str | None,
    originals: Sequence[str],
    storage_options: dict[str, Any] | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    from tastemaker.scores.table import ScoreTable
    from tastemaker.selections.rating import take_back_stars
    from tastemaker.selections.select import take_back_selection

    with stoppable("the same command goes on from here"):
        if to is None:
            table = ScoreTable(scores, storage_options=storage_options, originals=originals)
            report = take_back_stars(table, dry_run=dry_run)
        else:
            report = take_back_selection(to, storage_options=storage_options, dry_run=dry_run)
    typer.echo(json.dumps(asdict(report), indent=2) if as_json else "\n".join(map(plain_text, report.lines())))
    if report.left:
        raise typer.Exit(1)


def _write_stars(
    table: ScoreTable, selection: Selection, stars: StarOptions | None, *, dry_run: bool, as_json: bool
) -> None:
    from tastemaker.selections.rating import write_stars

    with stoppable("the same command goes on from here"):
        report = write_stars(table, selection, stars, dry_run=dry_run)
    typer.echo(json.dumps(asdict(report), indent=2) if as_json else "\n".join(map(plain_text, report.lines())))
    if report.failed:
        raise typer.Exit(1)


def _write(table: ScoreTable, to: str, selection: Selection, *, as_json: bool, **options: Any) -> None:  # noqa: ANN401
    from tastemaker.selections.select import select_images

    with (
        stoppable("the selection is not complete, and the same command completes it"),
        show_progress("selecting") as update,
    ):
        update(Progress(0))  # which rows are meant may take long
        summary = select_images(table, to, selection, on_progress=update, **options)
    if as_json:
        typer.echo(json.dumps(asdict(summary), indent=2))
    else:
        _print(summary)
    report_skipped(summary)


def _print(summary: SelectSummary) -> None:
    cut = "" if summary.lowest is None else f", {summary.ranked_by} {summary.lowest:.3f} and up"
    _print_funnel(summary.funnel)
    typer.echo(f"{summary.written:,} of {summary.rows:,} images{cut}: {summary.output}")
    if summary.checked_by_size_only:
        typer.echo(f"{summary.checked_by_size_only:,} of them could be checked by their size only")
    if summary.ratings:
        for outcome, number in summary.ratings.items():
            typer.echo(f"{number:,} {_STARS[outcome][number != 1]}")


def _print_funnel(funnel: list[FunnelStep]) -> None:
    """Print a table of what each step did."""
    if funnel:
        lines = [(step.step, f"{step.left:,}", f"{step.dropped:,}", f"{step.only:,}") for step in funnel]
        print_columns(("step", "left", "dropped", "by it alone"), lines)


def report_skipped(summary: SelectSummary) -> None:
    """Say on stderr what was moved aside, and what was not copied; end the program with 1 if anything was not."""
    for folder, number in summary.moved_aside.items():
        why = "somebody changed them, or their originals are gone"
        typer.secho(f"tastemaker: moved {number:,} earlier files to {folder}: {why}", err=True)
    if summary.skipped:
        skipped = f"tastemaker: skipped {_counts(summary.skipped)}, such as: {summary.skipped_first}"
        typer.secho(plain_text(f"{skipped}; see {summary.skipped_file}"), err=True)
        raise typer.Exit(1)


def _counts(kinds: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {kind.replace('_', ' ')}" for kind, number in kinds.items())
