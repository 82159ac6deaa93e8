"""Near-duplicates: pictures that look alike to CLIP."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tastemaker.errors import ConfigurationError, MissingExtraError, ModelError
from tastemaker.machine import usable_cores

MIN_SIMILARITY = 0.95
"""Cosine from which on two pictures count as near-duplicates. docs/embeddings.md says how it was chosen."""

EXACT_ROWS = 30_000
"""Up to so many embeddings every pair is compared, which takes seconds; more need the extra ``groups``."""

_ROUNDING = 2e-3  # the index holds float16: what is so near to the threshold is computed again
_BLOCK_ROWS = 65_536
_HASHED_ROWS = 8192
_CELLS_VISITED = 8
_TRAINING_ROUNDS = 6
_TRAINING_ROWS_PER_CELL = 40

Floats = npt.NDArray[np.floating]
Rows = npt.NDArray[np.int64]
Hits = tuple[Rows, Rows]
"""Limits (m + 1,) and rows: those near to query i are ``rows[limits[i]:limits[i + 1]]``."""


def group_duplicates(embeddings: Floats, *, min_similarity: float = MIN_SIMILARITY) -> Rows:
    """Return the group of each row: the number of the first row of its group, in the order of the input.

    The first row that is in no group yet begins one. Every later row that is in none, and whose cosine with it is
    ``min_similarity`` or more, belongs to it. So each member is near to the first: groups do not grow into chains
    whose ends have nothing in common. A row like no other is a group of its own, and so is one without an embedding
    (zero, NaN, infinite).

    Up to 30,000 rows are compared pair by pair. More go through an index (faiss, inverted lists) that misses few pairs:
    see docs/embeddings.md. Same input, same groups.

    Args:
        embeddings: float16 or float32 (n, d), of any length. May be memory-mapped.
        min_similarity: Cosine, in (0, 1].

    Raises:
        ConfigurationError: ``min_similarity`` is out of its range.
        ModelError: Another shape.
        MissingExtraError: More than 30,000 rows without the extra ``groups``.

    Example:
        >>> group_duplicates(np.array([[1, 0], [0, 1], [1, 0.1], [np.nan, 0]], np.float32)).tolist()
        [0, 1, 0, 3]
    """
    if not 0 < min_similarity <= 1:
        raise ConfigurationError(f"min_similarity={min_similarity} is not in (0, 1]")
    if embeddings.ndim != 2 or not np.issubdtype(embeddings.dtype, np.floating):
        raise ModelError(f"embeddings must be floats of shape (n, d), not {embeddings.dtype} {embeddings.shape}")
    groups, is_usable = np.arange(len(embeddings)), _is_usable(embeddings)
    originals = _first_of_identical(embeddings)
    usable = np.flatnonzero(is_usable & (originals == groups))
    if len(usable) > 1:
        index: _Search = (
            _ExactSearch(embeddings, usable) if len(usable) <= EXACT_ROWS else _IndexSearch(embeddings, usable)
        )
        groups[usable] = usable[_group(index, len(usable), min_similarity)]
    return np.where(is_usable, groups[originals], np.arange(len(embeddings)))


class _Search(Protocol):
    def near(self, rows: Rows, min_similarity: float) -> Hits: ...

    @property
    def batch(self) -> int: ...


def _group(index: _Search, count: int, min_similarity: float) -> Rows:
    """Return the first member of each row's group. Only rows that are in no group yet are searched for."""
    groups = np.full(count, -1)
    position = 0
    while position < count:
        waiting = position + np.flatnonzero(groups[position : position + 8 * index.batch] < 0)
        if not len(waiting):
            position += 8 * index.batch
            continue
        queries = waiting[: index.batch]
        limits, near = index.near(queries, min_similarity)
        for number in np.flatnonzero(np.diff(limits) > 1):  # the others are near to themselves only
            first = queries[number]
            if groups[first] < 0:
                members = near[limits[number] : limits[number + 1]]
                groups[members[groups[members] < 0]] = first
        alone = queries[groups[queries] < 0]
        groups[alone] = alone
        position = int(queries[-1]) + 1
    return groups


