"""A selection of a score table, written: originals byte for byte, links to them, or a list."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tastemaker.checks import check_choice, check_positive
from tastemaker.errors import ConfigurationError, TastemakerError
from tastemaker.scores.table import ScoreTable
from tastemaker.selections.export import FORMS, SKIPPED, Export, SelectProgress as SelectProgress
from tastemaker.selections.lists import MANIFESTS, UIDS, write_manifest, write_uids
from tastemaker.selections.outputs import RECORD, check_folder, hold_output
from tastemaker.selections.rating import StarEmbedder, StarOptions
from tastemaker.selections.selection import Chosen, Selection, choose_rows
from tastemaker.selections.url_outputs import UrlOutput, hold_url
from tastemaker.storage import is_remote, output_path

KINDS = (*FORMS, "manifest", "uids")

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass
class SelectSummary:
    """What a selection came to.

    Attributes:
        output: Where it lies.
        kind: ``webdataset``, ``folder``, ``links``, ``manifest`` or ``uids``.
        rows: Rows of the table.
        chosen: Rows that were meant.
        written: Those of them that were written.
        skipped: ``changed``, ``missing`` or ``refused`` -> originals that were not copied, listed in ``skipped_file``.
        checked_by_size_only: Written originals whose rows have no hash, or that were linked.
        lowest: The lowest value of the ranking column among the chosen; None where there is none.
        bytes_written: Of originals and sidecars.
        skipped_file: Empty where nothing was skipped.
        ratings: ``embedded``, ``already_rated``, ``without_stars``, ``no_jpeg`` or ``failed`` -> copies, where stars
            were to be embedded.
        skipped_first: Why the first of the skipped was, with its name.
    """

    output: str
    kind: str
    rows: int
    chosen: int
    written: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    checked_by_size_only: int = 0
    lowest: float | None = None
    bytes_written: int = 0
    skipped_file: str = ""
    ratings: dict[str, int] = field(default_factory=dict)
    skipped_first: str = ""


def select_images(
    table: ScoreTable,
    output: str | os.PathLike[str],
    selection: Selection,
    *,
    kind: str = "webdataset",
    images_per_tar: int = 1000,
    overwrite: bool = False,
    stars: StarOptions | None = None,
    storage_options: Mapping[str, Any] | None = None,
    on_progress: Callable[[SelectProgress], None] | None = None,
) -> SelectSummary:
    """Write what is selected. The same call gives the same bytes; nothing is visible before all of it is there.

    A folder at a URL is filled object by object, each seen whole or not at all; it is complete once
    ``_tastemaker/selection.json`` is there, which is written last.

    Args:
        table: The rows.
        output: A folder, or a URL; for ``manifest`` a .parquet, .csv or .jsonl file, for ``uids`` a .txt or .npy file.
        selection: Which rows.
        kind: One of `KINDS`.
        images_per_tar: Samples in a tar at most.
        overwrite: Replace another selection.
        stars: Put star ratings into the JPEGs of ``webdataset`` and ``folder``; None to copy them as they are.
        storage_options: For originals and outputs that are URLs; None for the table's.
        on_progress: Called after each image. What it raises ends the work, and nothing is left behind.

    Raises:
        ConfigurationError: Options make no sense, the output is there and is not to be replaced, or another process
            is writing to it.
        TastemakerError: The disk is full.
    """
    options = dict(table.storage_options if storage_options is None else storage_options)
    path = output_path(str(output), options) if is_remote(str(output)) else Path(output).absolute()
    _check_options(kind, path, images_per_tar, stars)
    embedder = StarEmbedder(table, selection.rank_by, stars) if stars else None
    chosen = choose_rows(table, selection)
    summary = SelectSummary(str(output), kind, len(table), len(chosen), lowest=_lowest(table, chosen, selection))
    if kind not in FORMS:
        with _explain_no_room(path):
            _write_list(table, chosen, path, kind, overwrite=overwrite)
        summary.written = len(chosen)
        return summary
    export = Export(
        table,
        chosen,
        kind,
        path,
        images_per_tar=images_per_tar,
        storage_options=options,
        embedder=embedder,
        on_progress=on_progress,
    )
    record = _record(table, selection, kind, images_per_tar, stars)
    with _explain_no_room(path):
        _write_originals(export, path, record, overwrite=overwrite)
    return _add_counts(summary, export)


def _write_originals(export: Export, path: Path, record: str, *, overwrite: bool) -> None:
    if is_remote(str(path)):
        with hold_url(path, is_folder=True) as place:
            place.begin(record, overwrite=overwrite)
            export.write(path)
            place.finish(record, export.wrote)
        return
    with hold_output(path) as pending:
        check_folder(path, record, overwrite=overwrite)
        export.check_room(path.parent)
        export.write(pending.draft)
        (pending.draft / RECORD).write_text(record)
        pending.commit()


@contextmanager
def _explain_no_room(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise TastemakerError(f"no room left for {path} ({error.strerror}); nothing was kept of it") from error


def _check_options(kind: str, path: Path, images_per_tar: int, stars: StarOptions | None) -> None:
    check_choice("kind", kind, KINDS)
    check_positive("images_per_tar", images_per_tar)
    if stars and kind not in ("webdataset", "folder"):
        raise ConfigurationError(f"stars go into copies of originals, and {kind} makes none; use --as folder")
    if kind == "links" and is_remote(str(path)):
        raise ConfigurationError(
            f"{path}: a link leads to a file of this machine, so there are none at a URL; use --as folder"
        )
    wanted = {"manifest": MANIFESTS, "uids": UIDS}.get(kind)
    if wanted and path.suffix not in wanted:
        raise ConfigurationError(f"{path.name}: a {kind} file ends with {', '.join(wanted)}")
    if kind != "manifest" and path.suffix in MANIFESTS:
        raise ConfigurationError(f"{path.name} is the name of a manifest, and {kind} is none; say --as manifest")
    if wanted and not is_remote(str(path)) and path.is_dir():
        raise ConfigurationError(f"{path} is a folder; a {kind} is a file")


def _lowest(table: ScoreTable, chosen: Chosen, selection: Selection) -> float | None:
    values = table.values(selection.rank_by)[chosen.rows]
    values = values[~np.isnan(values)]
    return float(values.min()) if len(values) else None


def _write_list(table: ScoreTable, chosen: Chosen, path: Path, kind: str, *, overwrite: bool) -> None:
    with hold_url(path, is_folder=False) if is_remote(str(path)) else hold_output(path) as pending:
        if kind == "manifest":
            write_manifest(pending.draft, (part for _, part in chosen.iterate()), chosen.schema)
        else:
            write_uids(pending.draft, table.iterate(chosen.rows, ["image_id", "image_path", "json"]))
        if isinstance(pending, UrlOutput):
            pending.publish_file(overwrite=overwrite)
            return
        if path.exists() and not overwrite and path.read_bytes() != pending.draft.read_bytes():
            raise ConfigurationError(f"{path} is there with other content; choose another, or say --overwrite")
        pending.commit()


def _add_counts(summary: SelectSummary, export: Export) -> SelectSummary:
    counts = export.counts
    summary.written, summary.bytes_written = counts.written, counts.bytes_written
    summary.checked_by_size_only = counts.checked_by_size_only
    summary.skipped, summary.ratings = dict(sorted(counts.skipped.items())), dict(sorted(counts.ratings.items()))
    summary.skipped_first = export.skipped[0]["detail"] if export.skipped else ""
    summary.skipped_file = f"{summary.output.rstrip('/')}/{SKIPPED}" if counts.skipped else ""
    return summary


def _record(table: ScoreTable, selection: Selection, kind: str, images_per_tar: int, stars: StarOptions | None) -> str:
    """Return what was asked for, as JSON: the same request has the same text."""
    asked = asdict(selection) | {"top": str(selection.top) if selection.top else None}
    if selection.row_ids is not None:
        ids = np.asarray(selection.row_ids, np.int64)
        asked["row_ids"] = f"{len(ids)} rows, sha256 {hashlib.sha256(ids.tobytes()).hexdigest()}"
    scores = [source.path.encode("utf-8", "backslashreplace").decode() for source in table.sources]
    request = {"kind": kind, "images_per_tar": images_per_tar, "selection": asked, "scores": scores}
    return json.dumps(request | {"stars": asdict(stars) if stars else None}, indent=2) + "\n"
