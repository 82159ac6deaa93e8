"""The report: one self-contained page about the scores of a table and a cut. It opens from disk and loads nothing."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from typing import Any

from tastemaker import __version__
from tastemaker.errors import ConfigurationError
from tastemaker.explorer.page import format_share, render_page
from tastemaker.explorer.report_data import MOST_SLICES, ReportData, gather
from tastemaker.explorer.report_pictures import Thumbnail, make_thumbnails
from tastemaker.explorer.slices import BothCuts
from tastemaker.machine import usable_cores
from tastemaker.scores.cutoff import Top, parse_top
from tastemaker.scores.locations import Source as TableSource, as_list, name_of
from tastemaker.scores.sources import NOT_NAMED, OriginalsReader
from tastemaker.scores.table import ScoreTable
from tastemaker.storage.owned import OwnFiles
from tastemaker.storage.place import Place

MAX_BYTES = 20 * 10**6
"""Of a report, whatever it is about."""

MAX_SAMPLES = 100
"""Pictures in a row of samples at most."""

_PAGE_BYTES, _FIGURE_BYTES = 10**6, 8000
"""Room for what is no picture: the page itself, and the text of each picture at its longest, escaped."""

_LONGEST_NAME, _LONGEST_CAPTION = 255, 200
_PART = re.compile(r"[^\W_]+[\W_]*|[\W_]+")
"""Of a file's name: a line may end after it."""

_WIDEST_ROW = 1.5
"""Width by height that a picture has in a row of samples on average at most, so that the row stays one."""


@dataclass(frozen=True)
class ReportSummary:
    """What a report says in short.

    Attributes:
        path: The page.
        bytes: Its size.
        finding: Its one sentence.
        column: What was ranked by.
        cutoff: The lowest score that is kept; None where nothing is.
        kept: Images that pass.
        scored: Images with a score.
        pictures: Pictures in it.
        missing: Pictures that could not be shown; each has a placeholder with the reason.
        refused: Those of them that lie in no place that the user named.
        slices: With ``per``, what the cut and the cut in each slice keep of each, those first that change most.
    """

    path: str
    bytes: int
    finding: str
    column: str
    cutoff: float | None
    kept: int
    scored: int
    pictures: int
    missing: int
    refused: int = 0
    slices: list[BothCuts] = field(default_factory=list)


def write_report(
    scores: ScoreTable | TableSource | Sequence[TableSource],
    output: str | os.PathLike[str],
    *,
    min_score: float | None = None,
    top: Top | str | None = None,
    rank_by: str | None = None,
    seed: int = 0,
    samples: int = 8,
    title: str | None = None,
    made_on: date | None = None,
    storage_options: Mapping[str, Any] | None = None,
    originals: TableSource | Sequence[TableSource] = (),
    recipe: Sequence[str] | None = None,
    per: str | None = None,
) -> ReportSummary:
    """Write one HTML page about the scores of a table: what they are like, and what a cut keeps.

    The same rows, pictures, options and seed give the same bytes: the date is that of the run, not of today.

    Args:
        scores: A score table, or what it can be made of: directories, files or URLs.
        output: The page's file.
        min_score: The cut; with neither this nor ``top`` that of `tastemaker filter`, else the best fifth. What a
            person rejected is in no number and no picture.
        top: The cut as a share or number: ``20%``, ``1000``.
        rank_by: The column or SQL expression that pictures are ranked by; None for that of the first scorer.
        seed: Of the samples.
        samples: Pictures in each row of samples, 1 to `MAX_SAMPLES`.
        title: Its heading; None for the name of the source.
        made_on: The date that it states; None for that of the latest run.
        storage_options: For URLs; see docs/remote-data.md; a table has its own.
        originals: Places that originals may be read from, beside the inputs of your own runs; a table has its own.
        recipe: Steps, as `read_recipe` returns them. The page shows what each of them drops.
        per: With ``top``, a column or SQL expression: the page shows beside each other what the cut keeps of each of
            its slices, and what the same cut in each slice keeps.

    Raises:
        ConfigurationError: There are no rows, or an option is out of its range.
    """
    if not 1 <= samples <= MAX_SAMPLES:
        raise ConfigurationError(f"samples={samples} is not between 1 and {MAX_SAMPLES}")
    if isinstance(scores, ScoreTable):
        table, places = scores, list(dict.fromkeys(os.path.dirname(source.path) for source in scores.sources))
    else:
        places = [os.fspath(place) for place in as_list(scores)]
        table = ScoreTable(places, storage_options=storage_options, originals=originals)
    top = None if top is None else parse_top(top)
    place = Place.of(output, table.storage_options)
    place.check_writable()
    if place.is_folder():
        raise ConfigurationError(f"{place} is a folder; the report is a file")
    OwnFiles.of_one_file(place).refuse_foreign(place.name)
    data = gather(
        table, min_score=min_score, top=top, rank_by=rank_by, seed=seed, samples=samples, recipe=recipe, per=per
    )
    uses = Counter(row_id for ids in data.shown() for row_id in ids)
    room = MAX_BYTES - _PAGE_BYTES - _FIGURE_BYTES * uses.total()
    with OriginalsReader(table.originals) as reader:
        thumbnails = make_thumbnails(data.pictures, uses, room, reader, usable_cores())
    page = render_page(
        **_content(data, thumbnails, samples),
        version=__version__,
        seed=seed,
        title=title or name_of(places),
        places=places,
        command=_next_command(data, places, data.options),
        per_command=_next_command(data, places, (*data.options, "--per", data.per)) if data.per else "",
        date=_spell(made_on or data.scored_on),
        provenance=[(entry.rows, _provenance(entry.entries)) for entry in table.provenance],
    )
    OwnFiles.write_one_file(place, page)
    return ReportSummary(
        path=str(place),
        bytes=len(page),
        finding=_finding(data),
        column=data.column,
        cutoff=float(data.view.scores[data.cut.place - 1]) if data.cut.kept else None,
        kept=data.cut.kept,
        scored=data.scored,
        pictures=len(thumbnails),
        missing=sum(not thumbnail.data for thumbnail in thumbnails.values()),
        refused=sum(NOT_NAMED in thumbnail.problem for thumbnail in thumbnails.values()),
        slices=data.both_cuts,
    )


