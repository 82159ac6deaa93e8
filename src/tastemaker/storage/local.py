"""Places on this machine."""

from __future__ import annotations

import errno
import glob
import json
import os
import socket
import stat
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import filelock

from tastemaker.errors import ConfigurationError
from tastemaker.storage.drafts import FULL, make_durable
from tastemaker.storage.inputs import without_results
from tastemaker.storage.place import Entry, Lock, Place, Watch
from tastemaker.storage.ranges import Ranges
from tastemaker.storage.unfinished import DRAFT_PREFIX, Draft


class LocalPlace(Place):
    """A path on this machine."""

    options: dict[str, Any] = {}  # noqa: RUF012 - never written to

    def __init__(self, path: str, _options: Mapping[str, Any] | None = None) -> None:
        self.address = os.path.dirname(path) or path if path.endswith(os.sep) else path

    @property
    def local_path(self) -> Path:
        return Path(self.address)

    def __fspath__(self) -> str:
        return self.address

    def __str__(self) -> str:
        return self.address

    def _key(self) -> str:
        return os.path.abspath(self.address)

    @property
    def name(self) -> str:
        return self.local_path.name

    @property
    def parent(self) -> Place:
        return LocalPlace(str(self.local_path.parent))

    def __truediv__(self, below: str) -> Place:
        return LocalPlace(os.path.join(self.address, *below.split("/")))

    def stat(self) -> Entry | None:
        try:
            status = os.stat(self.address)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return None if stat.S_ISDIR(status.st_mode) else self._entry(status)

    def _entry(self, status: os.stat_result) -> Entry:
        version = f"{status.st_mtime_ns}-{status.st_ino}"
        return Entry(self, status.st_size, status.st_mtime, version)

    def is_gone(self) -> bool:
        try:
            os.lstat(self.address)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:  # it is in a folder that may not be searched now
            return False
        # A folder has a row while it cannot be read.
        return os.path.isdir(self.address) and os.access(self.address, os.R_OK | os.X_OK)

    def is_folder(self) -> bool:
        return os.path.isdir(self.address)

    @property
    def is_pattern(self) -> bool:
        return glob.has_magic(self.address) and not os.path.lexists(self.address)

    def resolve(self) -> Place:
        if os.path.isdir(self.address):
            return LocalPlace(os.path.realpath(self.address))
        folder, name = os.path.split(self.address)
        return LocalPlace(os.path.join(os.path.realpath(folder), name))

    def glob(self, watch: Watch = iter) -> list[Entry]:
        places = map(LocalPlace, sorted(glob.glob(_escape_existing(self.address), recursive=True)))
        return [place.stat() or Entry(place, 0, is_folder=place.is_folder()) for place in watch(places)]

    def list_inputs(self, watch: Watch = iter) -> list[Entry]:
        entries = without_results(watch(self._walk(self.address, for_input=True)), self.address)
        return sorted(entries, key=lambda entry: entry.place.address)

    def list(self, *, recursive: bool = True, watch: Watch = iter) -> list[Entry]:
        found = watch(self._walk(self.address or ".", recursive=recursive))
        return sorted(found, key=lambda entry: entry.place.address)

    def _walk(self, root: str, *, recursive: bool = True, for_input: bool = False) -> Iterator[Entry]:
        """Yield the files in a folder. For input: no hidden files, but also what is passed over or cannot be read."""
        folders = [root]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(folder) as items:
                    listed = list(items)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                if not for_input:
                    raise
                yield Entry(LocalPlace(folder), 0, is_folder=True)
                continue
            for item in listed:
                is_hidden = for_input and item.name.startswith(".")
                try:
                    if item.is_dir(follow_symlinks=False) and not is_hidden:
                        folders += [item.path] if recursive else []
                    elif for_input and item.is_dir():
                        what = "hidden folder" if is_hidden else "linked folder"
                        yield Entry(LocalPlace(item.path), 0, is_folder=True, passed_over=what)
                    elif not is_hidden and (for_input or (item.is_file() and not item.name.startswith(DRAFT_PREFIX))):
                        yield LocalPlace(item.path)._entry(item.stat())
                except OSError:  # a link that leads nowhere, or to itself: to read it says so
                    if not is_hidden:
                        yield Entry(LocalPlace(item.path), 0)

    def open(self) -> BinaryIO:
        _check_regular(self.address)
        return open(self.address, "rb")

    def open_ranges(self) -> LocalRanges:
        return LocalRanges(self.address)

    def read(self, max_bytes: int | None = None) -> bytes:
        with open(self.address, "rb") as file:
            return file.read(-1 if max_bytes is None else max_bytes)

    def draft(self, beside: Place | None = None) -> Draft:
        beside_path = self.local_path if beside is None else Path(beside.address)
        beside_path.parent.mkdir(parents=True, exist_ok=True)
        name = os.fsdecode(os.fsencode(f"{DRAFT_PREFIX}{uuid.uuid4().hex[:12]}-{self.name}")[:250])
        return Draft(beside_path.with_name(name), self._put)

    def _put(self, draft: Path) -> None:
        make_durable(draft)
        self.local_path.parent.mkdir(parents=True, exist_ok=True)
        draft.replace(self.address)

    def write(self, data: bytes) -> None:
        try:
            with self.draft() as draft:
                draft.path.write_bytes(data)
        except OSError as error:
            if error.filename is not None and DRAFT_PREFIX in str(error.filename):
                error.filename = self.address  # a reader of the error knows no drafts
            raise

    def delete(self) -> None:
        self.local_path.unlink(missing_ok=True)

    def remove_drafts(self) -> None:
        for leftover in self.local_path.rglob(f"{DRAFT_PREFIX}*"):
            leftover.unlink(missing_ok=True)

    def make_folder(self) -> None:
        try:
            self.local_path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.address):  # a folder may be there on a disk that is read only
                pass
        except OSError as error:
            if error.errno in FULL:
                raise
            why = "a file has that name" if isinstance(error, FileExistsError) else error.strerror
            raise ConfigurationError(f"{self} cannot be written to: {why}; choose another place") from error

    def lock(self) -> Lock:
        return _FileLock(self.local_path)


