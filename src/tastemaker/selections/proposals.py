"""Which pictures to rate next, so that few ratings teach much."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

PENALTY = 0.1
"""Of the ridge regression whose uncertainty is asked. docs/decisions/0031 has what others did."""

Floats = npt.NDArray[np.floating]


def propose(pictures: Floats, rated: Floats, is_rated: npt.NDArray[np.bool_], count: int) -> npt.NDArray[np.int64]:
    """Return the pictures whose ratings would tell most about all pictures, the most telling first.

    A rating of x lowers the variance that ridge regression has for the pictures X, summed over them, by
    ``|X A x|^2 / (1 + x A x)``, where A is the inverse of ``R'R + penalty`` and R are the rated pictures. The picture
    with the largest value is chosen and taken into R, and so on. What is uncertain and like many others comes first,
    and nothing that is like one chosen before. What the ratings say does not matter. Source: K. Yu, J. Bi and V. Tresp,
    "Active Learning via Transductive Experimental Design", ICML 2006, the sequential algorithm.

    Args:
        pictures: float (n, d), unit embeddings of all pictures, or of a sample of them.
        rated: float (m, d), those of the rated pictures.
        is_rated: bool (n,): these of ``pictures`` are not proposed.
        count: How many at most.

    Returns:
        int64 (k,), places in ``pictures``.
    """
    if not len(pictures):
        return np.empty(0, np.int64)
    centre = pictures.mean(axis=0, dtype=np.float64)
    everything, known = (pictures - centre).astype(np.float32), rated - centre
    spread = everything.T.astype(np.float64) @ everything  # (d, d)
    inverse = np.linalg.inv(known.T @ known + PENALTY * np.eye(pictures.shape[1]))
    variance = _quadratic(everything, inverse)
    lowered = _quadratic(everything, inverse @ spread @ inverse)
    is_out, chosen = is_rated.copy(), []
    for _ in range(min(count, int(np.count_nonzero(~is_out)))):
        best = int(np.where(is_out, -1, lowered / (1 + variance)).argmax())
        is_out[best] = True
        chosen.append(best)
        # The inverse with one picture more, by Sherman and Morrison's formula, and what that makes of the others.
        step, scale = inverse @ everything[best], 1 + float(variance[best])
        along, across = (everything @ part.astype(np.float32) for part in (step, inverse @ (spread @ step)))
        variance -= along**2 / scale
        lowered -= 2 * along * across / scale - float(step @ spread @ step) * (along / scale) ** 2
        inverse -= np.outer(step, step) / scale
    return np.array(chosen, np.int64)


def _quadratic(rows: npt.NDArray[np.float32], matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Return ``x' M x`` of each row, float32 (n,)."""
    found: npt.NDArray[np.float32] = np.einsum("nd,nd->n", rows @ matrix.astype(np.float32), rows)
    return found
