"""Which files: paths, folders and globs to groups of shards or of loose images."""

from __future__ import annotations

import contextlib
import functools
import glob
import logging
import os
import re
from collections.abc import Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count, groupby
from pathlib import Path
from typing import Any

from tastemaker.checks import check_numbers, check_positive
from tastemaker.errors import ConfigurationError, RemoteError, UnreadableImageError
from tastemaker.imaging.decode import EXTENSIONS, sniff_format
from tastemaker.imaging.pictures import holds_pictures
from tastemaker.imaging.shards import SHARD_EXTENSIONS, is_shard
from tastemaker.imaging.tables import is_table
from tastemaker.stages.base import ProcessingStage, Resources
from tastemaker.storage import (
    Options,
    base_name,
    expand_path,
    folder_of,
    is_pattern,
    is_remote,
    look_anew,
    public_url,
    relative_to,
    walk_inputs,
    without_repeats,
    without_results,
)
from tastemaker.storage.place import Place
from tastemaker.tasks import EmptyTask, FileGroupTask, Partition

LOOSE_FILES_PER_PARTITION = 500
"""Loose images in a group where nothing else is asked for. A shard is a group of its own."""

_UNITS = {"": 1, "B": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY_UNITS = {"KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}

_ASKED_AT_ONCE = 16
"""Questions to servers that are under way at the same time."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Found:
    path: str
    root: str
    size: int
    problem: str = ""  # why its server could not be asked about it


@dataclass
class FilePartitioningStage(ProcessingStage[EmptyTask, FileGroupTask]):
    """Makes groups of files to be read together.

    Args:
        file_paths: A file, folder (searched with all folders below it) or glob, local or a URL, or a list of them.
        files_per_partition: Files in a group. Default: 1 shard, or 500 loose images.
        blocksize: Bytes in a group instead, for example ``"512MB"``. Not together with ``files_per_partition``.
        file_extensions: Extensions of the files that are wanted. Default: shards and every kind of image, and
            files without an extension whose content is an image.
        storage_options: Settings of the stores of URLs (see docs/remote-data.md). Never written.
        limit: Groups to make at most.
        column: Of tables, the column with the pictures; None to recognise it.

    Raises:
        ConfigurationError: ``files_per_partition`` and ``blocksize`` together, or a size that is none.
    """

    file_paths: str | list[str]
    files_per_partition: int | None = None
    blocksize: int | str | None = None
    file_extensions: list[str] | None = None
    storage_options: dict[str, Any] | None = field(default=None, repr=False)
    limit: int | None = None
    column: str | None = None
    name: str = "file_partitioning"
    _groups: list[FileGroupTask] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.files_per_partition is not None and self.blocksize is not None:
            raise ConfigurationError("give files_per_partition or blocksize, not both")
        check_positive("files_per_partition", self.files_per_partition)
        if self.limit is not None and self.limit < 0:
            raise ConfigurationError(f"limit={self.limit} is less than 0")
        if self.blocksize is not None:
            parse_size(self.blocksize)
        self.resources = Resources(cpus=0.5)

    def check(self) -> None:
        """Look for the files now.

        Raises:
            ConfigurationError: A path does not exist, or there are no images.
        """
        self._groups = self._make_groups()

    def process(self, _: EmptyTask | None = None) -> list[FileGroupTask]:
        """Return the groups, in the order of their paths."""
        if self._groups is None:
            self.check()
        return list(self._groups or [])

    def num_workers(self) -> int | None:
        """Return 1: there is one list to make."""
        return 1

    def _make_groups(self) -> list[FileGroupTask]:
        paths = [self.file_paths] if isinstance(self.file_paths, str | os.PathLike) else list(self.file_paths)
        names = [expand_path(path) for path in paths]
        look_anew(names, self.storage_options)
        found = without_repeats(file for files in self._find_each(names) for file in files)
        if not found:
            wanted = ", ".join(self.file_extensions or ["every image format", *SHARD_EXTENSIONS])
            raise ConfigurationError(
                f"no images in {', '.join(map(public_url, names)) or 'an empty list of paths'} ({wanted})"
            )
        problems = [file.problem for file in found if file.problem]
        if len(problems) == len(found):
            raise ConfigurationError(problems[0])
        for problem in problems:
            logger.warning("%s; the run goes on, and asks again when it gets there", problem)
        shards = [file for file in found if is_shard(file.path)]
        loose = [file for file in found if not is_shard(file.path)]
        parts = list(self._split(shards, 1))
        for _, below_one_root in groupby(loose, key=lambda file: file.root):
            parts += self._split(list(below_one_root), LOOSE_FILES_PER_PARTITION)
        groups = _name_groups(parts, self.storage_options)[: self.limit]
        logger.info("found %d files in %d groups", len(found), len(groups))
        return groups

    def _find_each(self, paths: list[str]) -> list[list[_Found]]:
        if not any(map(is_remote, paths)):
            return [self._find_all(path) for path in paths]
        with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
            return list(pool.map(self._find_all, paths))

    def _find_all(self, path: str) -> list[_Found]:
        place = Place.at(path, self.storage_options)
        if place.local_path is None:
            return list(self._find_remote(place))
        return list(self._find(place.address))

    def _find_remote(self, place: Place) -> Iterator[_Found]:
        url = place.address
        try:
            if is_pattern(url):
                found = [_Found(entry.place.address, str(entry.place.parent), entry.size) for entry in place.glob()]
            elif not url.endswith("/") and (file := place.stat()):
                yield _Found(url, folder_of(url), file.size)  # named by the user, so it is taken whatever it is called
                return
            elif url.startswith("http") and not url.endswith("/"):
                found = []
            else:
                root = url.rstrip("/")
                below = [_Found(entry.place.address, root, entry.size) for entry in place.list()]
                found = without_results(below, root)
        except RemoteError as error:
            if not is_pattern(url) and (is_shard(url) or self._is_named_so(url)):
                yield _Found(url, folder_of(url), 0, str(error))
                return
            raise ConfigurationError(str(error)) from error
        if not found:
            raise ConfigurationError(f"{place} does not exist")
        wanted = [not _is_hidden(file.path, file.root) and self._is_named_so(file.path) for file in found]
        with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:  # None: only the content tells
            decided = pool.map(lambda a, b: self._holds_images(a.path) if b is None else b, found, wanted)
            yield from (file for file, is_in in zip(found, decided, strict=True) if is_in)

    def _find(self, path: str) -> Iterator[_Found]:
        if os.path.isdir(path):
            root = os.path.dirname(os.path.join(path, ""))  # `photos/`, as shells complete it, is `photos`
            yield from sorted(self._walk(root), key=lambda file: file.path)
        elif os.path.isfile(path):  # named by the user, so it is taken whatever it is called
            yield _Found(path, os.path.dirname(path), os.path.getsize(path))
        elif matches := sorted(glob.glob(path, recursive=True)):
            for match in matches:
                yield from self._find(match) if os.path.isdir(match) else self._take(match, os.path.dirname(match))
        else:
            raise ConfigurationError(f"{path or repr(path)} does not exist")

    def _walk(self, root: str) -> Iterator[_Found]:
        unreadable: list[OSError] = []
        for folder, folders, files in walk_inputs(root, unreadable.append):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for file in files:
                yield from self._take(os.path.join(folder, file), root)
        for error in unreadable:  # what is in there cannot be told, and must not be passed over: it makes a row
            yield _Found(str(error.filename), root, 0)

    def _take(self, path: str, root: str) -> Iterator[_Found]:
        if not os.path.basename(path).startswith(".") and self._is_wanted(path):
            yield _Found(path, root, _size_of(path))

    def _is_wanted(self, path: str) -> bool:
        is_named_so = self._is_named_so(path)
        return self._holds_images(path) if is_named_so is None else is_named_so

    def _is_named_so(self, path: str) -> bool | None:
        """Return whether a file's name says that it is wanted; None where only its content tells."""
        lower = public_url(path).lower()
        if self.file_extensions is not None:
            return lower.endswith(tuple("." + extension.lower().lstrip(".") for extension in self.file_extensions))
        extension = os.path.splitext(base_name(lower))[1]
        if not extension or is_table(path):
            return None
        return is_shard(path) or extension[1:] in EXTENSIONS

    def _holds_images(self, path: str) -> bool:
        try:
            if is_table(path):
                return holds_pictures(Place.at(path, self.storage_options), self.column)
            with contextlib.closing(Place.at(path, self.storage_options).open_ranges()) as file:
                return sniff_format(file.read_at(0, 32)) is not None
        except UnreadableImageError:
            return True  # its row says what is wrong with it
        except OSError:
            return False

    def _split(self, files: list[_Found], default_count: int) -> Iterator[list[_Found]]:
        if self.blocksize is not None:
            yield from _split_by_size(files, parse_size(self.blocksize))
            return
        step = self.files_per_partition or default_count
        for start in range(0, len(files), step):
            yield files[start : start + step]


def parse_size(size: int | str) -> int:
    """Return a number of bytes.

    Example:
        >>> parse_size("512MB"), parse_size("1.5 KiB"), parse_size(7)
        (512000000, 1536, 7)
    """
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([kmgt]?i?)b?\s*", str(size), re.IGNORECASE)
    unit = match[2].upper() if match else "?"
    factor = (_UNITS | _BINARY_UNITS).get(unit)
    if match is None or factor is None:
        raise ConfigurationError(f"{size!r} is no size; write 512MB, 1GiB or a number of bytes")
    return int(float(match[1]) * factor)


def _split_by_size(files: list[_Found], max_bytes: int) -> Iterator[list[_Found]]:
    group: list[_Found] = []
    filled = 0
    for file in files:
        if group and filled + file.size > max_bytes:
            yield group
            group, filled = [], 0
        group.append(file)
        filled += file.size
    if group:
        yield group


def _name_groups(parts: list[list[_Found]], options: Options | None) -> list[FileGroupTask]:
    """Return the groups, each with the name of its output (see docs/rows.md)."""
    owners: dict[str, str] = {}
    shards = {
        first.path: _distinct(_shard_name(first), first.path, owners) for first, *_ in parts if is_shard(first.path)
    }
    taken = set(shards.values())
    numbered: dict[str, Iterator[int]] = {}
    groups = []
    for index, files in enumerate(parts):
        first = files[0]
        if is_shard(first.path):
            name = folder = shards[first.path]
        else:
            folder = _distinct(_folder_name(first.root) or "images", first.root, owners)
            name = loose_name(folder, next(numbered.setdefault(folder, free_numbers(folder, taken))))
        paths = [file.path for file in files]
        partition = Partition(
            name,
            first.root,
            folder,
            is_loose=not is_shard(first.path),
            source_bytes=sum(file.size for file in files),
            storage_options=options,
        )
        # NeMo Curator's entries, for programs that read them.
        metadata = {
            "partition_index": index,
            "total_partitions": len(parts),
            "source_files": paths,
            "storage_options": options,
        }
        dataset = (_folder_name(folder_of(first.path)) or "dataset").lower()
        groups.append(FileGroupTask(dataset, paths, _metadata=metadata, task_id=str(index), partition=partition))
    return groups


def loose_name(folder: str, number: int) -> str:
    """Return the name of a partition of loose files."""
    return f"{folder}-{number:05d}"


def free_numbers(folder: str, taken: Set[str]) -> Iterator[int]:
    """Yield the numbers of partitions of a folder of loose files, without those whose name something else has."""
    return (number for number in count() if loose_name(folder, number) not in taken)


def _distinct(name: str, owner: str, owners: dict[str, str]) -> str:
    """Return ``name``, or ``name-2`` and so on where another owner has it."""
    candidates = (name if number == 1 else f"{name}-{number}" for number in count(1))
    chosen = next(candidate for candidate in candidates if owners.get(candidate, owner) == owner)
    owners[chosen] = owner
    return chosen


@functools.lru_cache(maxsize=1024)
def _folder_name(folder: str) -> str:
    """Return the name of a folder, links resolved. Remembered, since a folder may hold 100,000 shards."""
    return base_name(folder) if is_remote(folder) else Path(folder).resolve().name


def _shard_name(file: _Found) -> str:
    """Return a shard's path below its input folder, without its extension."""
    below = f"{file.root.rstrip(os.sep)}{os.sep}"
    is_below = bool(file.root) and not is_remote(file.path) and file.path.startswith(below)
    relative = file.path[len(below) :] if is_below else relative_to(file.path, file.root)  # ten times as slow
    extension = next((e for e in SHARD_EXTENSIONS if relative.lower().endswith(e)), "")
    return relative[: len(relative) - len(extension)].replace(os.sep, "/")


def _size_of(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:  # a link that leads nowhere: reading it fails, and makes a row
        return 0


def _is_hidden(path: str, root: str) -> bool:
    return any(part.startswith(".") for part in relative_to(path, root).split("/"))
