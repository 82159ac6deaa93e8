"""Which files: paths, folders and globs to groups of shards or of loose images."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field
from functools import partial
from itertools import count, groupby
from typing import Any

from tastemaker.checks import check_numbers, check_positive
from tastemaker.errors import ConfigurationError
from tastemaker.imaging.shards import SHARD_EXTENSIONS
from tastemaker.stages.base import ProcessingStage, Resources
from tastemaker.stages.choice import Choice, describe
from tastemaker.storage import Options, base_name, folder_of, relative_to, without_repeats
from tastemaker.storage.inputs import find_inputs, map_places, name_inputs, source_from
from tastemaker.storage.place import Entry, Place, look_anew
from tastemaker.tasks import EmptyTask, FileGroupTask, Partition

_SHOWN_PLACES = 5

LOOSE_FILES_PER_PARTITION = 500
"""Loose images in a group where nothing else is asked for. A shard is a group of its own."""

_UNITS = {"": 1, "B": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY_UNITS = {"KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}

logger = logging.getLogger(__name__)

_LONGEST = 150
"""Bytes in a part of a name: a number, an extension, and the mark of a draft come to it, and 255 are the limit."""


@dataclass
class FilePartitioningStage(ProcessingStage[EmptyTask, FileGroupTask]):
    """Makes groups of files to be read together.

    Args:
        file_paths: A file, folder (searched with all folders below it) or glob, local or a URL, or a list of them.
        files_per_partition: Files in a group. Default: 1 shard, or 500 loose images.
        blocksize: Bytes in a group instead, for example ``"512MB"``. Not together with ``files_per_partition``.
        file_extensions: Extensions of the files that are wanted. Default: shards and every kind of image, known by
            their content where the extension is none of a known kind.
        storage_options: Settings of the stores of URLs (see docs/remote-data.md). Never written.
        limit: Groups to make at most.
        column: Of tables, the column with the pictures; None to recognise it.
        exclude: Patterns of files and folders that are left out, see `tastemaker.stages.choice.Choice`.
        root: Folder that the keys of files begin below that are named one by one; None for their own folders.

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
    is_sink_stage = False
    column: str | None = None
    exclude: list[str] | None = None
    root: str | None = None
    passed_over: Counter[str] = field(default_factory=Counter, init=False, repr=False)
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
        self._groups = self.make_groups()

    def process(self, _: EmptyTask | None = None) -> list[FileGroupTask]:
        """Return the groups, in the order of their paths."""
        if self._groups is None:
            self.check()
        return list(self._groups or [])

    def num_workers(self) -> int | None:
        """Return 1: there is one list to make."""
        return 1

    def make_groups(self, find: Callable[[Place], list[Entry]] = find_inputs) -> list[FileGroupTask]:
        """Return the groups, in the order of their paths.

        Args:
            find: Finds the files that a place stands for.

        Raises:
            ConfigurationError: A path does not exist, or there are no images.
        """
        names = name_inputs(self.file_paths)
        look_anew(names)
        places = [Place.at(name, self.storage_options) for name in names]
        choice = Choice(self.file_extensions, self.exclude, self.column)
        listed = (file for files in map_places(partial(self._find, choice, find), places) for file in files)
        shards, loose = choice.choose(without_repeats(listed))
        found, self.passed_over = [*shards, *loose], choice.passed_over
        if not found:
            raise ConfigurationError(self._explain_nothing(places))
        problems = [file.problem for file in found if file.problem]
        if len(problems) == len(found):
            raise ConfigurationError(problems[0])
        for problem in problems:
            logger.warning("%s; the run goes on, and asks again when it gets there", problem)
        parts = list(self._split(shards, 1))
        for _, below_one_root in groupby(loose, key=lambda file: file.root):
            parts += self._split(list(below_one_root), LOOSE_FILES_PER_PARTITION)
        groups = _name_groups(parts, {file.path for file in shards}, self.storage_options)[: self.limit]
        logger.info("files: %d, groups of them: %d", len(found), len(groups))
        if self.passed_over:
            logger.info("passed over: %s", describe(self.passed_over))
        return groups

    def _find(self, choice: Choice, find: Callable[[Place], list[Entry]], place: Place) -> list[Entry]:
        """Return the files that a place stands for."""
        try:
            found = find(place)
        except OSError as error:
            if not place.is_pattern and choice.is_named_so(place.address):
                return [Entry(place, 0, root=place.parent.address, problem=str(error))]
            raise ConfigurationError(str(error)) from error
        if not found and not place.is_folder():
            hint = "; a list of files is read with --files-from" if place.address[:1] in ("-", "@") else ""
            raise ConfigurationError(f"{str(place) or repr('')} does not exist{hint}")
        if self.root is None:
            return found
        root = Place.at(self.root, self.storage_options).resolve().address
        return [file._replace(root=root) if file.is_named else file for file in found]

    def _explain_nothing(self, places: list[Place]) -> str:
        shown = ", ".join(map(str, places[:_SHOWN_PLACES])) + (", ..." if len(places) > _SHOWN_PLACES else "")
        wanted = f" ({', '.join(self.file_extensions)})" if self.file_extensions else ""
        text = f"no images in {shown or 'an empty list of paths'}{wanted}"
        if not self.passed_over:
            return text
        return f"{text}. Passed over: {describe(self.passed_over, with_sidecars=True)}"

    def _split(self, files: list[Entry], default_count: int) -> Iterator[list[Entry]]:
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


