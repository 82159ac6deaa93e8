"""Single rows of a score table by their numbers, without its database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tastemaker.scores.locations import RowsSource

IntArray = npt.NDArray[np.int64]

ROW_ID = "row_id"
"""The number of a row, from 0, in the order of the files and of the rows in each."""


def fetch_rows(
    sources: Sequence[RowsSource],
    row_ids: IntArray,
    columns: Mapping[str, pa.DataType],
) -> Iterator[pa.Table]:
    """Yield rows in their order, a table for each row group that has any of them.

    Args:
        sources: The files of the table.
        row_ids: int64 (n,), ascending.
        columns: Name -> type of what is wanted, also ``row_id``. Where a file does not have a column, it is null.
    """
    starts = accumulate((source.rows for source in sources), initial=0)
    for source, start in zip(sources, starts, strict=False):
        inside = _between(row_ids, start, source.rows)
        if len(inside):
            yield from _fetch_from(source, inside, start, columns)


def _fetch_from(
    source: RowsSource, row_ids: IntArray, start: int, columns: Mapping[str, pa.DataType]
) -> Iterator[pa.Table]:
    present = [name for name in columns if name in source.schema.names]
    with source.place.open() as file:
        parquet = pq.ParquetFile(file)
        for group in range(parquet.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            inside = _between(row_ids, start, rows)
            if len(inside):
                found = parquet.read_row_group(group, columns=present).take(pa.array(inside - start))
                yield _complete(found, inside, columns)
            start += rows


def _complete(found: pa.Table, row_ids: IntArray, columns: Mapping[str, pa.DataType]) -> pa.Table:
    arrays = {}
    for name, kind in columns.items():
        if name == ROW_ID:
            arrays[name] = pa.chunked_array([row_ids], kind)
        elif name in found.column_names:
            arrays[name] = found[name].cast(kind)
        else:
            arrays[name] = pa.chunked_array([pa.nulls(len(row_ids), kind)])
    return pa.table(arrays)


def _between(row_ids: IntArray, start: int, rows: int) -> IntArray:
    first, last = np.searchsorted(row_ids, [start, start + rows])
    return row_ids[first:last]