def _next_command(data: ReportData, places: list[str], options: Sequence[str]) -> str:
    """Return the command that takes what passes; empty where nothing does."""
    return shlex.join(["tastemaker", "select", *places, *options, "--to", "kept"]) if data.cut.kept else ""


def _content(data: ReportData, thumbnails: dict[int, Thumbnail], samples: int) -> dict[str, Any]:
    """Return what the template names, but for what it shares with other pages."""
    make = partial(_figures, data, thumbnails)
    differences = [abs(part.difference) for kind in data.slices for part in kind.slices]
    return {
        "data": data,
        "chart": data.view.chart,
        "finding": _finding(data),
        "path": data.view.chart.draw(data.view.ascending),
        "unscored": sum(reason["images"] for reason in data.reasons),
        "farthest": max([0.05, *differences]),
        "farthest_per": max([0.05, *(abs(part.difference) for part in data.both_cuts)]),
        "most_slices": MOST_SLICES,
        "bands": [(band, _fit_row(make(band.row_ids), samples)) for band in data.bands],
        "below": make(data.below, 2),
        "above": make(data.above, 2),
        "best": make(data.best),
        "worst": make(data.worst),
    }


def _finding(data: ReportData) -> str:
    """Return the report's one sentence."""
    if not data.images:
        return "There are no images in these scores."
    if not data.scored:
        failed = "could be read" if data.failed == data.images else "has a score"
        return f"None of the {data.images:,} images {failed}."
    share = format_share(data.share) if data.cut.kept else "none"
    at = f"At {data.cut.name} you" if data.cut.name else "You"
    return f"{at} keep {share} of {data.scored:,} image{'s' if data.scored != 1 else ''}."


def _figures(
    data: ReportData, thumbnails: dict[int, Thumbnail], row_ids: Iterable[int], decimals: int = 0
) -> list[dict[str, Any]]:
    """Return pictures as the template takes them; ``decimals`` more than usual where the scores are close together."""
    figures = []
    for row_id in row_ids:
        row = data.pictures[row_id]
        file = os.path.basename(row["image_path"] or "") or row["image_id"] or "without a name"
        name = _shorten(file, _LONGEST_NAME)
        score = f"{row['score']:.{data.view.chart.decimals + decimals}f}"
        caption = _shorten(" ".join((row["caption"] or "").split()), _LONGEST_CAPTION)
        alt = caption or f"{name}, score {score}"
        figures.append(
            {"small": thumbnails[row_id], "alt": alt, "name": name, "score": score, "is_kept": row["is_kept"]}
            | {"parts": _PART.findall(name)}
        )
    return figures


def _fit_row(figures: list[dict[str, Any]], samples: int) -> list[dict[str, Any]]:
    """Return as many of the samples as fit into one row, and the first in any case."""
    room = _WIDEST_ROW * samples
    fitting: list[dict[str, Any]] = []
    for figure in figures:
        room -= figure["small"].aspect
        if fitting and room < 0:
            break
        fitting.append(figure)
    return fitting


def _shorten(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _spell(day: date) -> str:
    return f"{day.day} {day:%B %Y}"


def _provenance(entries: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what made rows by name; what the fingerprint repeats of it is there once."""
    fingerprint = entries.get("fingerprint")
    others = {name: value for name, value in entries.items() if name != "fingerprint"}
    return _flatten({**others, **(fingerprint if isinstance(fingerprint, dict) else {})})


def _flatten(entries: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return (name, value) of all entries, those of inner objects too; empty ones are left out."""
    flat: list[tuple[str, str]] = []
    for name, value in entries.items():
        if isinstance(value, dict):
            flat += _flatten(value, f"{prefix}{name}: ")
        elif value not in (None, "", [], {}):
            flat.append((f"{prefix}{name}".replace("_", " "), _shorten(str(_rounded(value)), 500)))
    return flat


def _rounded(value: Any) -> Any:  # noqa: ANN401 - as JSON has it
    """Return a value with four digits of each number with a fraction: the rows files have all."""
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