class _ExactSearch:
    """Compares rows with all rows behind them."""

    batch = 512

    def __init__(self, embeddings: Floats, usable: Rows) -> None:
        self._vectors = _unit(embeddings, usable)

    def near(self, rows: Rows, min_similarity: float) -> Hits:
        first = int(rows[0])
        similarities = self._vectors[rows] @ self._vectors[first:].T  # (m, n - first)
        queries, hits = np.nonzero(similarities >= min_similarity)
        return np.searchsorted(queries, np.arange(len(rows) + 1)), hits + first


class _IndexSearch:
    """Compares rows with those in the nearest cells of a k-means partition. The seed is fixed."""

    batch = 4096

    def __init__(self, embeddings: Floats, usable: Rows) -> None:
        faiss = _import_faiss()
        faiss.omp_set_num_threads(usable_cores())  # not all of the machine's, where a control group allows fewer
        self._embeddings, self._usable = embeddings, usable
        count, size = len(usable), embeddings.shape[1]
        cells = int(4 * count**0.5)
        quantizer = faiss.IndexFlatIP(size)
        self._index = faiss.IndexIVFScalarQuantizer(
            quantizer, size, cells, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False
        )
        self._index.nprobe = _CELLS_VISITED
        self._index.cp.niter, self._index.cp.spherical = _TRAINING_ROUNDS, True
        sample = np.linspace(0, count - 1, min(count, cells * _TRAINING_ROWS_PER_CELL)).astype(np.int64)
        self._index.train(_unit(embeddings, usable[sample]))
        for start in range(0, count, _BLOCK_ROWS):
            self._index.add(_unit(embeddings, usable[start : start + _BLOCK_ROWS]))

    def near(self, rows: Rows, min_similarity: float) -> Hits:
        queries = _unit(self._embeddings, self._usable[rows])
        limits, similarities, near = self._index.range_search(queries, min_similarity - _ROUNDING)
        owners = np.repeat(np.arange(len(rows)), np.diff(limits.astype(np.int64)))
        keep = similarities >= min_similarity + _ROUNDING
        unsure = np.flatnonzero(~keep)
        for start in range(0, len(unsure), _BLOCK_ROWS):
            part = unsure[start : start + _BLOCK_ROWS]
            others = _unit(self._embeddings, self._usable[near[part]])
            keep[part] = np.einsum("ij,ij->i", queries[owners[part]], others) >= min_similarity
        keep &= near >= rows[owners]  # what lies before has been searched for already
        order = np.lexsort((near[keep], owners[keep]))
        return np.searchsorted(owners[keep], np.arange(len(rows) + 1)), near[keep][order]


def _first_of_identical(embeddings: Floats) -> Rows:
    """Return for each row the first row with the same bytes.

    A picture that comes a thousand times (a placeholder, say) would fill cells of the index with itself.
    """
    words = np.random.default_rng(0).integers(0, 2**64, embeddings.shape[1], np.uint64)
    hashes = np.zeros(len(embeddings), np.uint64)
    bits = f"u{embeddings.dtype.itemsize}"
    for start in range(0, len(embeddings), _HASHED_ROWS):
        block = np.ascontiguousarray(embeddings[start : start + _HASHED_ROWS]).view(bits)
        hashes[start : start + len(block)] = (block * words).sum(axis=1)
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    originals = first[inverse]
    copies = np.flatnonzero(originals != np.arange(len(originals)))
    for start in range(0, len(copies), _HASHED_ROWS):  # equal hashes prove nothing
        part = copies[start : start + _HASHED_ROWS]
        differ = (embeddings[part] != embeddings[originals[part]]).any(axis=1)
        originals[part[differ]] = part[differ]
    return originals


def _is_usable(embeddings: Floats) -> npt.NDArray[np.bool_]:
    usable = np.zeros(len(embeddings), np.bool_)
    for start in range(0, len(embeddings), _BLOCK_ROWS):
        block = np.asarray(embeddings[start : start + _BLOCK_ROWS], np.float32)
        squares = np.einsum("ij,ij->i", block, block)
        usable[start : start + len(block)] = np.isfinite(squares) & (squares > 0)
    return usable


def _unit(embeddings: Floats, rows: Rows) -> npt.NDArray[np.float32]:
    """Return rows as float32 of unit length."""
    wide = embeddings[rows].astype(np.float32)
    wide /= np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None]
    return wide


def _import_faiss() -> Any:  # noqa: ANN401 - faiss ships no types
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError(
            f'grouping more than {EXACT_ROWS:,} embeddings needs an index: pip install "tastemaker[groups]"'
        ) from error
    return faiss
