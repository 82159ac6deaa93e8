"""The input files that rows were made from: enough of each to see whether it changed."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace

from tastemaker.errors import RemoteError
from tastemaker.storage import Options, is_remote, public_url
from tastemaker.storage.place import Place
from tastemaker.tasks import FileGroupTask

SourceFile = tuple[str, int, str]
"""Path as it was given, size in bytes, and version: the time of change in nanoseconds, or an ETag."""

UNKNOWN = "unknown"
"""Version of a remote file whose server did not answer."""


@dataclass(frozen=True)
class Sources:
    """The files of one partition.

    Attributes:
        files: In the order of their rows.
        root: The input folder of loose files, as it was given; empty for shards.
        place: The same as an absolute path, so that two spellings of one folder are known as one.
    """

    files: tuple[SourceFile, ...]
    root: str = ""
    place: str = ""

    def as_json(self) -> dict[str, object]:
        """Return what the metadata of a rows file holds."""
        return {"root": self.root, "place": self.place, "files": [list(file) for file in self.files]}


def read_sources(text: str) -> Sources | None:
    """Return what the metadata of a rows file says; None where it says nothing that can be used."""
    try:
        found = json.loads(text)
        files = tuple((str(path), int(size), str(version)) for path, size, version in found["files"])
        return Sources(files, found["root"], found["place"])
    except (ValueError, TypeError, KeyError):
        return None


def describe_sources(group: FileGroupTask) -> Sources:
    """Return the files of a partition as they are now."""
    options = group.partition.storage_options
    files = tuple(_describe_patiently(path, options) for path in group.data)
    if not group.partition.is_loose:
        return Sources(files)
    root = group.partition.root
    return Sources(files, root, root if is_remote(root) else os.path.abspath(root))


def describe_file(path: str, options: Options | None = None) -> SourceFile:
    """Return size and version of one file; -1 and an empty version for one that is not there.

    One that is there and cannot be looked at, such as a link that leads nowhere, has the size 0: reading it fails, and
    makes a row. Of a remote file that was listed before, the listing says so, without another request.

    Args:
        path: A local path or a URL.
        options: Settings of the URL's store.
    """
    if is_remote(path):
        entry = Place.at(path, options).stat()
        return (public_url(path), entry.size, entry.version) if entry else (public_url(path), -1, "")
    try:
        found = os.stat(path)
    except OSError:
        return path, -1 if is_gone(path) else 0, ""
    return path, found.st_size, str(found.st_mtime_ns)


def with_known(now: Sources, before: Sources) -> Sources:
    """Return the files as they are now; one whose server did not answer counts as unchanged."""
    known = {file[0]: file for file in before.files}
    files = tuple(known.get(file[0], file) if file[2] == UNKNOWN else file for file in now.files)
    return replace(now, files=files)


def _describe_patiently(path: str, options: Options | None) -> SourceFile:
    try:
        return describe_file(path, options)
    except RemoteError:
        return public_url(path), 0, UNKNOWN


def is_gone(path: str, options: Options | None = None) -> bool:
    """Return whether a file that was there once is not there any more.

    One in a folder that may not be searched now is not known to be gone.
    """
    if is_remote(path):
        return describe_file(path, options)[1] < 0
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return os.path.isdir(path) and os.access(path, os.R_OK | os.X_OK)  # a folder has a row while it cannot be read
