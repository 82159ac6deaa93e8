"""The input files that a user means by files, folders and patterns."""

from __future__ import annotations

import hashlib
import mimetypes
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

from tastemaker.errors import ConfigurationError, RemoteError
from tastemaker.storage import SELECTION_FILE, STATE_FOLDER, canonical_url, expand_path, is_remote
from tastemaker.storage.place import Entry, Place, Watch

T = TypeVar("T")

SourceFile = tuple[str, int, str]
"""Path (of a URL what may be shown), size in bytes, and version: the time of change in nanoseconds, or an ETag."""

UNKNOWN_VERSION = "unknown"
"""Version of a file whose server did not answer."""

_AT_ONCE = 16
_TELL_S = 0.5
_MAY_HOLD_IMAGES = re.compile(r"image/|application/x-tar")

_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
_MOST_EXPANDED = 1_000_000


def name_inputs(given: Iterable[str | os.PathLike[str]] | str | os.PathLike[str]) -> list[str]:
    """Return the paths and URLs that a user named, with ``~``, variables and braces (``{00..99}``) expanded.

    Raises:
        ConfigurationError: Something else than paths was given.
    """
    if isinstance(given, str | os.PathLike):
        given = [given]
    if isinstance(given, bytes) or not isinstance(given, Iterable) or hasattr(given, "columns"):
        hint = "; give its column with the paths" if hasattr(given, "columns") else ""
        raise ConfigurationError(f"inputs are paths or URLs, or a list of them, not a {type(given).__name__}{hint}")
    names = []
    for name in given:
        if not isinstance(name, str | os.PathLike):
            kind = type(name).__name__
            raise ConfigurationError(f"an input is a path or a URL, as text or Path, and not of the type {kind}")
        names += _expand_braces(expand_path(name))
    return names


def _expand_braces(path: str) -> list[str]:
    """Return the paths that a path with braces stands for, as in WebDataset. A path that exists stands for itself.

    Example:
        >>> _expand_braces("{00..02}.tar"), _expand_braces("{a,b}.tar"), _expand_braces("x{1}.tar")
        (['00.tar', '01.tar', '02.tar'], ['a.tar', 'b.tar'], ['x{1}.tar'])
    """
    found = _BRACES.search(path)
    if found is None or (not is_remote(path) and os.path.lexists(path)):
        return [path]
    first, last, listed = found.groups()
    if listed is None:
        numbers = range(int(first), int(last) + 1)
        if len(numbers) > _MOST_EXPANDED:
            raise ConfigurationError(f"{path} stands for {len(numbers):,} paths; {_MOST_EXPANDED:,} are the most")
        parts = [f"{number:0{len(first)}d}" for number in numbers]
    else:
        parts = listed.split(",")
    return [name for part in parts for name in _expand_braces(path[: found.start()] + part + path[found.end() :])]


def source_of(place: Place) -> SourceFile:
    """Return what shows later whether a file has changed. A file that is not there has the size -1.

    One that is there and cannot be looked at, such as a link that leads nowhere, has the size 0.
    """
    try:
        entry = place.stat()
    except RemoteError:
        return str(place), 0, UNKNOWN_VERSION
    if entry is None:
        return str(place), -1 if place.is_gone() else 0, ""
    return source_from(entry)


def source_from(entry: Entry) -> SourceFile:
    """Return what shows later whether a file has changed: its path, size and version.

    On this machine the version is the time of change in nanoseconds, which a file keeps when it is moved.
    """
    version = entry.version if is_remote(entry.place.address) else entry.version.partition("-")[0]
    return str(entry.place), entry.size, UNKNOWN_VERSION if entry.problem else version


