"""The nearest neighbours of a picture by its embedding, exactly."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tastemaker.errors import ModelError
from tastemaker.models.bulk import score_many

Floats = npt.NDArray[np.floating]


class EmbeddingIndex:
    """Finds the rows whose embeddings are nearest to one.

    Every row is compared, as fast as memory gives them: about half a second for a million on two cores. Nothing is
    built beforehand, and nothing is copied.

    Args:
        embeddings: float16 or float32 (n, d), of any length. May be memory-mapped.

    Raises:
        ModelError: Another shape or type.

    Example:
        >>> index = EmbeddingIndex(np.array([[1, 0], [0, 1], [0.9, 0.1]], np.float32))
        >>> rows, similarities = index.nearest(0, 1)
        >>> rows.tolist(), round(float(similarities[0]), 3)
        ([2], 0.994)
    """

    def __init__(self, embeddings: Floats) -> None:
        if embeddings.ndim != 2 or embeddings.dtype not in (np.float16, np.float32):
            raise ModelError(f"embeddings must be float16 or float32 (n, d), not {embeddings.dtype} {embeddings.shape}")
        self.embeddings = embeddings

    def nearest(self, query: int | npt.ArrayLike, k: int = 10) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return the ``k`` nearest rows, the nearest first, and their cosines; of equal ones the first.

        Args:
            query: The number of a row, which is not among the results, or an embedding (d,).
            k: How many at most. Rows without an embedding (zero, NaN) are never found.

        Raises:
            ModelError: The query is no embedding of that size, or has none.
        """
        row = int(query) if isinstance(query, int | np.integer) else None
        vector = np.asarray(query if row is None else self.embeddings[row], np.float64)
        length = np.linalg.norm(vector)
        if vector.shape != self.embeddings.shape[1:] or not (np.isfinite(length) and length > 0):
            raise ModelError(f"the query must be an embedding of {self.embeddings.shape[1]} numbers, not zero, not NaN")
        products, lengths = score_many(self.embeddings, vector / length, 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            cosines = products / lengths
        cosines[~np.isfinite(cosines)] = -np.inf
        if row is not None:
            cosines[row] = -np.inf
        found = _largest(cosines, k)
        return found, cosines[found]


def _largest(values: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.int64]:
    """Return where the ``k`` largest values are, the largest first, of equal ones the first; infinities are none."""
    k = min(k, int(np.count_nonzero(np.isfinite(values))))
    if k < 1:
        return np.empty(0, np.int64)
    smallest = np.partition(values, len(values) - k)[len(values) - k]
    candidates = np.flatnonzero(values >= smallest)
    return candidates[np.argsort(-values[candidates], kind="stable")][:k]
