"""Errors that go from a worker to the driver with what caused them, which pickle alone leaves behind."""

from __future__ import annotations

import pickle
from itertools import pairwise

from tastemaker.errors import StageError


def pickle_error(error: BaseException) -> bytes:
    """Return an error and its causes; one that cannot travel becomes a `StageError` with the same words."""
    from ray import cloudpickle

    parts: list[bytes] = []
    cause: BaseException | None = error
    while cause is not None:
        try:
            pickled: bytes = cloudpickle.dumps(cause)
            pickle.loads(pickled)
        except Exception:  # noqa: BLE001 - whatever its class does
            pickled = pickle.dumps(StageError(f"{type(cause).__name__}: {cause}"))
        parts.append(pickled)
        cause = cause.__cause__
    return pickle.dumps(parts)


def unpickle_error(pickled: bytes) -> Exception:
    """Return what `pickle_error` was given."""
    errors: list[Exception] = [pickle.loads(part) for part in pickle.loads(pickled)]
    for error, cause in pairwise(errors):
        error.__cause__ = cause
    return errors[0]
