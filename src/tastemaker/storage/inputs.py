"""Which files a user means who names files, folders and patterns."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import NamedTuple, TypeVar

from tastemaker.storage import SELECTION_FILE, STATE_FOLDER, canonical_url, is_remote
from tastemaker.storage.place import Entry, Place

T = TypeVar("T")

_AT_ONCE = 16


class Input(NamedTuple):
    """A file of the input.

    Attributes:
        path: Its path or URL.
        root: The folder that its name counts from: the one that the user named, or its own.
        size: In bytes; 0 where that is not known.
        version: Another one after each change; empty where that is not known.
        is_named: The user named this very file; or it is a folder that cannot be read. It is input in any case.
        problem: Why it could not be looked at; empty where it could.
    """

    path: str
    root: str
    size: int = 0
    version: str = ""
    is_named: bool = False
    problem: str = ""


def find_inputs(place: Place) -> list[Input]:
    """Return the files that a place stands for: itself, those below a folder, or those that fit a pattern.

    What is hidden or was written by Tastemaker is left out. There are none where the place does not exist.

    Raises:
        ConfigurationError: A web server has no list of its files.
        OSError: It cannot be asked for.
    """
    if not place.is_pattern:
        if not place.address.endswith("/") and (entry := place.stat()):
            return [_input(entry, place.parent.address, is_named=True)]
        return _below(place)
    found = []
    for entry in place.glob():
        found += _below(entry.place) if entry.is_folder else [_input(entry, entry.place.parent.address)]
    return found


def _below(folder: Place) -> list[Input]:
    root = folder.address.rstrip("/") or folder.address
    return [_input(entry, root, is_named=entry.is_folder) for entry in folder.list_inputs()]


def _input(entry: Entry, root: str, *, is_named: bool = False) -> Input:
    return Input(entry.place.address, root, entry.size, entry.version, is_named)


def map_places(work: Callable[[Place], T], places: Iterable[Place]) -> Iterator[T]:
    """Yield what ``work`` returns for each place, in order. Behind URLs several are worked on at a time."""
    waiting: deque[Future[T]] = deque()
    with ExitStack() as stack:
        pool: ThreadPoolExecutor | None = None
        for place in places:
            if place.local_path is not None:
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
    """Return the files below an input folder that Tastemaker did not write: its results are not its input.

    Args:
        entries: The files.
        root: The input folder. One that a selection wrote is input all the same: somebody named it.
    """
    entries = list(entries)
    notes: dict[str, list[str]] = {}
    for path in (entry.path for entry in entries if STATE_FOLDER in entry.path):
        folder, found, note = path.replace(os.sep, "/").rpartition(f"/{STATE_FOLDER}/")
        if found and "/" not in note:
            notes.setdefault(folder, []).append(note)
    if not notes:
        return entries
    top = _spelling(root)
    passed_over = [f"{f}/" for f, named in notes.items() if SELECTION_FILE in named and _spelling(f) != top]
    passed_over += [f"{folder}/{name}/" for folder, named in notes.items() for name in _folders_of_results(named)]
    return [entry for entry in entries if not entry.path.replace(os.sep, "/").startswith(tuple(passed_over))]


def _spelling(folder: str) -> str:
    return canonical_url(folder).rstrip("/") if is_remote(folder) else folder.replace(os.sep, "/").rstrip("/")


def _folders_of_results(notes: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the folders that a run made beside its notes."""
    is_of_run = any(note.startswith("run") and note.endswith(".json") for note in notes)
    return (STATE_FOLDER, "rows", "kept") if is_of_run else (STATE_FOLDER,)
