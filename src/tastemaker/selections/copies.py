"""Where selected originals go: tars, a folder, or links."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import xxhash

from tastemaker.errors import ConfigurationError
from tastemaker.imaging.folders import FolderReader
from tastemaker.imaging.shards import split_key
from tastemaker.scores.files import TarFile
from tastemaker.scores.sources import FoundOriginal, Original, SkippedError, as_skipped, check_file, find_original


class Copies(Protocol):
    """Takes samples one after the other."""

    def add(self, original: Original, members: dict[str, bytes]) -> tuple[str, str]:
        """Write one sample; return the file that its image is in, below the folder, and its name there."""
        ...

    def close(self) -> None:
        """Finish what is unfinished."""
        ...

    def discard(self) -> None:
        """Close what is open; the folder is deleted."""
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
            self._tar = TarFile(self._folder / _tar_name(self._tars))
            self._tars += 1
        self._tar.add_sample({prefix + name: data for name, data in members.items()})
        return self._tar.path.name, prefix + next(iter(members))

    def has(self, name: str) -> bool:
        """Return whether a tar of that name was written."""
        return name in (_tar_name(number) for number in range(self._tars))

    def close(self) -> None:
        """Finish the last tar."""
        if self._tar is not None:
            self._tar.commit()
            self._tar = None

    def discard(self) -> None:
        """Close and delete the last tar."""
        if self._tar is not None:
            self._tar.discard()


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
                    if self._written.get(number_of(str(path))) != sources[name]:  # two images may share a sidecar
                        self._place(path, name, original, data)
                        self._written[number_of(str(path))] = sources[name]
            except (NotADirectoryError, IsADirectoryError, FileExistsError):
                self._names.pass_over(sources)
                continue  # a file is where a folder must be, or names differ in case only; the next number is free
            name = prefix + next(iter(members))
            return name, name

    def close(self) -> None:
        """Do nothing: files are written at once."""

    def discard(self) -> None:
        """Do nothing, too."""

    def _place(self, path: Path, name: str, original: Original, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._write(path, name, original, data)

    def _write(self, path: Path, name: str, original: Original, data: bytes) -> None:
        with path.open("xb") as file:
            file.write(data)


class LinkCopies(FolderCopies):
    """Symbolic links to loose files."""

    def _write(self, path: Path, name: str, original: Original, data: bytes) -> None:
        source = next(part.path for part in original.parts if part.name == name)
        path.symlink_to(os.path.abspath(source))


def find_links(rows: Iterable[Mapping[str, Any]]) -> Iterator[FoundOriginal | SkippedError]:
    """Yield what can be linked to for each row, name -> nothing, or why it cannot.

    Raises:
        ConfigurationError: An image lies in a shard.
    """
    folders = FolderReader()
    for row in rows:
        original = find_original(row, folders)
        if isinstance(original, SkippedError):
            yield original
            continue
        image = original.parts[0]
        if image.shard:
            raise ConfigurationError(
                f"{image.name} lies in {image.shard}: there is no file to link to; use --as folder"
            )
        try:
            for part in original.parts:
                check_file(part)
            yield FoundOriginal(original, {part.name: b"" for part in original.parts})
        except SkippedError as problem:
            yield problem
        except OSError as error:
            yield as_skipped(error, image.path)


class _Names:
    """Keeps names of different sources apart."""

    def __init__(self) -> None:
        self._owners: dict[int, int] = {}
        self._tried: dict[int, int] = {}

    def prefix(self, owners: dict[str, str]) -> str:
        """Return what to put in front of the names so that each is its owner's: nothing, or ``2/`` and so on."""
        owners = {posixpath.normpath(name): owner for name, owner in owners.items()}
        for number in count(max(self._tried.get(number_of(name), 1) for name in owners)):
            prefix = "" if number == 1 else f"{number}/"
            wanted = {number_of(prefix + name): number_of(owner) for name, owner in owners.items()}
            if all(self._owners.get(name, owner) == owner for name, owner in wanted.items()):
                self._owners |= wanted
                return prefix
            self._tried |= {number_of(name): number + 1 for name in owners}
        raise AssertionError  # count() does not end

    def pass_over(self, owners: dict[str, str]) -> None:
        """Do not give these names the last prefix again."""
        names = [number_of(posixpath.normpath(name)) for name in owners]
        self._tried |= dict.fromkeys(names, max(self._tried.get(name, 1) for name in names) + 1)


def _tar_name(number: int) -> str:
    return f"images-{number:06d}.tar"


def number_of(text: str) -> int:
    """Return what stands for a name in sets of very many: eight bytes of each, as good as never the same for two."""
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogateescape"))
