"""A column of lists of numbers as an array, without a Python loop over rows; above all a table's embeddings."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import accumulate
from threading import Lock

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.machine import MEMORY_SHARE, usable_cores, usable_memory_bytes
from tastemaker.scores.locations import IntArray, RowsSource
from tastemaker.storage.parquet import ParquetFile

Floats = npt.NDArray[np.floating]

_BLOCK_ROWS = 4096

logger = logging.getLogger(__name__)

_NUMPY_TYPES = {pa.float16(): np.float16, pa.float32(): np.float32, pa.float64(): np.float64}


def is_float_list(kind: pa.DataType) -> bool:
    """Return whether a column's type is a list of float16, float32 or float64."""
    types = pa.types
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return is_list and kind.value_type in _NUMPY_TYPES


def vectors_of(column: pa.Array, size: int) -> tuple[Floats, npt.NDArray[np.int64] | None]:
    """Return a list column as float16 or float32 (n, size), and the length of each row if they are not all ``size``.

    Rows of another length are zeros, and their length is stated; -1 for a null. A null inside a row is a NaN.
    """
    lengths = pc.fill_null(pc.list_value_length(column), -1).to_numpy(zero_copy_only=False).astype(np.int64)
    is_whole = lengths == size
    if is_whole.all():
        return as_floats(_numbers(column.flatten()).reshape(-1, size)), None
    whole = column.filter(pa.array(is_whole))
    part = as_floats(_numbers(whole.flatten()).reshape(-1, size))
    vectors = np.zeros((len(column), size), part.dtype)
    vectors[is_whole] = part
    return vectors, lengths


def embeddings_of(column: pa.ChunkedArray) -> Floats:
    """Return a column of lists as float16 or float32 (n, d), d numbers as the first list has; a null is zeros."""
    size = next((int(count) for count in pc.list_value_length(column).drop_null().slice(0, 1).to_pylist()), 1)
    chunks = [vectors_of(chunk, size)[0] for chunk in column.chunks if len(chunk)]
    return np.concatenate(chunks) if chunks else np.zeros((len(column), 1), np.float16)


def as_floats(vectors: Floats) -> Floats:
    """Return float16 or float32 in the machine's byte order; float64 is narrowed, and copied only where need be."""
    kind = np.float16 if vectors.dtype.itemsize == 2 else np.float32
    with np.errstate(over="ignore"):  # an infinity fails with its reason later
        return np.ascontiguousarray(vectors, kind)