class Listing:
    """Finds the files that places stand for, as `find_inputs` does, each place once however often it is asked for.

    Args:
        on_found: Told twice a second how many files there are so far, where it takes that long.
    """

    def __init__(self, on_found: Callable[[int], None] = lambda _files: None) -> None:
        self._on_found = on_found
        self._known: dict[str, list[Entry]] = {}
        self._files, self._told = 0, time.monotonic()

    def __call__(self, place: Place) -> list[Entry]:
        """Return the files that a place stands for."""
        if place.address not in self._known:
            self._known[place.address] = find_inputs(place, self._watch)
        return self._known[place.address]

    def _watch(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        for entry in entries:
            self._files += 1
            if time.monotonic() - self._told > _TELL_S:
                self._told = time.monotonic()
                self._on_found(self._files)
            yield entry


def find_inputs(place: Place, watch: Watch = iter) -> list[Entry]:
    """Return the files that a place stands for: itself, those below a folder, or those that fit a pattern.

    What is hidden or was written by Tastemaker is left out. There are none where the place does not exist. Paths are
    real ones, so that a file has one path however its folder is spelt or linked. ``watch`` sees them pass while they
    are found.

    Raises:
        ConfigurationError: A web server has no list of its files.
        OSError: It cannot be asked for.
    """
    if not place.is_pattern:
        if not place.address.endswith("/") and (entry := place.stat()):
            return [_alone(each)._replace(is_named=True) for each in watch([entry])]
        return _below(place.resolve(), watch)
    found = []
    for entry in place.glob(watch):
        found += _below(entry.place.resolve(), watch) if entry.is_folder else [_alone(entry)]
    return found


def _below(folder: Place, watch: Watch) -> list[Entry]:
    root = folder.address.rstrip("/") or folder.address
    return [
        entry._replace(root=root, is_named=entry.is_folder and not entry.passed_over)
        for entry in folder.list_inputs(watch)
    ]


def _alone(entry: Entry) -> Entry:
    place = entry.place.resolve()
    return entry._replace(place=place, root=place.parent.address)


def map_places(work: Callable[[Place], T], places: Iterable[Place]) -> Iterator[T]:
    """Yield what ``work`` returns for each place, in order. Several URLs are worked on at the same time."""
    waiting: deque[Future[T]] = deque()
    with ExitStack() as stack:
        pool: ThreadPoolExecutor | None = None
        for place in places:
            if not is_remote(place.address):
                yield from (waiting.popleft().result() for _ in range(len(waiting)))
                yield work(place)
                continue
            if pool is None:
                pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="places")
                stack.callback(pool.shutdown, wait=False, cancel_futures=True)
            waiting.append(pool.submit(work, place))
            if len(waiting) == _AT_ONCE:
                yield waiting.popleft().result()
        yield from (future.result() for future in waiting)


def without_results(entries: Iterable[Entry], root: str) -> list[Entry]:
    """Return the files below an input folder without those that Tastemaker wrote: results are not input.

    Args:
        entries: The files.
        root: The input folder. One that a selection wrote is input all the same: somebody named it. So is one in which
            a pipeline wrote tars, where there is nothing else to read.
    """
    entries = list(entries)
    notes: dict[str, list[str]] = {}
    for path in (_slashes(entry.path) for entry in entries if STATE_FOLDER in entry.path):
        folder, separator, note = path.rpartition(f"/{STATE_FOLDER}/")
        if separator:
            notes.setdefault(folder, []).append(note)
    if not notes:
        return entries
    top = _spelling(root)
    passed_over = [f"{f}/" for f, named in notes.items() if SELECTION_FILE in named and _spelling(f) != top]
    passed_over += [f"{folder}/{name}/" for folder, named in notes.items() for name in _folders_of_results(named)]
    found = [entry for entry in entries if not _slashes(entry.path).startswith(tuple(passed_over))]
    records = {f: {note.split("/")[1] for note in named if note.startswith("written/")} for f, named in notes.items()}
    ours = {entry.path for entry in found if _is_written(_slashes(entry.path), records)}
    others = [entry for entry in found if entry.path not in ours]
    is_input = any(_MAY_HOLD_IMAGES.match(mimetypes.guess_type(entry.path)[0] or "") for entry in others)
    return others if is_input or not records.get(top) else found


def _is_written(path: str, records: Mapping[str, Set[str]]) -> bool:
    """Return whether a record lists a file: a record of its own, or the one of its partition's tars and rows."""
    for folder, digests in records.items():
        if digests and path.startswith(f"{folder}/"):
            name = path[len(folder) + 1 :]
            stem = re.sub(r"-\d{6}\.tar$|\.parquet$", "", name)
            if not digests.isdisjoint({digest_of(name), digest_of(stem)}):
                return True
    return False


def digest_of(name: str) -> str:
    """Return the name of the record of a single file, or of the files of a partition."""
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _slashes(path: str) -> str:
    return path.replace(os.sep, "/")


def _spelling(folder: str) -> str:
    return canonical_url(folder).rstrip("/") if is_remote(folder) else _slashes(folder).rstrip("/")


def _folders_of_results(notes: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the folders that a run made beside its notes."""
    is_of_run = any(note.startswith("run") and note.endswith(".json") for note in notes)
    return (STATE_FOLDER, "rows", "kept") if is_of_run else (STATE_FOLDER,)
