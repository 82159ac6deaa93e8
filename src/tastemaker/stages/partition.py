"""Which files: paths, folders and globs to groups of shards or of loose images."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from itertools import count, groupby
from typing import Any

from tastemaker.checks import check_numbers, check_positive
from tastemaker.errors import ConfigurationError, UnreadableImageError
from tastemaker.imaging.decode import EXTENSIONS, sniff_format
from tastemaker.imaging.pictures import holds_pictures
from tastemaker.imaging.shards import SHARD_EXTENSIONS, is_shard
from tastemaker.imaging.tables import is_table
from tastemaker.stages.base import ProcessingStage, Resources
from tastemaker.storage import Options, base_name, expand_path, folder_of, look_anew, relative_to, without_repeats
from tastemaker.storage.inputs import Input, find_inputs, map_places
from tastemaker.storage.place import Place
from tastemaker.tasks import EmptyTask, FileGroupTask, Partition

LOOSE_FILES_PER_PARTITION = 500
"""Loose images in a group where nothing else is asked for. A shard is a group of its own."""

_UNITS = {"": 1, "B": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY_UNITS = {"KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}

logger = logging.getLogger(__name__)


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
    name: str = "file_partitioning"
    column: str | None = None
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
        places = [Place.at(name, self.storage_options) for name in names]
        found = without_repeats(file for files in map_places(self._find, places) for file in files)
        if not found:
            wanted = ", ".join(self.file_extensions or ["every image format", *SHARD_EXTENSIONS])
            raise ConfigurationError(
                f"no images in {', '.join(map(str, places)) or 'an empty list of paths'} ({wanted})"
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

    def _find(self, place: Place) -> list[Input]:
        """Return the files that a place stands for, without those that are not wanted."""
        try:
            found = find_inputs(place)
        except OSError as error:
            if not place.is_pattern and self._is_named_so(place.address):
                return [Input(place.address, place.parent.address, problem=str(error))]
            raise ConfigurationError(str(error)) from error
        if not found and not place.is_folder():
            raise ConfigurationError(f"{str(place) or repr('')} does not exist")
        return list(self._choose(found))

    def _choose(self, found: list[Input]) -> Iterator[Input]:
        """Yield the files that are wanted by their names, or by their content where the name does not tell."""
        named_so = [file.is_named or self._is_named_so(file.path) for file in found]
        unknown = (file for file, is_wanted in zip(found, named_so, strict=True) if is_wanted is None)
        looks = map_places(self._holds_images, (Place.at(file.path, self.storage_options) for file in unknown))
        for file, is_wanted in zip(found, named_so, strict=True):
            if next(looks) if is_wanted is None else is_wanted:
                yield file

    def _is_named_so(self, path: str) -> bool | None:
        """Return whether a file's name says that it is wanted; None where only its content tells."""
        name = base_name(path).lower()
        if name.startswith("."):
            return False
        if self.file_extensions is not None:
            return name.endswith(tuple("." + extension.lower().lstrip(".") for extension in self.file_extensions))
        extension = os.path.splitext(name)[1]
        if not extension or is_table(path):
            return None
        return is_shard(path) or extension[1:] in EXTENSIONS

    def _holds_images(self, place: Place) -> bool:
        try:
            if is_table(place.name):
                return holds_pictures(place, self.column)
            with contextlib.closing(place.open_ranges()) as file:
                return sniff_format(file.read_at(0, 32)) is not None
        except UnreadableImageError:
            return True  # its row says what is wrong with it
        except OSError:
            return False

    def _split(self, files: list[Input], default_count: int) -> Iterator[list[Input]]:
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


def _split_by_size(files: list[Input], max_bytes: int) -> Iterator[list[Input]]:
    group: list[Input] = []
    filled = 0
    for file in files:
        if group and filled + file.size > max_bytes:
            yield group
            group, filled = [], 0
        group.append(file)
        filled += file.size
    if group:
        yield group


def _name_groups(parts: list[list[Input]], options: Options | None) -> list[FileGroupTask]:
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
    return Place.at(folder).resolve().name


def _shard_name(file: Input) -> str:
    """Return a shard's path below its input folder, without its extension."""
    relative = relative_to(file.path, file.root)
    extension = next((e for e in SHARD_EXTENSIONS if relative.lower().endswith(e)), "")
    return relative[: len(relative) - len(extension)]
