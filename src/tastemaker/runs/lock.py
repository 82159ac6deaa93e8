"""Who may write to an output directory: one run on the whole of it, or several on slices of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from tastemaker.errors import ConfigurationError
from tastemaker.runs.options import Slice
from tastemaker.scores.layout import STATE_FOLDER
from tastemaker.storage.place import Lock, Place

_WHOLE = "run.lock"

_GRACE_S = 2.0
"""Looking at a lock takes it for a moment, so a run tries for so long before it believes that a lock is held."""

_POLL_S = 0.5


@contextmanager
def only_run_on(output_dir: Place, part: Slice | None = None, *, wait: bool = False) -> Iterator[Callable[[], None]]:
    """Keep other runs out of a directory, or out of a slice of it, until the block ends.

    Args:
        output_dir: Directory of the results; it exists.
        part: The slice; None for the whole directory.
        wait: Wait for the other run instead of refusing.

    Yields:
        A function that raises `ConfigurationError` once the right to write is lost, which can happen to a lease.

    Raises:
        ConfigurationError: Another run writes there.
    """
    while True:
        try:
            lock = _take(output_dir / STATE_FOLDER, part)
            break
        except _TakenError as error:
            if not wait:
                raise ConfigurationError(
                    f"another run is writing to {output_dir}{error}; wait for it (--wait does), "
                    "or choose another directory"
                ) from None
            time.sleep(_POLL_S)
    try:
        yield lock.check
    finally:
        lock.release()


class _TakenError(Exception):
    """Another run holds the lock. The message says what is known of that run."""

    def __init__(self, name: str, lock: Lock) -> None:
        part = name.removeprefix("run").removesuffix(".lock").strip("-").replace("-", " ")
        holder = lock.holder()
        super().__init__((f", slice {part}" if part else "") + (f" ({holder})" if holder else ""))


def _take(folder: Place, part: Slice | None) -> Lock:
    """Take the lock of the whole directory or of a slice, then check that nobody holds one that excludes it.

    Every run takes its own lock first and looks at the others after that. So of two runs that begin together, at least
    one sees the other.
    """
    own = _WHOLE if part is None else f"run-{part}.lock"
    lock = (folder / own).lock()
    if not lock.acquire(_GRACE_S):
        raise _TakenError(own, lock)
    with ExitStack() as undo:
        undo.callback(lock.release)
        names = [entry.place.name for entry in folder.list(recursive=False)]
        others = [name for name in names if name.startswith("run-") and name.endswith(".lock") and name != own]
        if part is not None:
            others = [_WHOLE, *(name for name in others if not name.endswith(f"-of-{part.total}.lock"))]
        for name in others:
            other = (folder / name).lock()
            if other.is_held(_GRACE_S):
                raise _TakenError(name, other)
        undo.pop_all()
    return lock
