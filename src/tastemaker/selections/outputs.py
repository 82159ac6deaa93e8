"""The place that a selection is written to: held by one process at a time, and filled all at once."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from tastemaker.errors import ConfigurationError
from tastemaker.scores.files import TEMPORARY_PREFIX
from tastemaker.storage.drafts import make_durable

RECORD = "_tastemaker/selection.json"
"""In a folder that `select` wrote: what was asked for. Nothing else is ever replaced."""

_LONGEST_NAME = 200


@contextmanager
def hold_output(path: Path) -> Iterator[PendingOutput]:
    """Keep other selections away from an output until the block ends; what a killed one left there is put right.

    Raises:
        ConfigurationError: Another process is writing to it, or its folder cannot be written to.
    """
    if not path.name:
        raise ConfigurationError(f"{path} is no place for an output; name a file or a folder")
    output = PendingOutput(path)
    lock = filelock.FileLock(output.lock)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        output.lock.touch()  # filelock takes whatever the system refuses in /proc for another holder
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise ConfigurationError(f"another process is writing to {path}; wait for it, or choose another") from None
    except OSError as error:
        raise ConfigurationError(f"{path.parent} cannot be written to: {error.strerror}") from error
    try:
        output.clear()
        yield output
    finally:
        output.clear()
        output.lock.unlink(missing_ok=True)  # while it is held: who opened it meanwhile sees that it has no name
        lock.release()


class PendingOutput:
    """A file or folder under a temporary name beside its final one. `commit` moves it there.

    The names follow from the final one, so that the next process finds what a killed one left. Only the holder of the
    lock, which ends with its process, touches them.

    Attributes:
        path: The final name.
        draft: The temporary one, with the same extension; nothing is there at first.
        lock: The file whose lock is held.
    """

    def __init__(self, path: Path) -> None:
        name = path.name
        if len(name.encode("utf-8", "surrogateescape")) > _LONGEST_NAME:
            name = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest() + path.suffix[:20]
        self.path = path
        self.draft = path.with_name(f"{TEMPORARY_PREFIX}{name}")
        self.lock = path.with_name(f"{TEMPORARY_PREFIX}{name}.lock")
        self._old = path.with_name(f"{TEMPORARY_PREFIX}{name}.old")

    def clear(self) -> None:
        """Delete what was not made visible; a folder that was about to be replaced comes back."""
        if self._old.exists() and not self.path.exists():
            self._old.rename(self.path)
        _remove(self._old)
        _remove(self.draft)

    def commit(self) -> None:
        """Make the draft durable, then visible, in place of what is there."""
        for path in [self.draft, *self.draft.rglob("*")]:
            if path.is_file() and not path.is_symlink():
                make_durable(path)
        if self.draft.is_dir() and self.path.exists():
            self.path.rename(self._old)  # no file system replaces a folder that is not empty
        self.draft.replace(self.path)
        _remove(self._old)


def check_folder(path: Path, record: str, *, overwrite: bool) -> None:
    """Raise `ConfigurationError` unless a folder may be written: it is empty, or `select` wrote it and may again."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    before = path / RECORD
    if not before.is_file():
        raise ConfigurationError(f"{path} is there, and select did not write it: choose another, or empty it yourself")
    if not overwrite and before.read_text() != record:
        raise ConfigurationError(f"{path} holds another selection; choose another folder, or say --overwrite")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
