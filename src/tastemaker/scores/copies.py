"""Samples written as a reader takes them: into tars, as files, or as links. Originals leave a run in no other way."""

from __future__ import annotations

import contextlib
import io
import os
import posixpath
import shutil
import tarfile
from collections.abc import Mapping
from itertools import chain, count
from typing import IO, cast

import xxhash

from tastemaker.errors import UnreadableImageError
from tastemaker.imaging.keys import split_key
from tastemaker.imaging.readers import Section
from tastemaker.storage.owned import OwnFiles, fold
from tastemaker.storage.unfinished import Draft

_TOGETHER_FILES, _TOGETHER_BYTES = 256, 2**26
"""Files that are written together: as many, or of so many bytes."""

_PIECE_BYTES = 2**20

_MAX_NAME_BYTES, _MAX_PATH_BYTES = 255, 1024
"""Of a file, and with its folders: what all file systems and object stores take."""


Members = Mapping[str, bytes | Section]
"""Name -> bytes of the files of a sample, the image first; a section is copied piece by piece."""


class TarCopies:
    """WebDataset tars of so many samples: ``<stem>-000000.tar`` and following.

    A reader finds as many samples as were added. Where another shard has the same key, a new tar begins, and keys stay
    as they are. Pictures of one folder that share a key, such as a raw and its JPEG, lie below numbered folders.

    Args:
        own: Of the folder that they lie in.
        stem: How their names begin.
        images_per_tar: Samples in a tar at most.

    Attributes:
        names: Of the tars, in their order.
        left_out: Of the last sample, the sections that could not be read, and why.
    """

    def __init__(self, own: OwnFiles, stem: str, images_per_tar: int) -> None:
        self.names: list[str] = []
        self.left_out: dict[str, str] = {}
        self._own, self._stem, self._images_per_tar = own, stem, images_per_tar
        self._containers: dict[str, str] = {}
        self._draft: Draft | None = None
        self._tar: tarfile.TarFile | None = None
        self._samples = 0
        own.refuse_foreign(self._name(0))

    def add(self, members: Members, shard: str = "") -> tuple[str, str]:
        """Append one sample; return the tar that it is in, below the folder, and the name of its image there.

        Member names and bytes go in as they are; times and owners are left out.

        Args:
            members: Name -> bytes, the image first.
            shard: The shard that the sample is from; empty for loose files.
        """
        image = next(iter(members))
        key = split_key(image)[0]
        if self._tar is None or self._samples == self._images_per_tar or self._containers.get(key, shard) != shard:
            self._close()
            self._tar = self._open()
        prefixes = chain([""], (f"{number}/" for number in count(2)))
        prefix = next(prefix for prefix in prefixes if prefix + key not in self._containers)
        self.left_out = {}
        for name, data in members.items():
            start = self._tar.offset
            try:
                _append(self._tar, prefix + name, data)
            except UnreadableImageError as error:
                self.left_out[name] = str(error)
                _cut(self._tar, start)
        self._samples += 1
        self._containers[prefix + key] = shard
        return self.names[-1], prefix + image

    def finish(self) -> None:
        """Finish the last tar."""
        self._close()

    def discard(self) -> None:
        """Delete the tar that is not finished."""
        if self._tar is not None and self._draft is not None:
            with contextlib.suppress(OSError):  # the disk may be full
                self._tar.close()
            self._draft.discard()
            self._tar = None

    def _name(self, number: int) -> str:
        return f"{self._stem}-{number:06d}.tar"

    def _open(self) -> tarfile.TarFile:
        self.names.append(self._name(len(self.names)))
        self._samples = 0
        self._containers.clear()
        self._draft = (self._own.folder / self.names[-1]).draft()
        return tarfile.open(self._draft.path, "w", format=tarfile.PAX_FORMAT)

    def _close(self) -> None:
        if self._tar is not None and self._draft is not None:
            self._tar.close()
            self._tar = None
            self._own.commit(self.names[-1], self._draft)


def _append(tar: tarfile.TarFile, name: str, data: bytes | Section) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644
    with io.BytesIO(data) if isinstance(data, bytes) else data.open() as file:
        tar.addfile(info, file)


