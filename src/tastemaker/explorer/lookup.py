"""What names a picture and where it lies, by its row: a memory-mapped file, so that a million rows cost no memory."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pyarrow as pa

from tastemaker.scores.table import ScoreTable
from tastemaker.storage.drafts import draft_folder

_COLUMNS = {
    "image_id": "image_id",
    "image_path": "image_path",
    "shard": "shard",
    "offset": '"offset"',
    "size": "size",
    "xxh3": "xxh3",
    "width": "width",
    "height": "height",
    "orientation": "orientation",
    "format": "format",
    "caption": "caption[:300]",
    "status": "status",
    "reason": "reason[:500]",
}
_BATCH_ROWS = 2**14
_ROWS_AT_ONCE = 2**19


class RowLookup:
    """The short columns of every row, to be had one by one.

    A query for a few rows out of a million takes 0.15 s, since it passes over the whole table. So these columns are
    written once into a temporary file, in the background; until that is done, queries serve.

    Args:
        table: The rows.
    """

    def __init__(self, table: ScoreTable) -> None:
        self._table = table
        self._select = ", ".join(
            f'{expression if expression.strip(chr(34)).partition("[")[0] in table.columns else "NULL"} AS "{name}"'
            for name, expression in _COLUMNS.items()
        )
        self._folder = tempfile.TemporaryDirectory(dir=draft_folder())
        self._reader: pa.RecordBatchFileReader | None = None
        self._is_ready = Event()
        self._is_closed = False
        self._thread = Thread(target=self._write, name="row lookup", daemon=True)
        self._thread.start()

    def rows(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Return these rows, in this order, as column -> value, with ``row``."""
        if self._reader is not None:
            return [self._one(self._reader, number) for number in numbers]
        found = self._query(f"WHERE row_id IN ({', '.join(map(str, numbers)) or '-1'})").to_pylist()
        by_row = {row["row"]: row for row in found}
        return [by_row[number] for number in numbers]

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until rows are found at once; return whether they are."""
        return self._is_ready.wait(timeout_s)

    def close(self) -> None:
        """Delete the temporary file."""
        self._is_closed = True
        self._thread.join()
        self._reader = None
        with contextlib.suppress(OSError):
            self._folder.cleanup()

    def _one(self, reader: pa.RecordBatchFileReader, number: int) -> dict[str, Any]:
        batch = reader.get_batch(number // _BATCH_ROWS)
        row: dict[str, Any] = batch.slice(number % _BATCH_ROWS, 1).to_pylist()[0]
        return row

    def _query(self, clause: str) -> pa.Table:
        return self._table.query(f"SELECT row_id AS row, {self._select} FROM rows {clause}")

    def _write(self) -> None:
        path = Path(self._folder.name) / "rows.arrow"
        total = len(self._table)
        schema = self._query("WHERE false").schema
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
            for start in range(0, total, _ROWS_AT_ONCE):
                if self._is_closed:
                    return
                end = start + _ROWS_AT_ONCE
                part = self._query(f"WHERE row_id >= {start} AND row_id < {end} ORDER BY row_id").cast(schema)
                for batch in part.combine_chunks().to_batches(max_chunksize=_BATCH_ROWS):
                    writer.write_batch(batch)
        pa.default_memory_pool().release_unused()
        if total:
            self._reader = pa.ipc.open_file(pa.memory_map(str(path)))
        with contextlib.suppress(OSError):  # where a mapped file can be deleted, no kill leaves it behind
            self._folder.cleanup()
        self._is_ready.set()
