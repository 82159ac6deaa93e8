"""What lies where: files and folders on this machine and at URLs, asked the same way."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tastemaker.errors import ConfigurationError, RemoteError
from tastemaker.storage import Options, is_pattern, is_remote, relative_to, walk_inputs, without_results
from tastemaker.storage.files import glob_files, list_files
from tastemaker.storage.place import Place

T = TypeVar("T")


def expand(paths: Iterable[str], is_wanted: Callable[[str], bool], options: Options | None) -> Iterator[str]:
    """Yield paths, with what a pattern fits in its place; a pattern that fits nothing stays.

    A pattern of URLs is looked up only where its own ending is wanted, or is a pattern too: a listing takes long.
    """
    for path in paths:
        if not is_remote(path):
            matches = [] if os.path.exists(path) else sorted(glob.glob(path, recursive=True))
            yield from matches or [path]
        elif is_pattern(path) and (is_wanted(path) or path.endswith("*")):
            yield from [entry.path for entry in _ask(lambda: glob_files(path, options))] or [path]  # noqa: B023
        else:
            yield path


def is_file(path: str, options: Options | None) -> bool:
    """Return whether there is a file."""
    if not is_remote(path):
        return os.path.isfile(path)
    try:
        return Place.at(path, options).is_file()
    except RemoteError as error:
        if path.startswith("http") and getattr(error.__cause__, "status", None) in (401, 403):
            return False  # many web servers say so of what is not there
        raise ConfigurationError(str(error)) from error


def may_be_folder(path: str, extensions: tuple[str, ...]) -> bool:
    """Return whether files may lie below a path: a folder; a URL in a store with listings that ends like no file."""
    if not is_remote(path):
        return os.path.isdir(path)
    is_named_like_a_file = path.lower().endswith(extensions)
    return not path.startswith("http") and not is_pattern(path) and not is_named_like_a_file


def list_below(root: str, options: Options | None = None) -> Iterator[str]:
    """Yield the files below a folder, and Lance tables, which are folders; without what is hidden, and results."""
    if not is_remote(root):
        yield from _walk(root)
        return
    tables: set[str] = set()
    url = root.rstrip("/")
    for entry in without_results(_ask(lambda: list_files(url, options)), url):
        below = relative_to(entry.path, url)
        if any(part.startswith((".", "_")) for part in below.split("/")):
            continue
        table = re.match(r"(.*?\.lance)/", below, re.IGNORECASE)
        if table is None:
            yield entry.path
        elif table[1] not in tables:
            tables.add(table[1])
            yield f"{url}/{table[1]}"


def size_of(path: str, options: Options | None) -> int:
    """Return the bytes of a file or of a Lance table; 0 where it is not there."""
    if is_remote(path):
        entry = Place.at(path, options).stat()
        return entry.size if entry else 0
    if os.path.isdir(path):
        return sum(os.path.getsize(os.path.join(f, name)) for f, _, names in os.walk(path) for name in names)
    return os.path.getsize(path) if os.path.exists(path) else 0


def _walk(root: str) -> Iterator[str]:
    for folder, folders, files in walk_inputs(root):
        tables = [name for name in folders if name.lower().endswith(".lance")]
        folders[:] = [name for name in folders if not name.startswith((".", "_")) and name not in tables]
        yield from (os.path.join(folder, name) for name in [*tables, *files] if not name.startswith((".", "_")))


def _ask(question: Callable[[], T]) -> T:
    """Return an answer of a server.

    Raises:
        ConfigurationError: It does not answer, or denies it.
    """
    try:
        return question()
    except RemoteError as error:
        raise ConfigurationError(str(error)) from error