def _split_by_size(files: list[Entry], max_bytes: int) -> Iterator[list[Entry]]:
    group: list[Entry] = []
    filled = 0
    for file in files:
        if group and filled + file.size > max_bytes:
            yield group
            group, filled = [], 0
        group.append(file)
        filled += file.size
    if group:
        yield group


def _name_groups(parts: list[list[Entry]], paths_of_shards: set[str], options: Options | None) -> list[FileGroupTask]:
    """Return the groups, each with the name of its output (see docs/rows.md)."""
    owners: dict[str, str] = {}
    shards = {
        first.path: distinct_name(_shard_name(first), first.path, owners)
        for first, *_ in parts
        if first.path in paths_of_shards
    }
    taken = set(shards.values())
    numbered: dict[str, Iterator[int]] = {}
    groups = []
    for index, files in enumerate(parts):
        first = files[0]
        if first.path in shards:
            name = folder = shards[first.path]
        else:
            folder = distinct_name(base_name(first.root) or "images", first.root, owners)
            name = loose_name(folder, next(numbered.setdefault(folder, free_numbers(folder, taken))))
        paths = [file.path for file in files]
        partition = Partition(
            name,
            first.root,
            folder,
            is_loose=first.path not in shards,
            files=tuple(map(source_from, files)),
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
        dataset = (base_name(folder_of(first.path)) or "dataset").lower()
        groups.append(FileGroupTask(dataset, paths, _metadata=metadata, task_id=str(index), partition=partition))
    return groups


def loose_name(folder: str, number: int) -> str:
    """Return the name of a partition of loose files."""
    return f"{folder}-{number:05d}"


def free_numbers(folder: str, taken: Set[str]) -> Iterator[int]:
    """Yield the numbers of partitions of a folder of loose files, without those whose name something else has."""
    return (number for number in count() if loose_name(folder, number) not in taken)


def distinct_name(name: str, owner: str, owners: dict[str, str]) -> str:
    """Return the name of a partition: ``name``, or ``name-2`` and so on where another owner has it.

    No part of it begins with ``_`` or ``.``, because programs that read Parquet pass over such files, and none is long.
    """
    parts = [part.lstrip("._") or "images" for part in name.split("/")]
    name = "/".join(part if len(os.fsencode(part)) <= _LONGEST else _cut(part) for part in parts)
    candidates = (name if number == 1 else f"{name}-{number}" for number in count(1))
    chosen = next(candidate for candidate in candidates if owners.get(candidate, owner) == owner)
    owners[chosen] = owner
    return chosen


def _cut(name: str) -> str:
    return os.fsencode(name)[:_LONGEST].decode(errors="ignore")


def _shard_name(file: Entry) -> str:
    """Return a shard's path below its input folder, without its extension."""
    relative = relative_to(file.path, file.root)
    extension = next((e for e in SHARD_EXTENSIONS if relative.lower().endswith(e)), "")
    return relative[: len(relative) - len(extension)]
