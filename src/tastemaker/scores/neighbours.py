"""The pictures of a score table that are nearest to one by their embeddings, in an exact search."""

from __future__ import annotations

from threading import Lock

import numpy as np
import numpy.typing as npt

from tastemaker.errors import ModelError
from tastemaker.models.bulk import score_many
from tastemaker.scores.table import ScoreTable

Floats = npt.NDArray[np.floating]
Found = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]

_ONE_AT_A_TIME = Lock()  # a search takes all cores, and what it multiplies with serves one thread


def nearest_rows(table: ScoreTable, query: int | npt.NDArray[np.floating], k: int = 10) -> Found:
    """Return the rows of a table whose embeddings are nearest to one, and their cosines with it.

    Every row is compared, as `cosines_of_rows` does. Rows without an embedding (null, zero, NaN) are never found.

    Args:
        table: With the column ``embedding``.
        query: The number of a row, which is not among the results, or an embedding (d,). Rows of pictures that are
            gone are never found, nor rows with embeddings of another dimension.
        k: How many at most.

    Returns:
        Row numbers, int64 (k,), the nearest first, of equal ones the first in the table; and cosines, float32 (k,).

    Raises:
        ConfigurationError: The table has no embeddings.
        ModelError: The row has none, or one of another dimension than most; or the query is none.
    """
    if not isinstance(query, int | np.integer):
        cosines = cosines_of_rows(table, query)
    else:
        cosines = cosines_of_rows(table, table.embeddings.take(np.array([query]))[0])
        cosines[query] = np.nan
    found = _largest(cosines, k)
    return found, cosines[found]


def cosines_of_rows(table: ScoreTable, vector: Floats) -> npt.NDArray[np.float32]:
    """Return the cosine of each row's embedding with a vector, in the order of the table.

    The embeddings come from ``table.embeddings``: a second search finds them in memory where there is room.

    Args:
        table: With the column ``embedding``.
        vector: An embedding (d,), of any length but zero.

    Returns:
        float32 (n,). NaN where there is no embedding (null, zero, NaN), one of another dimension, or where the picture
        is gone.

    Raises:
        ConfigurationError: The table has no embeddings.
        ModelError: The vector is none of the table's dimension.
    """
    unit = _unit(vector, table.embeddings.size)
    cosines, is_gone = np.full(len(table), np.nan, np.float32), np.ones(len(table), np.bool_)
    is_gone[table.present_rows()] = False

    def compare(start: int, block: Floats) -> None:
        cosines[start : start + len(block)] = _cosines(block, unit)

    with _ONE_AT_A_TIME:
        table.embeddings.visit(compare)
    cosines[is_gone] = np.nan
    return cosines


def _unit(vector: npt.NDArray[np.floating], size: int) -> npt.NDArray[np.float64]:
    wide = vector.astype(np.float64)
    length = np.linalg.norm(wide)
    if wide.shape != (size,) or not (np.isfinite(length) and length > 0):
        raise ModelError(f"the query must be an embedding of {size} numbers, not zero, not NaN")
    unit: npt.NDArray[np.float64] = wide / length
    return unit


def _cosines(embeddings: Floats, unit: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Return the cosine of each embedding with a vector of length 1: float32 (n,), NaN for those of no length."""
    products, lengths = score_many(embeddings, unit)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines: npt.NDArray[np.float32] = products / lengths
    cosines[~np.isfinite(cosines)] = np.nan
    return cosines


def _largest(values: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.int64]:
    """Return the positions of the ``k`` largest finite values, the largest first; equal values stay in order."""
    k = min(k, int(np.count_nonzero(np.isfinite(values))))
    if k < 1:
        return np.empty(0, np.int64)
    smallest = -np.partition(-values, k - 1)[k - 1]  # NaN is behind all others
    candidates = np.flatnonzero(values >= smallest)
    return candidates[np.argsort(-values[candidates], kind="stable")][:k]
