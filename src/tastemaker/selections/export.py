"""The originals of chosen rows, written below a folder, with a list of what is in it."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tastemaker.errors import ConfigurationError, TastemakerError
from tastemaker.scores.files import RowsFile, is_too_long, write_whole
from tastemaker.scores.schema import printable
from tastemaker.scores.sources import NEEDED_COLUMNS, FoundOriginal, Original, OriginalsReader, SkippedError
from tastemaker.scores.table import ScoreTable
from tastemaker.selections.copies import Copies, FolderCopies, LinkCopies, TarCopies, find_links
from tastemaker.selections.rating import StarEmbedder
from tastemaker.selections.selection import Chosen
from tastemaker.selections.url_outputs import UrlCopies
from tastemaker.storage import is_remote, public_url

FORMS = ("webdataset", "folder", "links")
LISTING = "_tastemaker/selected.parquet"
SKIPPED = "_tastemaker/skipped.jsonl"
UNRATED = "_tastemaker/unrated.jsonl"


@dataclass(frozen=True)
class SelectProgress:
    """How far a selection is; bytes are those of the images, without sidecars."""

    images: int
    bytes_done: int
    bytes_total: int


@dataclass
class ExportCounts:
    """What became of the chosen images.

    Attributes:
        written: Images that are in the folder now.
        bytes_written: Of them and their sidecars.
        checked_by_size_only: Written images whose rows have no hash, or that were linked.
        skipped: ``changed``, ``missing`` or ``refused`` -> images.
        ratings: ``embedded``, ``already_rated``, ... -> images, where stars were asked for.
    """

    written: int = 0
    bytes_written: int = 0
    checked_by_size_only: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    ratings: Counter[str] = field(default_factory=Counter)


class Export:
    """One writing of originals.

    Args:
        table: The rows.
        chosen: Those whose originals are meant.
        form: One of `FORMS`.
        output: The folder as it will be called: no original may lie in it.
        images_per_tar: Samples in a tar at most.
        storage_options: For originals that are URLs.
        embedder: Puts stars into the copies.
        on_progress: Called after each image.
    """

    def __init__(
        self,
        table: ScoreTable,
        chosen: Chosen,
        form: str,
        output: Path,
        *,
        images_per_tar: int,
        storage_options: Mapping[str, Any],
        embedder: StarEmbedder | None,
        on_progress: Callable[[SelectProgress], None] | None,
    ) -> None:
        self._chosen, self._form, self._inside = chosen, form, _as_folder(str(output))
        self._images_per_tar, self._options = images_per_tar, storage_options
        self._embedder, self._on_progress = embedder, on_progress
        self._bytes_total = int(np.nan_to_num(table.values("size")[chosen.rows]).sum())
        first = table.take(chosen.rows[:1], ["image_path"])["image_path"].to_pylist()
        self._is_remote = is_remote((first or [""])[0] or "")
        self.skipped: list[dict[str, Any]] = []
        self._done = self._bytes_done = 0
        self.counts = ExportCounts()
        self._sink: Copies | None = None

    def check_room(self, parent: Path) -> None:
        """Raise `TastemakerError` where the images need more than is free."""
        free = shutil.disk_usage(parent).free
        if self._form != "links" and self._bytes_total > free:
            needed = f"the images have {self._bytes_total / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB are free"
            raise TastemakerError(f"no room in {parent}: {needed}")

    def write(self, folder: Path) -> None:
        """Write all samples below a new folder, a row for each with where it is, and what was skipped.

        Raises:
            ConfigurationError: An original lies in the output, or has no file to link to.
            OSError: The disk is full.
        """
        if not is_remote(str(folder)):
            folder.mkdir()
        sink = self._make_sink(folder)
        listing = RowsFile(folder / LISTING, self._chosen.schema)
        try:
            with OriginalsReader(self._options, remote=self._is_remote, with_new_xmp=True) as reader:
                for numbers, part in self._chosen.iterate():
                    listing.add_rows(self._copy(numbers.tolist(), part, reader, sink))
            sink.close()
            listing.commit()
        except BaseException:
            sink.discard()
            listing.discard()
            raise
        self._sink = sink
        _write_lines(folder / SKIPPED, self.skipped)
        if self._embedder is not None:
            self.counts.ratings = self._embedder.counts
            problems = self._embedder.problems.items()
            _write_lines(folder / UNRATED, [{"image_path": path, "problem": problem} for path, problem in problems])

    def wrote(self, name: str) -> bool:
        """Return whether a file below the folder is of this selection."""
        has_problems = self._embedder is not None and bool(self._embedder.problems)
        own = {LISTING: True, SKIPPED: bool(self.skipped), UNRATED: has_problems}
        return own.get(name, False) or (isinstance(self._sink, TarCopies | UrlCopies) and self._sink.has(name))

    def _make_sink(self, folder: Path) -> Copies:
        if self._form == "webdataset":
            return TarCopies(folder, self._images_per_tar)
        if is_remote(str(folder)):
            return UrlCopies(folder)
        return FolderCopies(folder) if self._form == "folder" else LinkCopies(folder)

    def _copy(self, numbers: list[int], part: pa.Table, reader: OriginalsReader, sink: Copies) -> pa.Table:
        """Copy the originals of some rows; return the rows of those that were."""
        wanted = [name for name in (*NEEDED_COLUMNS, "rating") if name in part.column_names]
        rows = part.select(wanted).to_pylist()
        found = find_links(rows) if self._form == "links" else reader.read_rows(rows)
        placed: list[tuple[str, str] | None] = []
        for row_id, row, original in zip(numbers, rows, found, strict=True):
            try:
                if isinstance(original, SkippedError):
                    raise original
                placed.append(self._add(row_id, row, original, sink))
            except SkippedError as problem:
                self._skip(row_id, row, problem)
                placed.append(None)
            self._report(row["size"] or 0)
        return _with_places(part, placed)

    def _add(self, row_id: int, row: dict[str, Any], found: FoundOriginal, sink: Copies) -> tuple[str, str]:
        self._refuse_inside(found.original)
        members = found.members
        long = None if self._form == "webdataset" else next(filter(is_too_long, members), None)
        if long is not None:
            raise SkippedError("refused", f"the name {long[:40]!r}...", "is too long for a file; tars take it")
        if self._embedder is not None:
            members = self._embedder.embed(row_id, row, members)
        place = sink.add(found.original, members)
        self.counts.written += 1
        self.counts.bytes_written += sum(len(data) for data in members.values())
        self.counts.checked_by_size_only += not found.original.xxh3 or self._form == "links"
        return place

    def _skip(self, row_id: int, row: dict[str, Any], problem: SkippedError) -> None:
        self.counts.skipped[problem.kind] += 1
        where = {"row_id": row_id, "image_id": row["image_id"], "image_path": row["image_path"]}
        self.skipped.append({**where, "problem": problem.kind, "detail": str(problem)})

    def _refuse_inside(self, original: Original) -> None:
        for part in original.parts:
            if _as_folder(part.path).startswith(self._inside):
                raise ConfigurationError(
                    f"{part.path} is one of the chosen originals and lies in the output; choose another"
                )

    def _report(self, size: int) -> None:
        self._done += 1
        self._bytes_done += size
        if self._on_progress is not None:
            self._on_progress(SelectProgress(self._done, self._bytes_done, self._bytes_total))


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    if rows:
        write_whole(path, "".join(json.dumps(row) + "\n" for row in rows).encode("ascii"))


def _as_folder(path: str) -> str:
    """Return a path in a form that begins with that of a folder that it lies in."""
    return f"{public_url(path).rstrip('/')}/" if is_remote(path) else f"{os.path.realpath(path)}{os.sep}"


def _with_places(part: pa.Table, placed: list[tuple[str, str] | None]) -> pa.Table:
    for index, column in enumerate(("tar_file", "member_name")):
        values = [None if place is None else printable(place[index]) for place in placed]
        if column in part.column_names:
            part = part.set_column(part.schema.get_field_index(column), column, pa.array(values, pa.string()))
    return part.filter(pa.array([place is not None for place in placed], pa.bool_()))
