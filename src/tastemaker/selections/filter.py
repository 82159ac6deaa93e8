"""Score, then select: what `tastemaker filter` does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tastemaker.errors import ConfigurationError
from tastemaker.progress import Progress
from tastemaker.runs.options import RunMode, RunOptions
from tastemaker.runs.run import run_scoring
from tastemaker.runs.summary import RunSummary
from tastemaker.scores.cutoff import Top, parse_top
from tastemaker.scores.layout import KEPT_FOLDER, read_note, results_of
from tastemaker.scores.table import ScoreTable
from tastemaker.selections.select import RECORD, SelectSummary, select_images
from tastemaker.selections.selection import Selection
from tastemaker.storage.place import Place

AUTO = "auto"
"""Tars where any of the input is a tar, else a folder; of embeddings a manifest, for they have no originals."""


@dataclass(frozen=True)
class FilterSummary:
    """What became of the images, and of the originals of those that were kept; None where no image has a row."""

    run: RunSummary
    selection: SelectSummary | None


def filter_images(
    inputs: str | Path | Sequence[str | Path],
    output_dir: str | Path,
    selection: Selection,
    options: RunOptions | None = None,
    mode: RunMode | None = None,
    *,
    kind: str = AUTO,
    images_per_tar: int = 1000,
    on_scored: Callable[[Progress], None] | None = None,
    on_selected: Callable[[Progress], None] | None = None,
) -> FilterSummary:
    """Score images, then copy the originals of those that pass to ``output_dir/kept``.

    The rows in ``output_dir/rows`` are those of `run_scoring`. They know nothing of the cut, so another one takes
    seconds. ``kept`` always holds what the last call kept.

    Args:
        inputs: Files, folders, globs and URLs.
        output_dir: Directory of the results, or a URL.
        selection: Which images pass, of those of the inputs.
        options: How they are scored; None for the defaults.
        mode: How to treat rows that are there; None for the defaults.
        kind: How originals are written: ``webdataset``, ``folder``, ``links`` or ``auto``.
        images_per_tar: Samples in a tar at most.
        on_scored: Called after each batch, in a thread of the run.
        on_selected: Called after each image that is copied.

    Raises:
        ConfigurationError: As `run_scoring` and `select_images` raise it; or a slice is to be filtered.
    """
    options, mode = options or RunOptions(), mode or RunMode()
    if mode.part is not None:
        raise ConfigurationError(
            f"this run does slice {mode.part}, and only all slices together can be filtered. Score the slices first, "
            "then filter without slices: nothing is scored twice"
        )
    selection = replace(selection, rank_by=options.ranking)
    output = Place.of(output_dir, options.storage_options)
    summary = run_scoring(inputs, output_dir, options, mode, on_progress=on_scored)
    if not summary.rows_files:
        return FilterSummary(summary, None)
    table = ScoreTable(summary.rows_files, storage_options=options.storage_options, originals=inputs)
    kind = _choose_kind(table) if kind == AUTO else kind
    to = output / (f"{KEPT_FOLDER}.parquet" if kind == "manifest" else KEPT_FOLDER)
    selected = select_images(
        table, to, selection, kind=kind, images_per_tar=images_per_tar, overwrite=True, on_progress=on_selected
    )
    return FilterSummary(summary, selected)


def _choose_kind(table: ScoreTable) -> str:
    asked = "count(size) AS originals, count(shard) AS in_shards, count(*) FILTER (status = 'kept') AS passed"
    counted = table.query(f"SELECT {asked} FROM rows").to_pylist()[0]
    if counted["passed"] and not counted["originals"]:
        return "manifest"
    return "webdataset" if counted["in_shards"] else "folder"


def find_kept_cut(table: ScoreTable, column: str) -> tuple[float | None, Top | None]:
    """Return the cut that the last `filter_images` made by a column, as score or as share; two None for none."""
    folders = {source.place.parent for source in table.sources}
    cuts = {cut for folder in folders if (cut := _read_cut(folder, column)) is not None}
    min_score, top = cuts.pop() if len(cuts) == 1 else (None, None)
    return min_score, parse_top(top) if top else None


def _read_cut(rows: Place, column: str) -> tuple[float | None, str | None] | None:
    """Return the cut of the copies that lie beside a folder of rows, or a folder in it."""
    record = results_of(rows) / KEPT_FOLDER / RECORD
    try:
        asked = read_note(record)["request"]["selection"]
        if asked["rank_by"] != column:
            return None
        score, top = asked["min_score"], asked["top"]
        return None if score is None else float(score), None if top is None else str(top)
    except (KeyError, TypeError, ValueError):  # somebody else wrote it
        return None
