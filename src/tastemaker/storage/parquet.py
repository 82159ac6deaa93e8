"""Parquet files, read in the thread that asks for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq


class ParquetFile(pq.ParquetFile):  # type: ignore[misc]
    """A Parquet file that pyarrow reads without threads of its own.

    Its threads call our file, and free the bytes that it gave after the rows are returned. A process that ends at that
    moment aborts, because a thread that pyarrow started cannot enter a Python that has ended. Who wants to read with
    several cores reads several files, or row groups, at once.

    Args:
        file: As `tastemaker.storage.place.Place.open` returns it: pyarrow itself takes no path that is no UTF-8.
        buffer_size: Bytes to read at once of a column; 0 reads a column of a row group as a whole.
    """

    def __init__(self, file: IO[bytes], buffer_size: int = 0) -> None:
        super().__init__(file, buffer_size=buffer_size, pre_buffer=False)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows, or some columns of them. Columns that are not there are left out."""
        return super().read(columns, use_threads=False)

    def read_row_group(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the same of one row group."""
        return super().read_row_group(number, columns, use_threads=False)

    def iter_batches(
        self, rows: int, row_groups: Sequence[int] | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the same of some row groups, so many rows at a time."""
        return super().iter_batches(rows, row_groups, columns, use_threads=False)  # type: ignore[no-any-return]
