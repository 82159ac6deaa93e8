"""Where selected originals go: tars, a folder, or links; all below a folder that appears when it is complete."""

from __future__ import annotations

import os
import posixpath
import shutil
import uuid
from itertools import count
from pathlib import Path
from typing import Protocol

import xxhash

from tastemaker.errors import ConfigurationError
from tastemaker.imaging.shards import split_key
from tastemaker.scores.files import TEMPORARY_PREFIX, TarFile
from tastemaker.scores.sources import Original, check_file

RECORD = "_tastemaker/selection.json"
"""In a folder that `select` wrote: what was asked for. Nothing else is ever replaced."""


class Copies(Protocol):
    """Takes samples one after the other."""

    def add(self, original: Original, members: dict[str, bytes]) -> tuple[str, str]:
        """Write one sample; return the file that its image is in, below the folder, and its name there."""
        ...

    def close(self) -> None:
        """Finish what is unfinished."""
        ...


class TarCopies:
    """WebDataset tars of so many samples: ``images-000000.tar`` and following."""

    def __init__(self, folder: Path, images_per_tar: int) -> None:
        self._folder, self._images_per_tar = folder, images_per_tar
        self._names, self._tars = _Names(), 0
        self._tar: TarFile | None = None

    def add(self, original: Original, members: dict[str, bytes]) -> tuple[str, str]:
        """Append one sample. A key that another sample has goes below a numbered folder."""
        owner = original.parts[0].source
        prefix = self._names.prefix({split_key(name)[0]: owner for name in members})
        if self._tar is None or self._tar.samples == self._images_per_tar:
            self.close()
            self._tar = TarFile(self._folder / f"images-{self._tars:06d}.tar")
            self._tars += 1
        self._tar.add_sample({prefix + name: data for name, data in members.items()})
        return self._tar.path.name, prefix + next(iter(members))

    def close(self) -> None:
        """Finish the last tar."""
        if self._tar is not None:
            self._tar.commit()
            self._tar = None


class FolderCopies:
    """Files below a folder, under their paths below their input."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._names = folder, _Names()
        self._written: dict[int, str] = {}

    def add(self, original: Original, members: dict[str, bytes]) -> tuple[str, str]:
        """Write one sample. A name that another file has goes below a numbered folder."""
        sources = {part.name: part.source for part in original.parts}
        while True:
            prefix = self._names.prefix(sources)
            try:
                for name, data in members.items():
                    path = self._folder / (prefix + name)
                    if self._written.get(_number(str(path))) != sources[name]:  # two images may share a sidecar
                        path.parent.mkdir(parents=True, exist_ok=True)
                        self._write(path, name, original, data)
                        self._written[_number(str(path))] = sources[name]
            except (NotADirectoryError, IsADirectoryError, FileExistsError):
                self._names.pass_over(sources)
                continue  # a file is where a folder must be, or names differ in case only; the next number is free
            name = prefix + next(iter(members))
            return name, name

    def close(self) -> None:
        """Do nothing: files are written at once."""

    def _write(self, path: Path, name: str, original: Original, data: bytes) -> None:
        with path.open("xb") as file:
            file.write(data)


class LinkCopies(FolderCopies):
    """Symbolic links to loose files."""

    def _write(self, path: Path, name: str, original: Original, data: bytes) -> None:
        source = next(part.path for part in original.parts if part.name == name)
        path.symlink_to(os.path.abspath(source))


def check_links(original: Original) -> dict[str, bytes]:
    """Return name -> nothing for files that can be linked to.

    Raises:
        ConfigurationError: The image lies in a shard.
        SkippedError: A file has another size than when it was scored.
        OSError: It is gone.
    """
    if original.parts[0].shard:
        raise ConfigurationError(
            f"{original.parts[0].name} lies in {original.parts[0].shard}: there is no file to link to; use --as folder"
        )
    for part in original.parts:
        check_file(part)
    return {part.name: b"" for part in original.parts}


class _Names:
    """Keeps names of different sources apart."""

    def __init__(self) -> None:
        self._owners: dict[int, int] = {}
        self._tried: dict[int, int] = {}

    def prefix(self, owners: dict[str, str]) -> str:
        """Return what to put in front of the names so that each is its owner's: nothing, or ``2/`` and so on."""
        owners = {posixpath.normpath(name): owner for name, owner in owners.items()}
        for number in count(max(self._tried.get(_number(name), 1) for name in owners)):
            prefix = "" if number == 1 else f"{number}/"
            wanted = {_number(prefix + name): _number(owner) for name, owner in owners.items()}
            if all(self._owners.get(name, owner) == owner for name, owner in wanted.items()):
                self._owners |= wanted
                return prefix
            self._tried |= {_number(name): number + 1 for name in owners}
        raise AssertionError  # count() does not end

    def pass_over(self, owners: dict[str, str]) -> None:
        """Do not give these names the last prefix again."""
        names = [_number(posixpath.normpath(name)) for name in owners]
        self._tried |= dict.fromkeys(names, max(self._tried.get(name, 1) for name in names) + 1)


def _number(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogateescape"))


class PendingFolder:
    """A folder under a temporary name beside its final one. `commit` moves it there, `discard` deletes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.draft = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}-{path.name}"[:250])
        self.draft.mkdir()

    def commit(self) -> None:
        """Make the folder visible, in place of one that `check_folder` allowed to replace."""
        old = self.draft.with_name(self.draft.name + ".old")
        if self.path.exists():
            self.path.rename(old)
        self.draft.rename(self.path)
        shutil.rmtree(old, ignore_errors=True)

    def discard(self) -> None:
        """Delete what was written."""
        shutil.rmtree(self.draft, ignore_errors=True)


def check_folder(path: Path, record: str, *, overwrite: bool) -> None:
    """Raise `ConfigurationError` unless a folder may be written: it is empty, or `select` wrote it and may again."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    before = path / RECORD
    if not before.is_file():
        raise ConfigurationError(f"{path} is there, and select did not write it: choose another, or empty it yourself")
    if not overwrite and before.read_text() != record:
        raise ConfigurationError(f"{path} holds another selection; choose another folder, or say --overwrite")
