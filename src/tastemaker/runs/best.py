"""The best of a finished run: marked in its rows, their originals written."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.errors import UnreadableImageError
from tastemaker.scores.cutoff import Top, mark_best
from tastemaker.scores.files import RowsFile, read_rows
from tastemaker.scores.kept_copies import COPY_COLUMNS, UnkeptCopies
from tastemaker.scores.originals import OriginalsWriter, finished_together
from tastemaker.scores.schema import CUT_KEY, DELETED, printable
from tastemaker.scores.sources import NEEDED_COLUMNS, OriginalsReader, SkippedError
from tastemaker.storage import public_url
from tastemaker.tasks import FileGroupTask


def keep_top(
    groups: list[FileGroupTask],
    output_dir: Path,
    top: Top,
    originals: str = "shards",
    images_per_tar: int = 1000,
    rank_by: str = "aesthetic_score",
) -> float | None:
    """Keep the best images of a finished run: mark them in the rows, and write their originals.

    Originals are read by the byte ranges in the rows; nothing is decoded, and images that are not kept are not read.
    Of images with the score at the cut, the first in the order of the input are kept. Running it twice gives the
    same files.

    Args:
        groups: The partitions, whose rows lie in ``output_dir``.
        output_dir: Directory of the results.
        top: How many.
        originals: ``shards``, ``folder`` or ``none``.
        images_per_tar: Samples in a tar at most.
        rank_by: The column to rank by, the largest value first.

    Returns:
        The lowest score that is kept; None if no image has a score.
    """
    paths = [rows_path(output_dir, group) for group in groups]
    scores = [_read_scores(path, rank_by) for path in paths]
    together = np.concatenate(scores) if scores else np.empty(0, np.float32)
    is_kept = mark_best(together, top)
    cutoff = float(together[is_kept].min()) if is_kept.any() else None
    cut = json.dumps({**describe_cut(groups, top, rank_by), "cutoff": cutoff}, sort_keys=True)
    start, unkept = 0, UnkeptCopies(output_dir)
    for group, path, part in zip(groups, paths, scores, strict=True):
        verdicts = _judge(path, part, is_kept[start : start + len(part)], top)
        place = group._metadata
        writer = OriginalsWriter(output_dir, place["partition"], place["folder"], originals, images_per_tar)
        _cut_partition(path, verdicts, writer, group, unkept, cut)
        start += len(part)
    return cutoff


def describe_cut(groups: list[FileGroupTask], top: Top, rank_by: str) -> dict[str, Any]:
    """Return what a cut is over: rows that were part of it say so, until they change."""
    names = "\n".join(str(group._metadata["partition"]) for group in groups)
    digest = hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return {"top": str(top), "rank_by": rank_by, "partitions": digest}


def rows_path(output_dir: Path, group: FileGroupTask) -> Path:
    """Return where the rows of a partition lie."""
    return output_dir / f"{group._metadata['partition']}.parquet"


def _read_scores(path: Path, rank_by: str) -> npt.NDArray[np.float32]:
    table = read_rows(path, columns=[rank_by, "status"])
    scores: npt.NDArray[np.float32] = pc.fill_null(table[rank_by], np.nan).to_numpy().astype(np.float32)
    return np.where(pc.equal(table["status"], DELETED).to_numpy(), np.float32(np.nan), scores)


def _cut_partition(
    path: Path, verdicts: list[_Verdict], writer: OriginalsWriter, group: FileGroupTask, copies: UnkeptCopies, cut: str
) -> None:
    """Write one partition's rows again with the cut in them, and its kept originals."""
    table = read_rows(path)
    rows = RowsFile(path, table.schema.with_metadata({**(table.schema.metadata or {}), CUT_KEY: cut.encode()}))
    with finished_together(rows, writer) as unkept:
        if writer.kind != "none":
            _copy_originals(table, verdicts, writer, group)
        for column in ("kept", "status", "reason", "tar_file", "member_name"):
            number = table.schema.get_field_index(column)
            values = pa.array([getattr(verdict, column) for verdict in verdicts], table.schema.field(number).type)
            table = table.set_column(number, column, values)
        if writer.kind == "folder":
            after = table.select(COPY_COLUMNS).to_pylist()
            unkept += copies.find(group._metadata["folder"], after, group._metadata["root"])
        rows.add_rows(table)


@dataclass(slots=True)
class _Verdict:
    """The columns of a row that a cut decides."""

    status: str
    reason: str | None
    tar_file: str | None = None
    member_name: str | None = None

    @property
    def kept(self) -> bool:
        return self.status == "kept"


def _judge(path: Path, scores: npt.NDArray[np.float32], is_kept: npt.NDArray[np.bool_], top: Top) -> list[_Verdict]:
    """Return what becomes of each row: those without a score, and of pictures that are gone, stay what they are."""
    table = read_rows(path, columns=["status", "reason", "tar_file", "member_name"])
    verdicts = []
    for score, kept, *row in zip(scores, is_kept, *(c.to_pylist() for c in table.columns), strict=True):
        if np.isnan(score):
            verdicts.append(_Verdict(*row))
        else:
            verdicts.append(_Verdict("kept", None) if kept else _Verdict("dropped", f"not in the top {top}"))
    return verdicts


def _copy_originals(table: pa.Table, verdicts: list[_Verdict], writer: OriginalsWriter, group: FileGroupTask) -> None:
    """Read every kept sample by its byte ranges, and write it; what has changed since becomes a failed row."""
    kept = np.flatnonzero([verdict.kept for verdict in verdicts])
    rows = table.select([name for name in NEEDED_COLUMNS if name in table.column_names]).take(pa.array(kept))
    with open_originals(group) as reader:
        for number, sample in zip(kept, reader.read_rows(rows.to_pylist()), strict=True):
            try:
                if isinstance(sample, SkippedError):
                    raise sample
                tar_file, member_name = map(printable, writer.add(sample.members))
                verdicts[number].tar_file, verdicts[number].member_name = tar_file, member_name
            except UnreadableImageError as error:
                verdicts[number] = _Verdict("failed", printable(f"unreadable: {error}"))


def open_originals(group: FileGroupTask) -> OriginalsReader:
    """Return a reader of the originals of a partition. Rows have no signatures of URLs; the partition has."""
    urls = {public_url(path): path for path in group.data}
    return OriginalsReader(group._metadata.get("storage_options"), urls=urls)
