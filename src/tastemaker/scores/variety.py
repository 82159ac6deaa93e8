"""The best pictures that are unlike each other: maximal marginal relevance on their embeddings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tastemaker.errors import ConfigurationError
from tastemaker.scores.locations import IntArray

VARIETY = 0.5
"""How much likeness to those chosen before counts against the place by score. 0 is the score alone."""

REACH, LEAST_REACH = 10, 2000
"""Pictures are chosen among so many times as many, the best by score; at least among so many."""

Vectors = Callable[[IntArray], tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]]
"""Gives the embeddings of some rows, ascending, float32 (m, d) of unit length, and which rows have one."""


def choose_varied(scores: npt.ArrayLike, vectors: Vectors, count: int, variety: float = VARIETY) -> IntArray:
    """Return the rows of the best pictures that are unlike each other, in the order in which they are chosen.

    They are chosen among the best by score: 10 times as many, and at least 2,000. The first is the best. Each next is
    the one with the largest ``(1 - variety) * place - variety * likeness``: its place among these by score, from 0 (the
    lowest) to 1 (the best), and its cosine with the chosen picture that it is most like. Of equal ones the first is
    taken. A row without a score (NaN) or an embedding is never chosen.

    Source: Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering documents and producing
    summaries", SIGIR 1998.

    Args:
        scores: float (n,).
        vectors: Called once. `tastemaker.scores.vectors.Vectors.take_unit` is one.
        count: How many; fewer where fewer can be chosen.
        variety: In [0, 1].

    Raises:
        ConfigurationError: ``variety`` or ``count`` is out of its range.

    Example:
        >>> units = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
        >>> choose_varied([7.0, 6.0, 5.0], lambda rows: (units[rows], np.ones(len(rows), bool)), 2).tolist()
        [0, 2]
    """
    if not 0 <= variety <= 1:
        raise ConfigurationError(f"a variety of {variety} is not from 0 to 1")
    if count < 1:
        raise ConfigurationError(f"{count} varied pictures cannot be chosen: say 1 or more")
    score = np.asarray(scores, np.float64)
    best = np.argsort(-score, kind="stable")[: np.count_nonzero(~np.isnan(score))]  # NaN is last
    rows = np.sort(best[: max(REACH * count, LEAST_REACH)])
    units, is_there = vectors(rows)
    places = np.searchsorted(np.sort(score[rows]), score[rows]) / max(len(rows) - 1, 1)
    worth = np.where(is_there, (1 - variety) * places, -np.inf)
    likeness, compared = np.full(len(rows), -1.0), np.zeros(len(rows), np.int64)  # compared with so many of the chosen
    values = worth - variety * likeness
    most = min(count, int(is_there.sum()))
    chosen, taken = np.empty(most, np.int64), np.empty((most, units.shape[1]), units.dtype)
    for number in range(most):
        # Likeness to the chosen only grows, so a value is a bound until it is compared with all of them.
        while compared[top := int(values.argmax())] < number:
            nearest = (taken[compared[top] : number] @ units[top]).max()
            likeness[top], compared[top] = max(likeness[top], nearest), number
            values[top] = worth[top] - variety * likeness[top]
        chosen[number], taken[number], values[top] = top, units[top], -np.inf
    return rows[chosen]
