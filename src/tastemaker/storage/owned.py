"""The files that Tastemaker wrote into a folder, and the only way to replace or delete one of them.

A record beside the files lists each with its size and hash. It is written before the files are, so that a process that
is killed leaves no file that is not listed. What is not listed belongs to somebody else, and is never touched; what is
listed and looks different now was changed by somebody, and is moved aside.
"""

from __future__ import annotations

import contextlib
import json
import os
import posixpath
import unicodedata
from collections.abc import Container, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import xxhash

from tastemaker.errors import ConfigurationError
from tastemaker.storage import STATE_FOLDER
from tastemaker.storage.inputs import digest_of
from tastemaker.storage.place import Entry, Place
from tastemaker.storage.unfinished import Draft

ASIDE_FOLDER = f"{STATE_FOLDER}/aside"
"""Where files go that were changed after they were written, instead of being replaced or deleted."""

_FILES = "files.jsonl"
_OF_ONE_FILE = "written/"
_LINK = "link to "
_WRITTEN_AT_ONCE = 8
_PIECE_BYTES = 2**20


class Written(NamedTuple):
    """A file that was written.

    Attributes:
        size: In bytes.
        xxh3: XXH3-64 of its bytes, as 16 hexadecimal digits; of a symbolic link, where it leads.
        version: Of the file once it was there, as `tastemaker.storage.place.Entry` has it; empty before.
    """

    size: int
    xxh3: str
    version: str = ""


