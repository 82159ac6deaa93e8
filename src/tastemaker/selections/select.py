"""A selection of a score table, written: originals byte for byte, links to them, or a list."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from tastemaker.checks import check_choice, check_positive
from tastemaker.errors import ConfigurationError, TastemakerError
from tastemaker.progress import Progress
from tastemaker.scores.layout import read_note
from tastemaker.scores.table import ScoreTable
from tastemaker.selections.contact import SHEETS, Grid, write_contact_sheet
from tastemaker.selections.edits import TakenBack
from tastemaker.selections.export import FORMS, LISTING, Export, SelectSummary as SelectSummary
from tastemaker.selections.lists import MANIFESTS, UIDS, write_manifest, write_uids
from tastemaker.selections.rating import StarEmbedder, StarOptions
from tastemaker.selections.selection import Chosen, Selection, choose_rows
from tastemaker.storage import SELECTION_FILE, STATE_FOLDER
from tastemaker.storage.drafts import explain_full_disk
from tastemaker.storage.owned import ASIDE_FOLDER, OwnFiles
from tastemaker.storage.place import Lock, Place

KINDS = (*FORMS, "manifest", "uids", "pdf")

RECORD = f"{STATE_FOLDER}/{SELECTION_FILE}"
"""In a folder that a selection wrote: what was asked for, and whether all of it is there."""

_LOCK = f"{STATE_FOLDER}/selection.lock"


def select_images(
    table: ScoreTable,
    output: str | os.PathLike[str] | Place,
    selection: Selection,
    *,
    kind: str = "webdataset",
    images_per_tar: int = 1000,
    overwrite: bool = False,
    stars: StarOptions | None = None,
    grid: Grid | None = None,
    storage_options: Mapping[str, Any] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> SelectSummary:
    """Write what is selected. The same call gives the same bytes.

    Each file is seen whole or not at all. The folder is complete once ``_tastemaker/selection.json`` says so, which is
    written last; a call that was killed is done again by the same call. Files that an earlier selection wrote there are
    replaced or deleted, and no others: see `tastemaker.storage.owned`.

    Args:
        table: The rows.
        output: A folder, or a URL; for ``manifest`` a .parquet, .csv or .jsonl file, for ``uids`` a .txt or .npy file,
            for ``pdf`` a .pdf file.
        selection: Which rows.
        kind: One of `KINDS`.
        images_per_tar: Samples in a tar at most.
        overwrite: Replace another selection.
        stars: Put star ratings into the JPEGs of ``webdataset`` and ``folder``; None to copy them as they are.
        grid: How many pictures a page of a ``pdf`` has; None for four columns and five rows.
        storage_options: For an output that is a URL; None for the table's.
        on_progress: Called after each image. What it raises ends the work; of a new folder nothing is left behind.

    Raises:
        ConfigurationError: Options make no sense, the output is there and is not to be replaced, or another process
            is writing to it.
        DiskFullError: There is no room.
    """
    place = Place.of(output, table.storage_options if storage_options is None else storage_options)
    place.check_writable()
    _check_options(kind, place, images_per_tar, stars)
    selection = replace(selection, rank_by=selection.rank_by or table.ranking)
    chosen = choose_rows(table, selection)
    summary = SelectSummary(str(output), kind, len(table), len(chosen), selection.rank_by or "", funnel=chosen.funnel)
    summary.lowest = None if selection.recipe is not None else _lowest(table, chosen, selection)
    with explain_full_disk(place):
        if kind in FORMS:
            export = Export(
                table,
                chosen,
                summary,
                images_per_tar=images_per_tar,
                embedder=StarEmbedder(table, selection.rank_by, stars) if stars else None,
                on_progress=on_progress,
            )
            request = _request(table, selection, kind, images_per_tar, stars)
            own = _write_originals(place, export, request, overwrite=overwrite)
        else:
            own, problems = _write_list(table, chosen, place, summary, grid or Grid(), on_progress, overwrite=overwrite)
            summary.written = len(chosen) - len(problems)
            if problems:
                summary.skipped, summary.skipped_file = {"not_shown": len(problems)}, str(place)
                summary.skipped_first = ": ".join(next(iter(problems.items())))
    if own.moved_aside:
        summary.moved_aside = {str(own.folder / ASIDE_FOLDER): len(own.moved_aside)}
    return summary


def take_back_selection(
    output: str | os.PathLike[str] | Place, *, storage_options: Mapping[str, Any] | None = None, dry_run: bool = False
) -> TakenBack:
    """Delete what `select_images` wrote to a place: copies, links, tars or a list, and its notes.

    A file that somebody changed since stays where it is, and so do all that no selection wrote. Where there is nothing
    to take back, nothing happens, so that the same call goes on where a killed one stopped.

    Args:
        output: The folder, file or URL.
        storage_options: For a URL.
        dry_run: Delete nothing.

    Raises:
        ConfigurationError: Another process is writing there.
    """
    place = Place.of(output, storage_options)
    is_folder = place.is_folder()
    own = OwnFiles(place) if is_folder else OwnFiles.of_one_file(place)
    # The lock is what a killed process left last, and beside a single file an unfinished record.
    is_ours = own.is_known or ((place / _LOCK).exists() if is_folder else own.has_record)
    if not is_ours or dry_run:
        files, others = own.take_back(dry_run=True)
    else:
        with _only_writer(place) if is_folder else nullcontext():
            if is_folder:
                place.remove_drafts()
                for note in (LISTING, RECORD):
                    (place / note).delete()
            files, others = own.take_back()
        if is_folder:
            _remove_if_empty(place / STATE_FOLDER, place)
    left = {str(own.folder / name): "somebody changed it since" for name in others}
    return TakenBack(files, left, dry_run)


@contextmanager
def _only_writer(place: Place) -> Iterator[Lock]:
    """Keep other processes from writing to a folder until the block ends."""
    lock = (place / _LOCK).lock()
    if not lock.acquire():
        raise ConfigurationError(
            f"another process is writing to {place} ({lock.holder()}): wait for it, or choose another"
        )
    try:
        yield lock
    finally:
        lock.release()
        (place / _LOCK).delete()


def _write_originals(place: Place, export: Export, request: dict[str, Any], *, overwrite: bool) -> OwnFiles:
    _check_folder(_look_at(place), request, overwrite=overwrite)  # before a lock makes anything there
    place.make_folder()
    try:
        with _only_writer(place) as lock:
            place.remove_drafts()
            own = _look_at(place)
            _check_folder(own, request, overwrite=overwrite)
            export.check(own)
            _check_room(place, export)
            _write_record(place, request, "unfinished")
            try:
                export.write(own)
            except BaseException:
                own.discard()
                if not own.is_known:
                    (place / RECORD).delete()
                raise
            lock.check()
            _write_record(place, request, "finished")
            return own
    finally:
        _remove_if_empty(place / STATE_FOLDER, place)


def _remove_if_empty(*folders: Place) -> None:
    """Delete folders of this machine in which nothing is: of a new selection that fails nothing is left behind."""
    for path in filter(None, (folder.local_path for folder in folders)):
        with suppress(OSError):
            path.rmdir()


def _look_at(place: Place) -> OwnFiles:
    own = OwnFiles(place)
    own.list_there()
    return own


def _check_folder(own: OwnFiles, request: dict[str, Any], *, overwrite: bool) -> None:
    """Raise `ConfigurationError` unless a folder may be written: it is empty, or a selection wrote it and may again."""
    place = own.folder
    before = read_note(place / RECORD) if (place / RECORD).is_file() else None
    if before is None and own.foreign():
        raise ConfigurationError(
            f"{place} is not empty, and no selection wrote it ({own.foreign()[0]} is there, for example): choose "
            "another folder, or empty it yourself"
        )
    if before and before.get("state") == "finished" and before.get("request") != request and not overwrite:
        raise ConfigurationError(f"{place} holds another selection; choose another folder, or say --overwrite")


def _check_room(place: Place, export: Export) -> None:
    """Raise `TastemakerError` where the images need more than is free."""
    path = place.local_path
    free = shutil.disk_usage(path).free if path is not None else None
    if free is not None and export.bytes_to_write > free:
        needed = f"the images have {export.bytes_to_write / 1e6:,.3f} MB, and {free / 1e6:,.3f} MB are free"
        raise TastemakerError(f"no room in {place}: {needed}")


def _write_record(place: Place, request: dict[str, Any], state: str) -> None:
    (place / RECORD).write((json.dumps({"state": state, "request": request}, indent=2) + "\n").encode())


def _check_options(kind: str, place: Place, images_per_tar: int, stars: StarOptions | None) -> None:
    check_choice("kind", kind, KINDS)
    check_positive("images_per_tar", images_per_tar)
    if not place.name:
        raise ConfigurationError(f"{place} is no place for an output; name a file or a folder")
    if stars and kind not in ("webdataset", "folder"):
        raise ConfigurationError(f"stars go into copies of originals, and {kind} makes none; use --as folder")
    if kind == "links" and place.local_path is None:
        raise ConfigurationError(
            f"{place}: a link leads to a file of this machine, so there are none at a URL; use --as folder"
        )
    suffix = os.path.splitext(place.name)[1]
    wanted = {"manifest": MANIFESTS, "uids": UIDS, "pdf": SHEETS}.get(kind)
    if wanted and suffix not in wanted:
        raise ConfigurationError(f"{place.name}: a {kind} file ends with {', '.join(wanted)}")
    if kind != "manifest" and suffix in MANIFESTS:
        raise ConfigurationError(f"{place.name} is the name of a manifest, and {kind} is none; say --as manifest")
    if wanted and place.is_folder():
        raise ConfigurationError(f"{place} is a folder; a {kind} is a file")
    if not wanted and place.is_file():
        raise ConfigurationError(f"{place} is a file; {kind} needs a folder")


def _lowest(table: ScoreTable, chosen: Chosen, selection: Selection) -> float | None:
    values = table.values(selection.rank_by)[chosen.rows]
    values = values[~np.isnan(values)]
    return float(values.min()) if len(values) else None


def _write_list(
    table: ScoreTable,
    chosen: Chosen,
    place: Place,
    summary: SelectSummary,
    grid: Grid,
    on_progress: Callable[[Progress], None] | None,
    *,
    overwrite: bool,
) -> tuple[OwnFiles, dict[str, str]]:
    """Write a single file; return the record of it, and path -> why of pictures that it cannot show."""
    own, problems = OwnFiles.of_one_file(place), {}
    with own.drafted(place.name) as draft:
        if summary.kind == "manifest":
            write_manifest(draft.path, place.name, (part for _, part in chosen.iterate()), chosen.schema)
        elif summary.kind == "pdf":
            problems = write_contact_sheet(
                draft.path, place.name, table, chosen.rows, summary.ranked_by, grid, on_progress
            )
        else:
            write_uids(draft.path, place.name, table.iterate(chosen.rows, ["image_id", "image_path", "json"]))
        if not overwrite and own.differs(place.name, draft):
            raise ConfigurationError(f"{place} is there with other content; choose another, or say --overwrite")
    return own, problems


def _request(
    table: ScoreTable, selection: Selection, kind: str, images_per_tar: int, stars: StarOptions | None
) -> dict[str, Any]:
    """Return what was asked for, as JSON takes it."""
    asked = asdict(selection) | {"top": str(selection.top) if selection.top else None}
    if selection.row_ids is not None:
        ids = np.asarray(selection.row_ids, np.int64)
        asked["row_ids"] = f"{len(ids)} rows, sha256 {hashlib.sha256(ids.tobytes()).hexdigest()}"
    scores = [source.path.encode("utf-8", "backslashreplace").decode() for source in table.sources]
    request = {"kind": kind, "images_per_tar": images_per_tar, "selection": asked, "scores": scores}
    return json.loads(json.dumps(request | {"stars": asdict(stars) if stars else None}))  # type: ignore[no-any-return]