def _escape_existing(pattern: str) -> str:
    """Return a pattern in which existing folders with special characters are escaped: ``photos [2020]/*``."""
    at = len(pattern)
    while at > 0 and not os.path.lexists(pattern[:at]):
        at = pattern[:at].rfind(os.sep) if os.sep in pattern[:at] else 0
    return glob.escape(pattern[:at]) + pattern[at:]


def _check_regular(path: str) -> None:
    """Raise `OSError` for anything but a regular file: opening a pipe could wait for ever."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        os.scandir(path).close()  # raises where it cannot be read, either
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "is no file", path)


class LocalRanges(Ranges):
    """A file on this machine, read by position."""

    def __init__(self, path: str) -> None:
        _check_regular(path)
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by close()
        self._end = os.fstat(self._file.fileno()).st_size
        self._lock = threading.Lock()

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``offset``."""
        with self._lock:  # blocks are read ahead in threads
            self._file.seek(offset)
            size = min(size, max(0, self._end - offset))
            data = self._file.read(size)
            while data and len(data) < size and (more := self._file.read(size - len(data))):
                data += more
        return data

    def holds(self, size: int) -> bool:
        """Return whether the file has that many bytes."""
        return size <= self._end

    def size_bytes(self) -> int:
        """Return how many bytes the file had when it was opened."""
        return self._end

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _FileLock(Lock):
    """A lock of the operating system on a file. Its holder writes its name into the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = filelock.FileLock(path)

    def acquire(self, wait_s: float = 0.0) -> bool:
        LocalPlace(str(self._path.parent)).make_folder()
        try:
            self._lock.acquire(timeout=-1 if wait_s == float("inf") else wait_s)
        except filelock.Timeout:
            return False
        with suppress(OSError):  # Windows lets nobody write to a file that is locked; the disk may be full
            self._path.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        return True

    def release(self) -> None:
        self._lock.release()

    def check(self) -> None:
        pass

    def is_held(self, wait_s: float = 0.0) -> bool:
        lock = filelock.FileLock(self._path)
        if not self._path.exists():
            return False
        try:
            lock.acquire(timeout=wait_s)
        except filelock.Timeout:
            return True
        lock.release()
        return False

    def holder(self) -> str:
        try:
            found = json.loads(self._path.read_text())
            return f"process {found['pid']} on {found['host']}"
        except (OSError, ValueError, KeyError, TypeError):
            return ""