class OwnFiles:
    """The files of one writer below a folder. One process at a time may use it.

    Args:
        folder: The folder.
        record: Folder of the record, below `STATE_FOLDER`, or below the folder itself where that is one.

    Attributes:
        moved_aside: Names of files that were changed by somebody, or are in `keep`, and lie below `ASIDE_FOLDER` now.
        keep: Names of earlier files whose originals are gone: they are moved aside, and not replaced or deleted.
    """

    def __init__(self, folder: Place, record: str = "files") -> None:
        self.folder = folder
        self.moved_aside: list[str] = []
        self.keep: Container[str] = ()
        notes = folder if folder.name == STATE_FOLDER else folder / STATE_FOLDER
        self._record = notes / record
        self._known: dict[str, list[Written]] = {}
        self._now: dict[str, Written] = {}
        self._there: dict[str, Entry] | None = None
        self._foreign: dict[str, str] = {}
        self._claims = 0
        self._read()

    @classmethod
    def of_one_file(cls, place: Place) -> OwnFiles:
        """Return the record of a single file, such as a report. The record lies beside the file."""
        return cls(place.parent, f"{_OF_ONE_FILE}{digest_of(place.name)}")

    @classmethod
    def write_one_file(cls, place: Place, data: bytes) -> None:
        """Write a single file, in place of the one that Tastemaker wrote there before.

        Raises:
            ConfigurationError: A file of somebody else is there.
        """
        with cls.of_one_file(place).drafted(place.name) as draft:
            draft.path.write_bytes(data)

    @property
    def is_known(self) -> bool:
        """Whether anything was written here before."""
        return bool(self._known) or self._claims > 0

    @property
    def has_record(self) -> bool:
        """Whether there is a record, perhaps one with nothing in it but what a killed process left."""
        return self._record.is_folder()

    def remove_drafts(self) -> None:
        """Delete unfinished files of the record that a killed process left. No other process may be using it."""
        self._record.remove_drafts()

    def list_there(self) -> None:
        """List the folder once, instead of asking for each file. Foreign names are then compared as `fold` has them."""
        entries = {entry.place.relative_to(self.folder): entry for entry in self.folder.list()}
        self._there = {name: entry for name, entry in entries.items() if not name.startswith(f"{STATE_FOLDER}/")}
        self._foreign = {fold(name): name for name in self._there if name not in self._known}

    def foreign(self) -> list[str]:
        """Return the names of files of others that `list_there` has found."""
        return sorted(self._foreign.values())

    def refuse_foreign(self, name: str) -> None:
        """Raise `ConfigurationError` where a file of somebody else is in the way of one that is to be written."""
        in_the_way = self._foreign.get(fold(name))
        if in_the_way is None and self._there is None and name not in self._known and (self.folder / name).exists():
            in_the_way = name
        if in_the_way is not None:
            raise ConfigurationError(
                f"{self.folder / in_the_way} is there, and Tastemaker did not write it: choose another place, or move "
                "it away"
            )

    def write(self, files: Mapping[str, bytes]) -> None:
        """Write files, several at a time. A file that is there already with the same bytes stays as it is.

        Raises:
            ConfigurationError: A file of somebody else is in the way.
            OSError: There is no room, or the folder cannot be written to.
        """
        digests = {name: Written(len(data), xxh3_of(data)) for name, data in files.items()}
        for name in [name for name, digest in digests.items() if self._now.get(name) == digest]:
            del digests[name]  # a sidecar that two pictures share was written with the first
        self._claim(digests)
        wanted = {name: files[name] for name, digest in digests.items() if not self._clear(name, digest)}
        with ThreadPoolExecutor(_WRITTEN_AT_ONCE) as pool:
            list(pool.map(lambda name: (self.folder / name).write(wanted[name]), wanted))

    def link(self, name: str, target: str) -> None:
        """Make a symbolic link to a file of this machine.

        Raises:
            ConfigurationError: A file of somebody else is in the way.
        """
        link = Written(0, f"{_LINK}{target}")
        if self._now.get(name) == link:  # of a sidecar that two pictures share
            return
        self._claim({name: link})
        path = self._local(name)
        if not self._clear(name, link):
            path.unlink(missing_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(target)

    def commit(self, name: str, draft: Draft) -> None:
        """Put a file that was written as a draft in its place.

        Raises:
            ConfigurationError: A file of somebody else is in the way.
            OSError: There is no room, or it cannot be uploaded.
        """
        found = describe(Place.at(str(draft.path)))
        if self._now.get(name) == found:  # a sidecar that two pictures share was written with the first
            draft.discard()
            return
        self._claim({name: found})
        if self._clear(name, found):
            draft.discard()
        else:
            draft.commit()

    @contextlib.contextmanager
    def drafted(self, name: str) -> Iterator[Draft]:
        """Yield a draft of a single file, and put it in its place at the end of the block.

        The draft lies beside the record. What a killed process left there is deleted.

        Raises:
            ConfigurationError: A file of somebody else is in the way.
        """
        self.refuse_foreign(name)
        self.folder.make_folder()
        self.remove_drafts()
        draft = (self.folder / name).draft(beside=self._record / name)
        try:
            yield draft
            self.commit(name, draft)
        except BaseException:
            draft.discard()
            self.discard()
            raise
        self.finish()

    def differs(self, name: str, draft: Draft) -> bool:
        """Return whether a file of that name is there, with other bytes than the draft has."""
        there = self.folder / name
        return there.is_file() and describe(there).xxh3 != describe(Place.at(str(draft.path))).xxh3

    def finish(self) -> None:
        """Delete what was written earlier and not this time, and make the record say so."""
        for name in self._known.keys() - self._now.keys():
            if self._entry(name) is not None or self._link_target(name) is not None:
                self._remove(name)
        if self._there is not None:  # one listing, instead of a question for each file
            self.list_there()
        entries = {name: self._entry(name) for name in sorted(self._now)}
        lines = [
            json.dumps([name, *self._now[name]._replace(version=entry.version if entry else "")])
            for name, entry in entries.items()
        ]
        (self._record / _FILES).write("".join(f"{line}\n" for line in lines).encode("ascii"))
        self._delete_claims()

    def take_back(self, *, dry_run: bool = False) -> tuple[int, list[str]]:
        """Delete every file that is as it was written, and the record; return how many, and the names of the others.

        Args:
            dry_run: Delete nothing.
        """
        there = [name for name in self._known if self._entry(name) is not None or self._link_target(name) is not None]
        ours = [name for name in there if self._find(name) is not None]
        if not dry_run:
            self.remove_drafts()
            for name in ours:
                (self.folder / name).delete()
            self._remove_empty_folders(self._known, taken_back=True)
            self._delete_claims()
            (self._record / _FILES).delete()  # last: a process that is killed before leaves what says what is ours
            self._remove_empty_folders((), taken_back=True)
        return len(ours), sorted({*there} - {*ours})

    def discard(self) -> None:
        """Delete what was written this time and was not there before, after an error."""
        for name in self._now.keys() - self._known.keys():
            if self._link_target(name) is None:
                (self.folder / name).delete()
            else:
                self._local(name).unlink()
        if not self._known:
            self._delete_claims()
        self._remove_empty_folders(self._now)

    def _remove_empty_folders(self, names: Iterable[str], *, taken_back: bool = False) -> None:
        """Delete the folders of names in which nothing is, but not the one that a single file was written into."""
        root = self.folder.local_path
        if root is None:  # a store has no folders
            return
        names = [*names, f"{self._record.relative_to(self.folder)}/{_FILES}"]
        folders = {root / folder for name in names for folder in PurePosixPath(name).parents}
        if taken_back and self._record.relative_to(self.folder).startswith(f"{STATE_FOLDER}/{_OF_ONE_FILE}"):
            folders.discard(root)
        for folder in sorted(folders, reverse=True):
            with contextlib.suppress(OSError):  # what is not empty stays
                folder.rmdir()

    def _read(self) -> None:
        """Read the record. It came with the folder, perhaps from somebody else: what it names outside is not ours."""
        is_inside = cache(self._is_inside)
        places = {entry.place.name: entry.place for entry in self._record.list(recursive=False)}
        claims = sorted(places.keys() - {_FILES})
        for name in [*(places.keys() & {_FILES}), *claims]:
            for line in places[name].read().splitlines():
                with contextlib.suppress(ValueError, TypeError, RecursionError):  # such a line says nothing
                    path, size, xxh3, version = json.loads(line)
                    if is_inside(posixpath.dirname(path)) and posixpath.basename(path) not in ("", ".", ".."):
                        self._known.setdefault(path, []).append(Written(int(size), str(xxh3), str(version)))
        self._claims = len(claims)

    def _is_inside(self, below: str) -> bool:
        """Return whether a folder of a name is one below this folder, and no link out of it."""
        root = self.folder.local_path
        if root is None:
            return not {".", ".."} & {*below.split("/")}
        real = os.path.realpath(root)
        return os.path.join(os.path.realpath(root / below), "").startswith(os.path.join(real, ""))

    def _claim(self, files: Mapping[str, Written]) -> None:
        """Write down what is about to be written."""
        for name in files:
            self.refuse_foreign(name)
        text = "".join(f"{json.dumps([name, *written])}\n" for name, written in files.items())
        self._claims += 1
        self._claim_file(self._claims).write(text.encode("ascii"))
        self._now.update(files)

    def _delete_claims(self) -> None:
        for number in range(1, self._claims + 1):
            self._claim_file(number).delete()
        self._claims = 0

    def _claim_file(self, number: int) -> Place:
        return self._record / f"claim-{number:06d}.jsonl"

    def _clear(self, name: str, wanted: Written) -> bool:
        """Make way for a file; return whether it is there already with the same bytes."""
        if self._entry(name) is None and self._link_target(name) is None:
            return False
        found = self._find(name)
        if found is not None and found[:2] == wanted[:2]:
            return True
        if found is None or name in self.keep:
            self._move_aside(name)
        return False

    def _find(self, name: str) -> Written | None:
        """Return which of the recorded states a file is in; None where somebody changed it."""
        known = self._known.get(name, [])
        link, entry = self._link_target(name), self._entry(name)
        if link is not None or entry is None:
            return next((written for written in known if written.xxh3 == f"{_LINK}{link}"), None)
        of_size = [written for written in known if written.size == entry.size]
        as_left = next((written for written in of_size if written.version and written.version == entry.version), None)
        if as_left is not None or not of_size:
            return as_left
        digest = describe(entry.place).xxh3
        return next((written for written in of_size if written.xxh3 == digest), None)

    def _entry(self, name: str) -> Entry | None:
        return (self.folder / name).stat() if self._there is None else self._there.get(name)

    def _remove(self, name: str) -> None:
        """Delete a file; move it aside where it is to be kept or was changed."""
        if name in self.keep or self._find(name) is None:
            self._move_aside(name)
        else:
            (self.folder / name).delete()

    def _move_aside(self, name: str) -> None:
        source, number = self.folder / name, 1
        while (target := self.folder / ASIDE_FOLDER / str(number) / name).exists():
            number += 1
        with target.draft() as draft:
            source.fetch(draft.path)
        source.delete()
        self.moved_aside.append(name)

    def _local(self, name: str) -> Path:
        path = (self.folder / name).local_path
        if path is None:
            raise ConfigurationError(
                f"{self.folder}: a link leads to a file of this machine, so there are none at a URL"
            )
        return path

    def _link_target(self, name: str) -> str | None:
        """Return where a symbolic link leads; None where the file is none."""
        path = (self.folder / name).local_path
        return os.readlink(path) if path is not None and path.is_symlink() else None


def fold(name: str) -> str:
    """Return a name without differences that some file systems ignore: case, and forms of accents."""
    return unicodedata.normalize("NFC", name).casefold()


def xxh3_of(data: bytes) -> str:
    """Return the XXH3-64 of bytes, as 16 hexadecimal digits."""
    return xxhash.xxh3_64_hexdigest(data)


def describe(place: Place) -> Written:
    """Return size and hash of a file.

    Raises:
        OSError: It cannot be read.
    """
    digest, size = xxhash.xxh3_64(), 0
    with place.open() as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
            size += len(piece)
    return Written(size, digest.hexdigest())
