"""A column of lists of numbers as an array, without a Python loop over rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Floats = npt.NDArray[np.floating]

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


def as_floats(vectors: Floats) -> Floats:
    """Return float16 or float32 in the machine's byte order; float64 is narrowed, and copied only where need be."""
    kind = np.float16 if vectors.dtype.itemsize == 2 else np.float32
    with np.errstate(over="ignore"):  # an infinity fails with its reason later
        return np.ascontiguousarray(vectors, kind)


def _numbers(values: pa.Array) -> Floats:
    kind = _NUMPY_TYPES[values.type]
    if not len(values):
        return np.empty(0, kind)
    numbers = np.frombuffer(values.buffers()[1], kind)[values.offset : values.offset + len(values)]
    if values.null_count:
        numbers = numbers.copy()
        numbers[values.is_null().to_numpy(zero_copy_only=False)] = np.nan
    return numbers
