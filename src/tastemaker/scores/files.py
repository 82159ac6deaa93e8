"""Files that appear under their final name only when they are complete, rows above all."""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from tastemaker.errors import ConfigurationError
from tastemaker.scores.schema import COUNTS_KEY, METADATA_KEY
from tastemaker.storage.parquet import ParquetFile
from tastemaker.storage.place import AnyPlace, Place
from tastemaker.storage.unfinished import DRAFT_PREFIX

ROW_GROUP_ROWS = 4096
"""Rows in a row group of a rows file: 7 MB with embeddings."""

_PAGE_BYTES = 2**16
"""Of a page of a column, about: embeddings are written a tenth faster than in pages of 1 MiB."""


class RowsFile:
    """A rows file that is being written. Row groups are written one by one, so memory never holds the whole file.

    The number of rows by status and by kind of reason goes into its metadata, so that a summary need not read the rows.

    Args:
        path: Where it is to be: it is seen there once it is committed.
        schema: See below. Counts that its metadata states of other rows are left out, but for ``more``.

    Attributes:
        path: Where it is to be.
        schema: Of the file. Its metadata may still change until the first row group is full.
        more_counts: What else a summary of the file needs, under ``more`` in its metadata.
    """

    def __init__(self, path: AnyPlace, schema: pa.Schema) -> None:
        self.path, self.schema = Place.of(path), schema
        self._draft = self.path.draft()
        counts = json.loads((schema.metadata or {}).get(COUNTS_KEY, b"{}"))
        self.more_counts: Counter[str] = Counter(counts.get("more", {}))
        self._waiting: list[pa.Table] = []
        self._statuses: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._writer: pq.ParquetWriter | None = None
        self._file: BinaryIO | None = None

    def add_rows(self, table: pa.Table) -> None:
        """Append rows."""
        self._waiting.append(table)
        self._statuses.update(table["status"].to_pylist())
        self._reasons.update(table["reason_kind"].drop_null().to_pylist())
        if sum(len(waiting) for waiting in self._waiting) >= ROW_GROUP_ROWS:
            self._flush()

    def commit(self) -> None:
        """Finish the file, and make it durable, then visible.

        Raises:
            OSError: It cannot be written or uploaded, whatever was tried.
        """
        self._flush()
        counts = {"statuses": self._statuses, "reasons": self._reasons, "more": self.more_counts}
        self._open_writer().add_key_value_metadata({COUNTS_KEY: json.dumps(counts).encode()})
        self._open_writer().close()
        self._close_file()
        self._draft.commit()

    def discard(self) -> None:
        """Close and delete the file."""
        with contextlib.suppress(OSError):  # the disk may be full
            if self._writer is not None:
                self._writer.close()
        with contextlib.suppress(OSError):
            self._close_file()
        self._draft.discard()

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()

    def _flush(self) -> None:
        if self._waiting:
            table = pa.concat_tables(self._waiting)
            self._open_writer().write_table(table.replace_schema_metadata(self.schema.metadata), ROW_GROUP_ROWS)
            self._waiting.clear()

    def _open_writer(self) -> pq.ParquetWriter:
        if self._writer is None:
            metadata = {key: value for key, value in (self.schema.metadata or {}).items() if key != COUNTS_KEY}
            self.schema = self.schema.with_metadata(metadata)
            self._file = self._draft.path.open("wb")  # pyarrow itself takes no path that is no UTF-8
            # Embeddings have no two numbers alike. To look for some makes files a few percent smaller and takes several
            # times as long, and to look for the least is as useless: docs/decisions/0030-one-embedding-many-uses.md.
            leaves = [leaf for field in self.schema for leaf in _leaves(field.name, field.type)]
            others = [leaf for leaf in leaves if not leaf.startswith("embedding.")]
            self._writer = pq.ParquetWriter(
                self._file,
                self.schema,
                compression={leaf: "zstd" if leaf in others else "none" for leaf in leaves},
                use_dictionary=others,
                write_statistics=others,
                data_page_size=_PAGE_BYTES,
            )
        return self._writer


def _leaves(name: str, kind: pa.DataType) -> list[str]:
    """Return what Parquet calls the columns of numbers and texts that a column is made of."""
    if pa.types.is_struct(kind):
        return [leaf for field in kind for leaf in _leaves(f"{name}.{field.name}", field.type)]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _leaves(f"{name}.list.element", kind.value_type)
    return [name]


def read_rows(path: AnyPlace, columns: list[str] | None = None) -> pa.Table:
    """Return the rows of a file, or some columns of them. Of a remote file, only those columns are requested.

    The file is opened here: pyarrow itself takes no path that is no UTF-8.
    """
    with Place.of(path).open() as file:
        return ParquetFile(file).read(columns)


def read_metadata(path: AnyPlace) -> dict[bytes, bytes]:
    """Return the metadata of a Parquet file without reading its rows."""
    with Place.of(path).open() as file:  # pyarrow itself takes no path that is no UTF-8
        return dict(pq.read_metadata(file).metadata or {})


def check_own_rows(path: AnyPlace) -> None:
    """Raise `ConfigurationError` if a file that Tastemaker did not write is where a rows file is to go."""
    try:
        metadata = read_metadata(path)
    except FileNotFoundError:
        return
    except pa.ArrowException:
        metadata = {}
    if not {METADATA_KEY, COUNTS_KEY} & metadata.keys():
        raise ConfigurationError(
            f"{path} is there, and Tastemaker did not write it: choose another directory, or move it away"
        )


def remove_drafts(folder: Place, partitions: Iterable[str]) -> None:
    """Delete the unfinished rows and tars of partitions whose writer died. At a URL there are none."""
    path = folder.local_path
    stems = set() if path is None else {path / name for name in partitions if name}
    is_draft = re.compile(rf"{re.escape(DRAFT_PREFIX)}[0-9a-f]+-(.+?)(-\d{{6}}\.tar|\.parquet)", re.DOTALL).fullmatch
    for parent in {stem.parent for stem in stems}:
        for leftover in parent.glob(f"{DRAFT_PREFIX}*"):
            if (found := is_draft(leftover.name)) and parent / found[1] in stems:
                leftover.unlink(missing_ok=True)
