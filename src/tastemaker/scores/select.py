"""A selection of a score table, written: originals byte for byte, links to them, or a list."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tastemaker.errors import ConfigurationError, TastemakerError
from tastemaker.scores import copies, lists
from tastemaker.scores.fetch import ROW_ID, IntArray
from tastemaker.scores.files import RowsFile
from tastemaker.scores.locations import is_url
from tastemaker.scores.selection import Selection, choose_rows
from tastemaker.scores.sources import Original, OriginalsReader, SkippedError, original_of
from tastemaker.scores.table import EMBEDDING, ScoreTable

KINDS = ("webdataset", "folder", "links", "manifest", "uids")
SKIPPED = "_tastemaker/skipped.jsonl"


@dataclass(frozen=True)
class SelectProgress:
    """How far a selection is; bytes are those of the images, without sidecars."""

    images: int
    bytes_done: int
    bytes_total: int


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


def select_images(
    table: ScoreTable,
    output: str | os.PathLike[str],
    selection: Selection,
    *,
    kind: str = "webdataset",
    images_per_tar: int = 1000,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    on_progress: Callable[[SelectProgress], None] | None = None,
) -> SelectSummary:
    """Write what is selected. The same call gives the same bytes; nothing is visible before all of it is there.

    Args:
        table: The rows.
        output: A folder; for ``manifest`` a .parquet, .csv or .jsonl file, for ``uids`` a .txt or .npy file.
        selection: Which rows.
        kind: One of `KINDS`.
        images_per_tar: Samples in a tar at most.
        overwrite: Replace another selection.
        storage_options: For originals that are URLs; None for the table's.
        on_progress: Called after each image. What it raises ends the work, and nothing is left behind.

    Raises:
        ConfigurationError: Options make no sense, or the output is there and is not to be replaced.
        TastemakerError: The disk is full.
    """
    path = Path(output).absolute()
    _check_options(kind, path, images_per_tar)
    rows = choose_rows(table, selection)
    summary = SelectSummary(str(output), kind, len(table), len(rows), lowest=_lowest(table, rows, selection))
    try:
        if kind in ("manifest", "uids"):
            _write_list(table, rows, path, kind, overwrite=overwrite)
            summary.written = len(rows)
        else:
            options = table.storage_options if storage_options is None else storage_options
            _Export(table, rows, path, summary, on_progress, options).run(selection, images_per_tar, overwrite)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise TastemakerError(f"no room left for {path}; nothing was kept of it") from error
    return summary


def _check_options(kind: str, path: Path, images_per_tar: int) -> None:
    if kind not in KINDS:
        raise ConfigurationError(f"kind={kind!r} is not one of {', '.join(KINDS)}")
    if images_per_tar < 1:
        raise ConfigurationError(f"images_per_tar={images_per_tar} is less than 1")
    wanted = {"manifest": lists.MANIFESTS, "uids": (".txt", ".npy")}.get(kind)
    if wanted and path.suffix not in wanted:
        raise ConfigurationError(f"{path.name}: a {kind} file ends with {', '.join(wanted)}")


def _lowest(table: ScoreTable, rows: IntArray, selection: Selection) -> float | None:
    values = table.values(selection.rank_by)[rows]
    values = values[~np.isnan(values)]
    return float(values.min()) if len(values) else None


def _write_list(table: ScoreTable, rows: IntArray, path: Path, kind: str, *, overwrite: bool) -> None:
    if path.is_dir():
        raise ConfigurationError(f"{path} is a folder; a {kind} is a file")
    draft = lists.Draft(path)
    names = [name for name in table.columns if name != EMBEDDING]
    try:
        if kind == "manifest":
            schema = pa.schema([(name, table.columns[name]) for name in names])
            lists.write_manifest(draft.draft, table.iterate(rows, names), schema)
        else:
            lists.write_uids(draft.draft, table.iterate(rows, ["image_id", "image_path", "json"]))
        draft.commit_over(overwrite=overwrite)
    except BaseException:
        draft.discard()
        raise


class _Export:
    """One writing of originals into a folder."""

    def __init__(
        self,
        table: ScoreTable,
        rows: IntArray,
        path: Path,
        summary: SelectSummary,
        on_progress: Callable[[SelectProgress], None] | None,
        storage_options: Mapping[str, Any],
    ) -> None:
        self._table, self._rows, self._path, self._summary = table, rows, path, summary
        self._on_progress, self._options = on_progress, storage_options
        self._sizes = np.nan_to_num(table.values("size")[rows])
        self._skipped: list[dict[str, Any]] = []
        self._counts: Counter[str] = Counter()
        self._done = 0
        self._bytes_done = 0

    def run(self, selection: Selection, images_per_tar: int, overwrite: bool) -> None:
        record = _record(self._table, selection, self._summary.kind, images_per_tar)
        copies.check_folder(self._path, record, overwrite=overwrite)
        folder = copies.PendingFolder(self._path)
        try:
            self._check_room()
            self._write(folder.draft, images_per_tar)
            (folder.draft / copies.RECORD).write_text(record)
            self._write_skipped(folder.draft)
            folder.commit()
        except BaseException:
            folder.discard()
            raise

    def _check_room(self) -> None:
        free, needed = shutil.disk_usage(self._path.parent).free, int(self._sizes.sum())
        if self._summary.kind != "links" and needed > free:
            raise TastemakerError(
                f"no room for {self._path}: the images have {needed / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are free"
            )

    def _write(self, folder: Path, images_per_tar: int) -> None:
        """Write all samples, and a row for each with where it is."""
        names = [name for name in self._table.columns if name != EMBEDDING]
        schema = pa.schema([(name, self._table.columns[name]) for name in names])
        listing = RowsFile(folder / "_tastemaker" / "selected.parquet", schema)
        kind = self._summary.kind
        sink: copies.Copies = (
            copies.TarCopies(folder, images_per_tar)
            if kind == "webdataset"
            else copies.FolderCopies(folder)
            if kind == "folder"
            else copies.LinkCopies(folder)
        )
        try:
            with OriginalsReader(self._options, remote=self._is_remote()) as reader:
                for part in self._table.iterate(self._rows, [ROW_ID, *names]):
                    listing.add_rows(self._copy(part, reader, sink).select(names))
            sink.close()
            listing.commit()
        except BaseException:
            listing.discard()
            raise

    def _is_remote(self) -> bool:
        first = self._table.take(self._rows[:1], ["image_path"])["image_path"].to_pylist()
        return bool(first) and is_url(first[0])

    def _copy(self, part: pa.Table, reader: OriginalsReader, sink: copies.Copies) -> pa.Table:
        """Copy the originals of some rows; return the rows of those that were."""
        wanted = ["image_id", "image_path", "shard", "offset", "size", "sidecars", "reason", "xxh3"]
        rows = part.select([name for name in wanted if name in part.column_names]).to_pylist()
        originals: list[Original | SkippedError] = [_locate(row) for row in rows]
        found = [original for original in originals if isinstance(original, Original)]
        for located in found:
            self._refuse_inside(located)
        contents = iter([_link(o) for o in found]) if self._summary.kind == "links" else reader.read(found)
        placed: list[tuple[str, str] | None] = []
        ids = part[ROW_ID].to_pylist()
        for row_id, row, original in zip(ids, rows, originals, strict=True):
            content = original if isinstance(original, SkippedError) else next(contents)
            placed.append(self._add(row_id, row, original, content, sink))
            self._report(row["size"] or 0)
        return _with_places(part, placed)

    def _add(
        self,
        row_id: int,
        row: dict[str, Any],
        original: Original | SkippedError,
        content: dict[str, bytes] | SkippedError,
        sink: copies.Copies,
    ) -> tuple[str, str] | None:
        if isinstance(content, SkippedError) or isinstance(original, SkippedError):
            problem = content if isinstance(content, SkippedError) else original
            assert isinstance(problem, SkippedError)
            self._counts[problem.kind] += 1
            where = {"row_id": row_id, "image_id": row["image_id"], "image_path": row["image_path"]}
            self._skipped.append({**where, "problem": problem.kind, "detail": str(problem)})
            return None
        place = sink.add(original, content)
        self._summary.written += 1
        self._summary.bytes_written += sum(len(data) for data in content.values())
        self._summary.checked_by_size_only += not original.xxh3 or self._summary.kind == "links"
        return place

    def _refuse_inside(self, original: Original) -> None:
        inside = next(
            (p.path for p in original.parts if os.path.abspath(p.path).startswith(f"{self._path}{os.sep}")), ""
        )
        if inside:
            raise ConfigurationError(f"{inside} is one of the chosen originals and lies in the output; choose another")

    def _report(self, size: int) -> None:
        self._done += 1
        self._bytes_done += size
        if self._on_progress is not None:
            self._on_progress(SelectProgress(self._done, self._bytes_done, int(self._sizes.sum())))

    def _write_skipped(self, folder: Path) -> None:
        self._summary.skipped = dict(sorted(self._counts.items()))
        if self._skipped:
            lines = [json.dumps(row, ensure_ascii=True) + "\n" for row in self._skipped]
            (folder / SKIPPED).write_text("".join(lines))
            self._summary.skipped_file = str(Path(self._summary.output) / SKIPPED)


def _locate(row: dict[str, Any]) -> Original | SkippedError:
    try:
        return original_of(row)
    except SkippedError as problem:
        return problem


def _link(original: Original) -> dict[str, bytes] | SkippedError:
    try:
        return copies.check_links(original)
    except SkippedError as problem:
        return problem
    except OSError as error:
        return SkippedError("missing", f"{original.parts[0].path} cannot be read: {error.strerror}")


def _with_places(part: pa.Table, placed: list[tuple[str, str] | None]) -> pa.Table:
    from tastemaker.scores.schema import printable

    for index, column in enumerate(("tar_file", "member_name")):
        values = [None if place is None else printable(place[index]) for place in placed]
        if column in part.column_names:
            part = part.set_column(part.schema.get_field_index(column), column, pa.array(values, pa.string()))
    return part.filter(pa.array([place is not None for place in placed], pa.bool_()))


def _record(table: ScoreTable, selection: Selection, kind: str, images_per_tar: int) -> str:
    """Return what was asked for, as JSON: the same request has the same text."""
    asked = asdict(selection) | {"top": str(selection.top) if selection.top else None}
    if selection.row_ids is not None:
        ids = np.asarray(selection.row_ids, np.int64)
        asked["row_ids"] = f"{len(ids)} rows, sha256 {hashlib.sha256(ids.tobytes()).hexdigest()}"
    scores = [source.path.encode("utf-8", "backslashreplace").decode() for source in table.sources]
    request = {"kind": kind, "images_per_tar": images_per_tar, "selection": asked, "scores": scores}
    return json.dumps(request, indent=2) + "\n"