class Vectors:
    """The embeddings of a table. From the second time on that all are needed, they are kept in memory.

    A million embeddings of 768 numbers take 1.5 GB. If that is more than a quarter of what this process may use
    (`MEMORY_SHARE`), they are read from the files each time, a block at a time. Threads may share one.

    Args:
        sources: The files of the table.
        column: Name of the column.
        kind: Its type.
    """

    def __init__(self, sources: Sequence[RowsSource], column: str, kind: pa.DataType) -> None:
        self._column = column
        self._files = list(zip(sources, accumulate((s.rows for s in sources), initial=0), strict=False))
        self._count = sum(source.rows for source in sources)
        self._dtype = np.float16 if kind.value_type == pa.float16() else np.float32
        self._held: Floats | None = None
        self._lock, self._is_kept = Lock(), False

    def keep(self) -> None:
        """Say that all will be needed again: they are kept from the first time on."""
        self._is_kept = True

    @cached_property
    def size(self) -> int:
        """How many numbers the first embedding has; 0 where there is none."""
        for source, _ in self._files:
            if self._column in source.schema.names:
                with source.place.open() as file:
                    for batch in ParquetFile(file).iter_batches(_BLOCK_ROWS, columns=[self._column]):
                        lengths = pc.list_value_length(batch.column(0)).drop_null()
                        if len(lengths):
                            return int(lengths[0].as_py())
        return 0

    def visit(self, work: Callable[[int, Floats], None]) -> None:
        """Call a function with blocks of embeddings, from several threads at once, until it was called with all.

        Args:
            work: Takes the number of a block's first row, and the block: float16 or float32 (n, size). Embeddings that
                are null, or have another number of numbers than the first, are zeros. It must not change the block.
        """
        held = self._hold() if self._is_kept and self.size else None
        self.keep()
        if held is None:
            self._read(work)
        else:
            work(0, held)

    def take(self, rows: IntArray) -> Floats:
        """Return the embeddings of some rows: float16 or float32 (m, size), zeros as in `visit`. They are read only.

        Args:
            rows: int64 (m,), ascending.
        """
        blocks = len(np.unique(rows // _BLOCK_ROWS))  # that have some of them
        is_most = self._is_kept and 2 * blocks * _BLOCK_ROWS >= self._count
        if is_most or len(rows) == self._count:
            self._hold()
        if self._held is not None:
            return self._held if len(rows) == self._count else self._held[rows]
        found = np.zeros((len(rows), self.size), self._dtype)

        def keep(start: int, block: Floats) -> None:
            first, last = np.searchsorted(rows, [start, start + len(block)])
            found[first:last] = block[rows[first:last] - start]

        self._read(keep, rows)
        return found

    def take_unit(self, rows: IntArray) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Return the embeddings of some rows divided by their lengths, float32 (m, size), and which rows have one.

        Those that have none, or one with a NaN, are zeros.

        Args:
            rows: int64 (m,), ascending.
        """
        vectors = self.take(rows).astype(np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        is_there: npt.NDArray[np.bool_] = np.isfinite(lengths[:, 0]) & (lengths[:, 0] > 0)
        vectors /= np.where(is_there[:, None], lengths, 1)
        vectors[~is_there] = 0
        return vectors, is_there

    def _hold(self) -> Floats | None:
        """Return all embeddings of the usual size, (n, size); None where there is no room for them."""
        with self._lock:
            if self._held is None:
                needed = self._count * self.size * np.dtype(self._dtype).itemsize
                room = MEMORY_SHARE * (usable_memory_bytes() or 0)
                if needed > room:
                    figures = (needed / 1e9, room / 1e9)
                    logger.info("embeddings stay in their files: they take %.1f GB, and %.1f GB may be used", *figures)
                    return None
                held = np.zeros((self._count, self.size), self._dtype)

                def keep(start: int, block: Floats) -> None:
                    held[start : start + len(block)] = block

                self._read(keep)
                held.flags.writeable = False
                self._held = held
            return self._held

    def _read(self, work: Callable[[int, Floats], None], rows: IntArray | None = None) -> None:
        """Call a function with the blocks that have any of some rows, or with all that there are."""
        if not (size := self.size):
            return
        files = [(source, start) for source, start in self._files if self._column in source.schema.names]
        parts = -(-usable_cores() // max(1, len(files)))

        def read(task: tuple[RowsSource, int, int]) -> None:
            source, start, part = task
            with source.place.open() as file:
                parquet = ParquetFile(file)
                for group in range(parquet.num_row_groups):
                    end = start + parquet.metadata.row_group(group).num_rows
                    is_wanted = rows is None or np.searchsorted(rows, start) < np.searchsorted(rows, end)
                    if group % parts == part and is_wanted:
                        for batch in parquet.iter_batches(_BLOCK_ROWS, [group], [self._column]):
                            work(start, vectors_of(batch.column(0), size)[0])
                            start += len(batch)
                    start = end

        with ThreadPoolExecutor(usable_cores()) as pool:
            list(pool.map(read, [(source, start, part) for source, start in files for part in range(parts)]))


def _numbers(values: pa.Array) -> Floats:
    kind = _NUMPY_TYPES[values.type]
    if not len(values):
        return np.empty(0, kind)
    numbers = np.frombuffer(values.buffers()[1], kind)[values.offset : values.offset + len(values)]
    if values.null_count:
        numbers = numbers.copy()
        numbers[values.is_null().to_numpy(zero_copy_only=False)] = np.nan
    return numbers
