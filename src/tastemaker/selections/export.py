"""The originals of chosen rows, written below a folder, with a list of what is in it."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tastemaker.errors import ConfigurationError
from tastemaker.imaging.folders import FolderReader
from tastemaker.imaging.image_metadata import Record, write_records
from tastemaker.imaging.keys import MAX_IMAGE_BYTES, split_key
from tastemaker.progress import Progress
from tastemaker.scores.copies import Copies, FileCopies, LinkCopies, Members, TarCopies, is_too_long
from tastemaker.scores.files import read_rows
from tastemaker.scores.schema import COPY_FIELDS, original_name, printable
from tastemaker.scores.sources import (
    NEEDED_COLUMNS,
    Original,
    OriginalsReader,
    Part,
    SkippedError,
    find_original,
)
from tastemaker.scores.table import ScoreTable
from tastemaker.selections.rating import StarEmbedder
from tastemaker.selections.selection import Chosen
from tastemaker.selections.steps import FunnelStep
from tastemaker.storage import STATE_FOLDER
from tastemaker.storage.owned import OwnFiles
from tastemaker.storage.place import Place

FORMS = ("webdataset", "folder", "links")
LISTING = f"{STATE_FOLDER}/selected.parquet"
SKIPPED = f"{STATE_FOLDER}/skipped.jsonl"
UNRATED = f"{STATE_FOLDER}/unrated.jsonl"

_STEM = "images"


@dataclass
class SelectSummary:
    """What a selection came to.

    Attributes:
        output: Where it lies.
        kind: ``webdataset``, ``folder``, ``links``, ``manifest``, ``uids`` or ``pdf``.
        rows: Rows of the table.
        chosen: Rows that were meant.
        written: Those of them that were written.
        skipped: ``changed``, ``missing`` or ``refused`` -> originals that were not copied; ``sidecar`` -> sidecars of
            copied ones that cannot be read; ``not_shown`` -> pictures whose places in a PDF have the reason. All are
            listed in ``skipped_file``.
        checked_by_size_only: Written originals whose rows have no hash, or that were linked.
        ranked_by: What the images are ranked by.
        lowest: Its lowest value among the chosen; None where there is none, or a recipe chose.
        bytes_written: Of originals and sidecars.
        skipped_file: Empty where nothing was skipped.
        ratings: ``embedded``, ``already_rated``, ``without_stars``, ``no_jpeg`` or ``failed`` -> copies, where stars
            were to be embedded.
        skipped_first: Why the first of the skipped was, with its name.
        moved_aside: Folder -> files of an earlier selection that were changed, or whose originals are gone, and lie
            there now.
        funnel: What each step of a recipe did; empty where there is no recipe.
    """

    output: str
    kind: str
    rows: int
    chosen: int
    ranked_by: str = ""
    written: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    checked_by_size_only: int = 0
    lowest: float | None = None
    bytes_written: int = 0
    skipped_file: str = ""
    ratings: dict[str, int] = field(default_factory=dict)
    skipped_first: str = ""
    moved_aside: dict[str, int] = field(default_factory=dict)
    funnel: list[FunnelStep] = field(default_factory=list)


class Export:
    """One writing of originals.

    Args:
        table: The rows.
        chosen: Those whose originals are meant.
        summary: Of the selection, whose kind is one of `FORMS`. What becomes of the originals is noted in it.
        images_per_tar: Samples in a tar at most.
        embedder: Puts stars into the copies.
        on_progress: Called after each image. Bytes are those of the images, without sidecars.
    """

    def __init__(
        self,
        table: ScoreTable,
        chosen: Chosen,
        summary: SelectSummary,
        *,
        images_per_tar: int,
        embedder: StarEmbedder | None,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._chosen, self._form, self._summary = chosen, summary.kind, summary
        self._images_per_tar, self._named = images_per_tar, table.originals
        self._embedder, self._on_progress = embedder, on_progress
        sizes = np.nan_to_num(table.values("size")[chosen.rows])
        self._bytes_total = int(sizes[sizes <= MAX_IMAGE_BYTES].sum())  # larger ones are refused
        first = table.take(chosen.rows[:1], ["image_path"])["image_path"].to_pylist()
        self._is_remote = Place.at((first or [""])[0] or "").local_path is None
        self._folders = FolderReader(self._named.options)
        self._records: dict[str, list[Record]] = {}  # name of a metadata file in the output -> its records
        self._skipped: list[dict[str, Any]] = []
        self._done = self._bytes_done = 0

    @property
    def bytes_to_write(self) -> int:
        """Bytes of the images, without sidecars; 0 of links."""
        return 0 if self._form == "links" else self._bytes_total

    def check(self, own: OwnFiles) -> None:
        """Look at where the originals lie, and at the names that the copies will have, before anything is written.

        Args:
            own: What was written to the folder before; `OwnFiles.list_there` has been called.

        Raises:
            ConfigurationError: An original lies in the folder, or has no file to link to; or a file of somebody else is
                in the way.
        """
        inside = _Inside(own.folder)
        has_foreign = bool(own.foreign())
        for _, part in self._chosen.iterate():
            for row in part.select([n for n in NEEDED_COLUMNS if n in part.column_names]).to_pylist():
                path = original_name(row.get("shard") or row["image_path"] or "")
                if self._form == "links" and (row.get("shard") or Place.at(path).local_path is None):
                    raise ConfigurationError(f"{path}: there is no file of an image to link to; use --as folder")
                if path in self._named and inside(path):
                    raise ConfigurationError(
                        f"{path} is one of the chosen originals and lies in the output; choose another"
                    )
                if has_foreign and self._form != "webdataset":
                    found = find_original(row, self._named)
                    if not isinstance(found, SkippedError):
                        record = self._record_of(found.parts[0])
                        for name in [*(member.name for member in found.parts), *([record.file] if record else ())]:
                            own.refuse_foreign(name)
        if self._form == "webdataset":
            for name in filter(re.compile(rf"{_STEM}-\d+\.tar").fullmatch, own.foreign()):
                own.refuse_foreign(name)

    def write(self, own: OwnFiles) -> None:
        """Write all samples below the folder, a row for each with where it is, and what was skipped.

        Copies of an earlier selection that are none of this one go.

        Args:
            own: As in `check`.

        Raises:
            ConfigurationError: A file of somebody else is in the way.
            OSError: The disk is full.
        """
        folder, copies = own.folder, self._make_copies(own)
        own.keep = _Orphans(folder / LISTING)
        try:
            with (folder / LISTING).draft() as draft:
                self._write_all(copies, draft.path)
                copies.finish()
                own.write({name: write_records(name, records) for name, records in self._records.items()})
                own.finish()
        except BaseException:
            copies.discard()
            raise
        _write_lines(folder / SKIPPED, self._skipped)
        if self._skipped:
            self._summary.skipped_first = self._skipped[0]["detail"]
            self._summary.skipped_file = f"{self._summary.output.rstrip('/')}/{SKIPPED}"
            self._summary.skipped = dict(sorted(Counter(line["problem"] for line in self._skipped).items()))
        if self._embedder is not None:
            self._summary.ratings = dict(sorted(self._embedder.counts.items()))
            problems = self._embedder.problems.items()
            _write_lines(folder / UNRATED, [{"image_path": path, "problem": problem} for path, problem in problems])

    def _write_all(self, copies: Copies, listing: os.PathLike[str]) -> None:
        """Copy the originals, and write the rows of those that were."""
        schema = self._chosen.schema
        for column in COPY_FIELDS:
            schema = schema if column[0] in schema.names else schema.append(pa.field(*column))
        with (
            open(listing, "wb") as file,
            pq.ParquetWriter(file, schema, compression="zstd") as writer,
            OriginalsReader(
                self._named, remote=self._is_remote, with_new_xmp=True, for_links=self._form == "links"
            ) as reader,
        ):
            for numbers, part in self._chosen.iterate():
                writer.write_table(self._copy(numbers.tolist(), part, reader, copies).select(schema.names))

    def _make_copies(self, own: OwnFiles) -> Copies:
        if self._form == "webdataset":
            return TarCopies(own, _STEM, self._images_per_tar)
        return FileCopies(own) if self._form == "folder" else LinkCopies(own)

    def _copy(self, numbers: list[int], part: pa.Table, reader: OriginalsReader, copies: Copies) -> pa.Table:
        """Copy the originals of some rows; return the rows of those that were."""
        wanted = [name for name in (*NEEDED_COLUMNS, "rating") if name in part.column_names]
        rows = part.select(wanted).to_pylist()
        placed: list[tuple[str, str] | None] = []
        for row_id, row, original in zip(numbers, rows, reader.read_rows(rows), strict=True):
            try:
                if isinstance(original, SkippedError):
                    raise original
                placed.append(self._add(row_id, row, original, copies))
            except SkippedError as problem:
                self._skip(row_id, row, problem.kind, str(problem))
                placed.append(None)
            self._report(row["size"] or 0)
        return _with_places(part, placed)

    def _add(self, row_id: int, row: dict[str, Any], found: Original, copies: Copies) -> tuple[str, str]:
        members: Members = found.members
        long = None if self._form == "webdataset" else next(filter(is_too_long, members), None)
        if long is not None:
            raise SkippedError("refused", f"the name {long[:40]!r}...", "is too long for a file; tars take it")
        if self._embedder is not None:
            members = self._embedder.embed(row_id, row, members)
        image = found.parts[0]
        record = self._record_of(image)
        if isinstance(copies, TarCopies):
            members = members if record is None else _with_record(members, record)
            place = copies.add(members, image.shard)
        else:
            place = copies.add(members, {part.name: part.source for part in found.parts})
            if record is not None:
                self._records.setdefault(place[1].removesuffix(image.name) + record.file, []).append(record)
        for problem in copies.left_out.values():
            self._skip(row_id, row, "sidecar", problem)
        self._summary.written += 1
        if self._form != "links":
            copied = (len(data) for name, data in members.items() if name not in copies.left_out)
            self._summary.bytes_written += sum(copied)
        self._summary.checked_by_size_only += not found.xxh3 or self._form == "links"
        return place

    def _record_of(self, image: Part) -> Record | None:
        """Return what a metadata file of an image folder says of a loose picture now."""
        if image.shard or not image.path.endswith(image.name):
            return None
        try:
            return self._folders.record_of(image.path, image.path.removesuffix(image.name).rstrip("/"))
        except OSError:  # it was there when the pictures were scored; they are copied without it
            return None

    def _skip(self, row_id: int, row: dict[str, Any], kind: str, detail: str) -> None:
        where = {"row_id": row_id, "image_id": row["image_id"], "image_path": row["image_path"]}
        self._skipped.append({**where, "problem": kind, "detail": detail})

    def _report(self, size: int) -> None:
        self._done += 1
        self._bytes_done += size
        if self._on_progress is not None:
            self._on_progress(Progress(self._done, self._bytes_done, self._bytes_total, len(self._chosen.rows)))


def _with_record(members: Members, record: Record) -> Members:
    """Return the members of a sample with what a metadata file says of it, where they do not say it themselves."""
    stem = os.path.splitext(next(iter(members)))[0]
    there = {name.rpartition(".")[2].lower() for name in members}
    added = {f"{stem}.{ending}": text for ending, text in record.sidecars().items() if ending not in there}
    return {**members, **added}


class _Inside:
    """Tells whether a file lies in a folder, however its path is spelled or linked."""

    def __init__(self, folder: Place) -> None:
        path = folder.local_path
        self._folder = f"{folder}/" if path is None else os.path.join(os.path.realpath(path), "")
        self._real = cache(os.path.realpath)

    def __call__(self, path: str) -> bool:
        place = Place.at(path)
        if place.local_path is None:
            return str(place).startswith(self._folder)
        return os.path.join(self._real(os.path.dirname(path)), "").startswith(self._folder)


class _Orphans:
    """Names of copies whose originals are gone, each with what else has its key, as the last listing tells them.

    Args:
        listing: The rows of what was copied.
    """

    def __init__(self, listing: Place) -> None:
        self._listing = listing

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and _key(name) in self._keys

    @cached_property
    def _keys(self) -> set[str]:
        if not self._listing.exists():
            return set()
        is_there = cache(lambda path: Place.at(path).local_path is None or os.path.exists(path))
        try:
            rows = read_rows(self._listing, ["image_path", "shard", "tar_file"]).to_pylist()
            return {
                _key(original_name(row["tar_file"]))
                for row in rows
                if not is_there(original_name(row["shard"] or row["image_path"]))
            }
        except (pa.ArrowException, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(f"{self._listing} is no list of copies; move it away") from error


def _key(name: str) -> str:
    return split_key(name)[0]


def _write_lines(place: Place, rows: list[dict[str, Any]]) -> None:
    if rows:
        place.write("".join(json.dumps(row) + "\n" for row in rows).encode("ascii"))
    else:
        place.delete()


def _with_places(part: pa.Table, placed: list[tuple[str, str] | None]) -> pa.Table:
    for index, (name, kind) in enumerate(COPY_FIELDS):
        values = pa.array([None if place is None else printable(place[index]) for place in placed], kind)
        column = part.schema.get_field_index(name)
        part = part.append_column(name, values) if column < 0 else part.set_column(column, name, values)
    return part.filter(pa.array([place is not None for place in placed], pa.bool_()))
