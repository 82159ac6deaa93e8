"""Who may write to an output directory: one run on the whole of it, or several on slices of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock

from tastemaker.errors import ConfigurationError
from tastemaker.runs.index import is_local
from tastemaker.runs.lease import Lease, is_lease_alive
from tastemaker.runs.options import Slice
from tastemaker.runs.runfile import read_holder
from tastemaker.scores.layout import STATE_FOLDER

LOCK_NAME = ".tastemaker.lock"

GRACE_S = 2.0
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
def only_run_on(output_dir: Path, part: Slice | None = None, *, wait: bool = False) -> Iterator[Hold]:
    """Keep other runs out of a directory, or out of a slice of it, until the block ends.

    On file systems of this machine locks go with the process that holds them. In object stores a lease does, which
    runs out a minute after its holder stopped renewing it.

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
        kind = _Locks(output_dir) if is_local(output_dir) else _Leases(output_dir)
        while True:
            try:
                hold = _take(kind, part, held, starting)
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

    def __init__(self, kind: _Locks | _Leases, name: str) -> None:
        super().__init__((f", slice {name.replace('-', ' ')}" if name else "") + kind.holder(name))


def _take(kind: _Locks | _Leases, part: Slice | None, held: ExitStack, starting: ExitStack) -> Hold:
    """Take the lock of the whole or of a slice, then look that nobody has one that excludes it.

    Each side takes first and looks then, so of two that begin together at least one sees the other.
    """
    if part is not None:
        starting.enter_context(kind.start())
    own = "" if part is None else str(part)
    lock = kind.take(own)
    with ExitStack() as undo:
        undo.callback(lock.release)
        others = [name for name in kind.slices() if name != own]
        beside = [name for name in others if part is not None and name.endswith(f"-of-{part.total}")]
        excluding = [*([""] if part is not None else []), *(name for name in others if name not in beside)]
        for name in excluding:
            if kind.is_held(name, GRACE_S):
                raise _TakenError(kind, name)
        # Only one slice begins at a time, so nobody looks at these locks now: one look each is enough.
        is_alone = not any(kind.is_held(name, 0) for name in beside)
        undo.pop_all()
    held.callback(lock.release)
    return Hold(is_alone, lock.check if isinstance(lock, Lease) else lambda: None, starting.close)


class _Locks:
    """Locks of files. Who holds one stands in the run's own file."""

    def __init__(self, output_dir: Path) -> None:
        self._output_dir = output_dir

    def path(self, name: str) -> Path:
        if not name:
            return self._output_dir / LOCK_NAME
        folder = self._output_dir / STATE_FOLDER
        folder.mkdir(exist_ok=True)
        return folder / f"slice-{name}.lock"

    def slices(self) -> list[str]:
        folder = self._output_dir / STATE_FOLDER
        return sorted(p.name.removeprefix("slice-").removesuffix(".lock") for p in folder.glob("slice-*-of-*.lock"))

    @contextmanager
    def start(self) -> Iterator[None]:
        """Let one slice begin at a time."""
        folder = self._output_dir / STATE_FOLDER
        folder.mkdir(exist_ok=True)
        with filelock.FileLock(folder / "start.lock"):
            yield

    def take(self, name: str) -> filelock.BaseFileLock:
        lock = filelock.FileLock(self.path(name))
        try:
            lock.acquire(timeout=GRACE_S)
        except filelock.Timeout:
            raise _TakenError(self, name) from None
        return lock

    def is_held(self, name: str, grace_s: float) -> bool:
        lock = filelock.FileLock(self.path(name))
        try:
            lock.acquire(timeout=grace_s)
        except filelock.Timeout:
            return True
        lock.release()
        return False

    def holder(self, name: str) -> str:
        return read_holder(self._output_dir, name)


class _Leases:
    """Leases in an object store."""

    def __init__(self, output_dir: Path) -> None:
        self._folder = output_dir / STATE_FOLDER
        self._folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        return self._folder / (f"lease-{name}.json" if name else "lease.json")

    def slices(self) -> list[str]:
        return sorted(
            p.name.removeprefix("lease-").removesuffix(".json") for p in self._folder.glob("lease-*-of-*.json")
        )

    @contextmanager
    def start(self) -> Iterator[None]:
        """Do nothing: leftovers of object stores are not cleared by slices."""
        yield

    def take(self, name: str) -> Lease:
        lease = Lease(self.path(name))
        if not lease.acquire():
            raise _TakenError(self, name)
        return lease

    def is_held(self, name: str, _grace_s: float) -> bool:
        return is_lease_alive(self.path(name))

    def holder(self, name: str) -> str:
        return Lease(self.path(name)).holder()
