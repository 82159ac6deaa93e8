"""Who may write to an output directory: one run on the whole of it, or several on slices of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tastemaker.errors import ConfigurationError
from tastemaker.runs.options import Slice
from tastemaker.scores.layout import STATE_FOLDER
from tastemaker.storage.place import Lock, Place

_WHOLE = "run.lock"
_START = "start.lock"
"""Held by a slice while it begins: one does at a time."""

_GRACE_S = 2.0
"""A lock that others only look at, to see whether it is held, is theirs for a moment: so long is tried."""

_POLL_S = 0.5


@dataclass(frozen=True)
class Hold:
    """A run's right to write.

    Attributes:
        is_alone: No other run writes to the directory, nor can one begin before `release_start`.
        check: Raises `ConfigurationError` once the right is lost, which only a lease can be.
        release_start: Lets other slices begin.
    """

    is_alone: bool
    check: Callable[[], None]
    release_start: Callable[[], None]


@contextmanager
def only_run_on(output_dir: Place, part: Slice | None = None, *, wait: bool = False) -> Iterator[Hold]:
    """Keep other runs out of a directory, or out of a slice of it, until the block ends.

    Args:
        output_dir: Directory of the results; it is there.
        part: The slice; None for the whole directory.
        wait: Wait for the other run instead of refusing.

    Raises:
        ConfigurationError: Another run writes there.
    """
    with ExitStack() as held:
        starting = ExitStack()
        held.callback(starting.close)
        while True:
            try:
                hold = _take(output_dir / STATE_FOLDER, part, held, starting)
                break
            except _TakenError as error:
                starting.close()
                if not wait:
                    raise ConfigurationError(
                        f"another run is writing to {output_dir}{error}; wait for it (--wait does), "
                        "or choose another directory"
                    ) from None
                time.sleep(_POLL_S)
        yield hold


class _TakenError(Exception):
    """Another run holds the place. The message is what is known of it."""

    def __init__(self, name: str, lock: Lock) -> None:
        part = name.removeprefix("run").removesuffix(".lock").strip("-").replace("-", " ")
        holder = lock.holder()
        super().__init__((f", slice {part}" if part else "") + (f" ({holder})" if holder else ""))


def _take(folder: Place, part: Slice | None, held: ExitStack, starting: ExitStack) -> Hold:
    """Take the lock of the whole or of a slice, then look that nobody has one that excludes it.

    Each side takes first and looks then, so of two that begin together at least one sees the other.
    """
    if part is not None:
        starting.enter_context((folder / _START).lock())
    own = _WHOLE if part is None else f"run-{part}.lock"
    lock = (folder / own).lock()
    if not lock.acquire(_GRACE_S):
        raise _TakenError(own, lock)
    with ExitStack() as undo:
        undo.callback(lock.release)
        names = [entry.place.name for entry in folder.list(recursive=False)]
        others = [name for name in names if name.startswith("run-") and name.endswith(".lock") and name != own]
        beside = [name for name in others if part is not None and name.endswith(f"-of-{part.total}.lock")]
        excluding = [*([_WHOLE] if part is not None else []), *(name for name in others if name not in beside)]
        for name in excluding:
            other = (folder / name).lock()
            if other.is_held(_GRACE_S):
                raise _TakenError(name, other)
        # Only one slice begins at a time, so nobody looks at these locks now: one look each is enough.
        is_alone = not any((folder / name).lock().is_held() for name in beside)
        undo.pop_all()
    held.callback(lock.release)
    return Hold(is_alone, lock.check, starting.close)