def _cut(tar: tarfile.TarFile, end: int) -> None:
    """Take what is behind a position out of a tar that is being written."""
    file = cast("IO[bytes]", tar.fileobj)
    file.seek(end)
    file.truncate()
    tar.offset = end


class FileCopies:
    """Files below a folder, under their paths below their input.

    Args:
        own: Of the folder.

    Attributes:
        left_out: As in `TarCopies`.
    """

    def __init__(self, own: OwnFiles) -> None:
        self._own, self._names = own, _Names()
        self.left_out: dict[str, str] = {}
        self._waiting: dict[str, bytes] = {}
        self._bytes = 0

    def add(self, members: Members, sources: Mapping[str, str]) -> tuple[str, str]:
        """Write one sample; return the place of its image below the folder, twice.

        A name that a file of another source has goes below a numbered folder.

        Args:
            members: Name -> bytes, the image first.
            sources: Name -> which file these bytes are.
        """
        prefix, self.left_out = self._names.prefix(sources), {}
        for name, data in members.items():
            try:
                self._put(prefix + name, data)
            except UnreadableImageError as error:
                self.left_out[name] = str(error)
        image = prefix + next(iter(members))
        return image, image

    def finish(self) -> None:
        """Write the files that wait."""
        self._own.write(self._waiting)
        self._waiting, self._bytes = {}, 0

    def discard(self) -> None:
        """Give up the files that wait."""
        self._waiting.clear()

    def _put(self, name: str, data: bytes | Section) -> None:
        if isinstance(data, Section):
            self._copy(name, data)
            return
        self._waiting[name] = data
        self._bytes += len(data)
        if len(self._waiting) >= _TOGETHER_FILES or self._bytes >= _TOGETHER_BYTES:
            self.finish()

    def _copy(self, name: str, section: Section) -> None:
        draft = (self._own.folder / name).draft()
        try:
            with section.open() as source, draft.path.open("wb") as target:
                shutil.copyfileobj(source, target, _PIECE_BYTES)
            self._own.commit(name, draft)
        finally:
            draft.discard()


class LinkCopies(FileCopies):
    """Symbolic links to the files of this machine that members are."""

    def _put(self, name: str, data: bytes | Section) -> None:
        assert isinstance(data, Section)
        if not os.path.exists(data.path):
            raise UnreadableImageError(f"{data.path} is gone")
        self._own.link(name, os.path.abspath(data.path))


Copies = TarCopies | FileCopies
"""Take samples one after the other; `finish` writes what waits, `discard` gives it up."""


def is_too_long(name: str) -> bool:
    """Return whether a name, folders included, is too long for a file. Tars take any."""
    encoded = name.encode("utf-8", "surrogateescape")
    return len(encoded) > _MAX_PATH_BYTES or max(map(len, encoded.split(b"/"))) > _MAX_NAME_BYTES


class _Names:
    """Keeps names of different sources apart, as the most forgetful file system compares them."""

    def __init__(self) -> None:
        self._owners: dict[int, int] = {}
        self._tried: dict[int, int] = {}

    def prefix(self, owners: Mapping[str, str]) -> str:
        """Return what to put in front of the names so that each is its owner's: nothing, or ``2/`` and so on."""
        folded = {fold(posixpath.normpath(name)): owner for name, owner in owners.items()}
        first = max(self._tried.get(_number(name), 1) for name in folded)
        for number in count(first):
            prefix = "" if number == 1 else f"{number}/"
            wanted = {_number(prefix + name): _number(owner) for name, owner in folded.items()}
            above = {_number(prefix + folder): 0 for name in folded for folder in _folders(name)}
            if all(self._owners.get(name, owner) == owner for name, owner in (wanted | above).items()):
                self._owners |= wanted | above
                return prefix
            self._tried |= {_number(name): number + 1 for name in folded}
        raise AssertionError  # count() does not end


def _folders(name: str) -> list[str]:
    """Return the folders that a name lies in, of which none may be a file."""
    parts = name.split("/")[:-1]
    return ["/".join(parts[: number + 1]) for number in range(len(parts))]


def _number(text: str) -> int:
    """Return what stands for a name in tables of very many: eight bytes of each, as good as never the same for two."""
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogateescape"))
