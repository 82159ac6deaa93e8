"""Which files: paths, folders and globs to groups of shards or of loose images."""

from __future__ import annotations

import functools
import glob
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, groupby
from pathlib import Path
from typing import Any

from tastemaker.errors import ConfigurationError
from tastemaker.imaging.decode import EXTENSIONS, sniff_format
from tastemaker.imaging.shards import TAR_EXTENSIONS
from tastemaker.stages.base import ProcessingStage, Resources
from tastemaker.tasks import EmptyTask, FileGroupTask

LOOSE_FILES_PER_PARTITION = 500
"""Loose images in a group where nothing else is asked for. A shard is a group of its own."""

_UNITS = {"": 1, "B": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY_UNITS = {"KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Found:
    path: str
    root: str
    size: int


@dataclass
class FilePartitioningStage(ProcessingStage[EmptyTask, FileGroupTask]):
    """Makes groups of files to be read together.

    Args:
        file_paths: A file, folder (searched with all folders below it) or glob, or a list of them.
        files_per_partition: Files in a group. Default: 1 shard, or 500 loose images.
        blocksize: Bytes in a group instead, for example ``"512MB"``. Not together with ``files_per_partition``.
        file_extensions: Extensions of the files that are wanted. Default: shards and every kind of image, and
            files without an extension whose content is an image.
        storage_options: For remote file systems.
        limit: Groups to make at most.

    Raises:
        ConfigurationError: ``files_per_partition`` and ``blocksize`` together, or a size that is none.
    """

    file_paths: str | list[str]
    files_per_partition: int | None = None
    blocksize: int | str | None = None
    file_extensions: list[str] | None = None
    storage_options: dict[str, Any] | None = None
    limit: int | None = None
    name: str = "file_partitioning"
    _groups: list[FileGroupTask] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.files_per_partition is not None and self.blocksize is not None:
            raise ConfigurationError("give files_per_partition or blocksize, not both")
        if self.files_per_partition is not None and self.files_per_partition < 1:
            raise ConfigurationError(f"files_per_partition={self.files_per_partition} is less than 1")
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
        found = [file for path in paths for file in self._find(os.fspath(path))]
        found = list({file.path: file for file in found}.values())
        if not found:
            wanted = ", ".join(self.file_extensions or ["every image format", *TAR_EXTENSIONS])
            raise ConfigurationError(
                f"no images in {', '.join(map(str, paths)) or 'an empty list of paths'} ({wanted})"
            )
        shards = [file for file in found if _is_shard(file.path)]
        loose = [file for file in found if not _is_shard(file.path)]
        parts = list(self._split(shards, 1))
        for _, below_one_root in groupby(loose, key=lambda file: file.root):
            parts += self._split(list(below_one_root), LOOSE_FILES_PER_PARTITION)
        groups = _name_groups(parts)[: self.limit]
        logger.info("found %d files in %d groups", len(found), len(groups))
        return groups

    def _find(self, path: str) -> Iterator[_Found]:
        if re.match(r"[a-z][a-z0-9+]+://", path):
            raise ConfigurationError(f"{path}: remote paths are not supported yet; use a local path")
        if os.path.isdir(path):
            yield from sorted(self._walk(path), key=lambda file: file.path)
        elif os.path.isfile(path):  # named by the user, so it is taken whatever it is called
            yield _Found(path, os.path.dirname(path), os.path.getsize(path))
        elif matches := sorted(glob.glob(path, recursive=True)):
            for match in matches:
                yield from self._find(match) if os.path.isdir(match) else self._take(match, os.path.dirname(match))
        else:
            raise ConfigurationError(f"{path} does not exist")

    def _walk(self, root: str) -> Iterator[_Found]:
        for folder, folders, files in os.walk(root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for file in files:
                yield from self._take(os.path.join(folder, file), root)

    def _take(self, path: str, root: str) -> Iterator[_Found]:
        if not os.path.basename(path).startswith(".") and self._is_wanted(path):
            yield _Found(path, root, _size_of(path))

    def _is_wanted(self, path: str) -> bool:
        lower = path.lower()
        if self.file_extensions is not None:
            return lower.endswith(tuple("." + extension.lower().lstrip(".") for extension in self.file_extensions))
        extension = os.path.splitext(lower)[1]
        return _is_shard(path) or extension[1:] in EXTENSIONS or (not extension and _looks_like_image(path))

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
    match = re.fullmatch(r"\s*([\d.]+)\s*([kmgt]?i?)b?\s*", str(size), re.IGNORECASE)
    unit = match[2].upper() if match else "?"
    factor = (_UNITS | _BINARY_UNITS).get(unit)
    if match is None or factor is None:
        raise ConfigurationError(f"{size!r} is no size; write 512MB, 1GiB or a number of bytes")
    return int(float(match[1]) * factor)


def _split_by_size(files: list[_Found], max_bytes: int) -> Iterator[list[_Found]]:
    group: list[_Found] = []
    for file in files:
        if group and sum(other.size for other in group) + file.size > max_bytes:
            yield group
            group = []
        group.append(file)
    if group:
        yield group


def _name_groups(parts: list[list[_Found]]) -> list[FileGroupTask]:
    """Return the groups, each with the name of its output (see docs/rows.md)."""
    owners: dict[str, str] = {}
    numbers: Counter[str] = Counter()
    groups = []
    for index, files in enumerate(parts):
        first = files[0]
        if _is_shard(first.path):
            name = folder = _distinct(_shard_name(first), first.path, owners)
        else:
            folder = _distinct(_folder_name(first.root) or "images", first.root, owners)
            name = f"{folder}-{numbers[folder]:05d}"
            numbers[folder] += 1
        paths = [file.path for file in files]
        metadata = {
            "partition": name,
            "partition_index": index,
            "total_partitions": len(parts),
            "source_files": paths,
            "source_bytes": sum(file.size for file in files),
            "root": first.root,
            "folder": folder,
        }
        dataset = (_folder_name(os.path.dirname(first.path)) or "dataset").lower()
        groups.append(FileGroupTask(dataset, paths, _metadata=metadata, task_id=str(index)))
    return groups


def _distinct(name: str, owner: str, owners: dict[str, str]) -> str:
    """Return ``name``, or ``name-2`` and so on where another owner has it."""
    candidates = (name if number == 1 else f"{name}-{number}" for number in count(1))
    chosen = next(candidate for candidate in candidates if owners.get(candidate, owner) == owner)
    owners[chosen] = owner
    return chosen


@functools.lru_cache(maxsize=1024)
def _folder_name(folder: str) -> str:
    """Return the name of a folder, links resolved. Remembered, since a folder may hold 100,000 shards."""
    return Path(folder).resolve().name


def _shard_name(file: _Found) -> str:
    """Return a shard's path below its input folder, without its extension."""
    below = f"{file.root.rstrip(os.sep)}{os.sep}"
    is_below = bool(file.root) and file.path.startswith(below)
    relative = file.path[len(below) :] if is_below else os.path.relpath(file.path, file.root or ".")
    return re.sub(r"\.(tar|tar\.gz|tgz)$", "", relative.replace(os.sep, "/"), flags=re.IGNORECASE)


def _size_of(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:  # a link that leads nowhere: reading it fails, and makes a row
        return 0


def _is_shard(path: str) -> bool:
    return path.lower().endswith(TAR_EXTENSIONS)


def _looks_like_image(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return sniff_format(file.read(32)) is not None
    except OSError:
        return False
