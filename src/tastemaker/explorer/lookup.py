"""What names a picture and where it lies, by its row: a memory-mapped file, so that a million rows cost no memory."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from tastemaker.scores.locations import RowsSource
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
    "caption": "caption[:300]",
    "reason": "reason[:500]",
}
_BATCH_ROWS = 2**14
_ROWS_AT_ONCE = 2**19


class RowLookup:
    """The short columns of every row, to be had one by one.

    A query for a few rows out of a million takes 0.15 s, since it passes over the whole table. So these columns are
    written once into a temporary file, which takes 1 to 3 s for a million rows.

    Args:
        table: The rows.
    """

    def __init__(self, table: ScoreTable) -> None:
        with tempfile.TemporaryDirectory(dir=draft_folder(), ignore_cleanup_errors=True) as folder:
            path = Path(folder, "rows.arrow")
            _write(table, path)
            self._reader = pa.ipc.open_file(pa.memory_map(str(path)))

    def rows(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Return these rows, in this order, as column -> value, with ``row``."""
        batches = [(self._reader.get_batch(number // _BATCH_ROWS), number % _BATCH_ROWS) for number in numbers]
        return [row for batch, at in batches for row in batch.slice(at, 1).to_pylist()]


def _write(table: ScoreTable, path: Path) -> None:
    wanted = ", ".join(
        f'{expression if name in table.columns else "NULL"} AS "{name}"' for name, expression in _COLUMNS.items()
    )
    select = f"SELECT row_id AS row, {wanted} FROM rows WHERE row_id >= {{}} AND row_id < {{}} ORDER BY row_id"
    schema = table.query(select.format(0, 0)).schema
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for start in range(0, len(table), _ROWS_AT_ONCE):
            part = table.query(select.format(start, start + _ROWS_AT_ONCE)).cast(schema)
            for batch in part.combine_chunks().to_batches(max_chunksize=_BATCH_ROWS):
                writer.write_batch(batch)
    pa.default_memory_pool().release_unused()


def stamp_of(sources: Sequence[RowsSource]) -> str:
    """Return a text that changes when files of rows do: row numbers, and what browsers remember, are of one stamp."""
    digest = hashlib.sha256()
    for source in sources:
        path = source.place.local_path
        changed = 0 if path is None else path.stat().st_mtime_ns
        digest.update(f"{source.path}\n{source.rows}\n{changed}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:12]
