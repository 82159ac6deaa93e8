"""A place in an object store that a selection is written to: objects one by one, the record of them last.

docs/decisions/0025-selections-at-urls.md says why.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from tastemaker.errors import ConfigurationError
from tastemaker.runs.lease import Lease
from tastemaker.scores.files import TEMPORARY_PREFIX, write_whole
from tastemaker.scores.sources import Original
from tastemaker.selections.copies import FolderCopies, number_of
from tastemaker.selections.outputs import RECORD
from tastemaker.storage import make_folder, public_url
from tastemaker.storage.files import find_file, list_files, options_of, publish, read_small
from tastemaker.storage.place import Place
from tastemaker.storage.uploads import Uploads

UNFINISHED = "_tastemaker/unfinished.json"
"""What was asked for, while it is being written: it says that what is there is of `select`, and not all of it."""

_LEASE = "_tastemaker/lease.json"
_PIECE = 2**23
_DELETED_AT_ONCE = 16


@contextmanager
def hold_url(path: Path, *, is_folder: bool) -> Iterator[UrlOutput]:
    """Keep other selections away from a URL until the block ends.

    Raises:
        ConfigurationError: Another process is writing to it; or there is no such bucket.
    """
    make_folder(path if is_folder else path.parent)
    output = UrlOutput(path)
    if not is_folder:  # one object, seen whole or not at all
        try:
            yield output
        finally:
            output.draft.unlink(missing_ok=True)
        return
    output.lease = lease = Lease(path / _LEASE)
    if not lease.acquire():
        raise ConfigurationError(
            f"another process is writing to {path}{lease.holder()}; wait for it, or choose another (a lease that "
            "nobody renews runs out in a minute)"
        )
    try:
        yield output
    finally:
        lease.release()


class UrlOutput:
    """A file or folder at a URL.

    Attributes:
        path: Its URL.
        draft: Where a file is written on this machine before `publish_file`.
        lease: What keeps others away from a folder.
    """

    def __init__(self, path: Path) -> None:
        from tastemaker.storage.drafts import draft_folder

        self.path = path
        self.lease: Lease | None = None
        self.draft = draft_folder() / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}{path.suffix}"

    def publish_file(self, *, overwrite: bool) -> None:
        """Put the draft where it is to be seen.

        Raises:
            ConfigurationError: Something else is there, and is not to be replaced.
        """
        if not overwrite and self._is_other():
            raise ConfigurationError(f"{self.path} is there with other content; choose another, or say --overwrite")
        publish(self.draft, self.path)

    def begin(self, record: str, *, overwrite: bool) -> None:
        """Look whether a folder may be written, empty it of another selection, and say that it is being written.

        So files of two selections never lie beside each other: a reader finds too few, and does not mix them. A
        selection that broke off while it emptied the folder leaves what was there in `UNFINISHED`, which is no record
        of any selection, so that the next one empties it again.

        Raises:
            ConfigurationError: It is not empty and `select` did not write it; or it holds another selection.
        """
        there = self._files()
        before, unfinished = self._read(RECORD), self._read(UNFINISHED)
        if before is None and there and unfinished is None:
            raise ConfigurationError(
                f"{self.path} is not empty, and select did not write it: choose another, or empty it yourself"
            )
        if before is not None and before != record and not overwrite:
            raise ConfigurationError(f"{self.path} holds another selection; choose another folder, or say --overwrite")
        if record not in (before, unfinished) and there:
            emptied = json.dumps({"emptied of": before or unfinished})
            write_whole(self.path / UNFINISHED, emptied.encode())
            self._delete([RECORD])
            self._delete(name for name in there if name not in (RECORD, UNFINISHED))
        write_whole(self.path / UNFINISHED, record.encode())
        self._delete([RECORD])

    def finish(self, record: str, is_of_it: Callable[[str], bool]) -> None:
        """Delete what is of an earlier selection, then say that all is there.

        Args:
            record: What was asked for.
            is_of_it: Tells whether a file, by its name below the folder, is of this selection.

        Raises:
            ConfigurationError: The lease has passed to somebody else meanwhile.
        """
        if self.lease is not None:
            self.lease.check()
        self._delete(name for name in self._files() if name not in (RECORD, UNFINISHED) and not is_of_it(name))
        write_whole(self.path / RECORD, record.encode())
        self._delete([UNFINISHED])

    def _files(self) -> list[str]:
        """Return the names of the files below the folder; without the lease."""
        below = f"{self.path}/"
        entries = list_files(str(self.path), options_of(self.path))
        names = [entry.path.removeprefix(below) for entry in entries if entry.path.startswith(below)]
        return [name for name in names if name != _LEASE]

    def _read(self, name: str) -> str | None:
        content = read_small(self.path / name)
        return None if content is None else content.decode()

    def _delete(self, names: Iterable[str]) -> None:
        with ThreadPoolExecutor(_DELETED_AT_ONCE) as pool:
            list(pool.map(lambda name: (self.path / name).unlink(missing_ok=True), names))

    def _is_other(self) -> bool:
        url, options = str(self.path), options_of(self.path)
        entry = find_file(url, options)
        if entry is None:
            return False
        if entry.size != self.draft.stat().st_size:
            return True
        there, position = Place.at(url, options).open_ranges(), 0
        with self.draft.open("rb") as here:
            while piece := here.read(_PIECE):
                if there.read_at(position, _PIECE) != piece:
                    return True
                position += len(piece)
        return False


class UrlCopies(FolderCopies):
    """Files below a URL, several uploaded at a time, under the names that they would have in a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._uploads = Uploads()
        self._files: set[int] = set()
        self._folders: set[int] = set()

    def has(self, name: str) -> bool:
        """Return whether a file of that name was written."""
        return number_of(name) in self._files

    def close(self) -> None:
        """Wait until all files are there."""
        self._uploads.finish()

    def discard(self) -> None:
        """Begin no further upload."""
        self._uploads.abandon()

    def _place(self, path: Path, name: str, original: Original, data: bytes) -> None:
        """Begin to upload a file; refuse a name that a folder would refuse, which a store does not."""
        relative = str(path).removeprefix(f"{self._folder}/")
        above = [number_of(str(folder)) for folder in PurePosixPath(relative).parents if str(folder) != "."]
        number = number_of(relative)
        if number in self._files or number in self._folders or self._files.intersection(above):
            raise FileExistsError(f"{public_url(str(path))} is there")
        self._files.add(number)
        self._folders.update(above)
        self._uploads.add(data, path)
