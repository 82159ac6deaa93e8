"""Which partition a loose file belongs to: the one that has its row, or a new one.

docs/decisions/0010-resume.md says why, and what else was thought of.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count

from tastemaker.runs.index import RowsIndex
from tastemaker.runs.input_files import SourceFile, Sources, is_gone, read_sources
from tastemaker.stages.partition import LOOSE_FILES_PER_PARTITION, free_numbers, loose_name
from tastemaker.storage import Options
from tastemaker.tasks import FileGroupTask

_NUMBER = re.compile(r"(.*)-(\d{5})")


@dataclass
class Partition:
    """One partition of a run.

    Attributes:
        group: The task: the files that are there now.
        sources: These files, and those that are gone (of size -1), in the order of the rows. A file that is on the disk
            and no input of this run stands as it was recorded.
    """

    group: FileGroupTask
    sources: Sources

    @property
    def name(self) -> str:
        """Of its rows file."""
        return self.group.partition.name


def assign_loose(partitions: list[Partition], index: RowsIndex) -> list[Partition]:
    """Return the partitions of a run, in which every loose file that has a row is where its row is.

    Partitions that have rows stay as they are, and know which of their files are gone. Files without a row come into
    new partitions, which take the lowest numbers that neither these nor shards have: with an empty directory, or one
    where some partitions are finished and no file was added, that is the same as cutting the list of files every 500.

    Args:
        partitions: As `tastemaker.stages.partition.FilePartitioningStage` made them.
        index: The rows that are there.
    """
    assigned: list[Partition] = []
    taken: set[str] = set()
    shards = {partition.name for partition in partitions if not partition.group.partition.is_loose}
    recorded = _recorded(partitions, index, shards)
    for root, below in _by_root(partitions):
        if root is None:
            assigned += below
            continue
        folder = _free_folder(below[0], recorded, taken)
        taken.add(folder)
        assigned += _assign_folder(below, folder, recorded.get(folder, {}), shards)
    for number, partition in enumerate(assigned):
        partition.group.task_id = str(number)
    return assigned


def _by_root(partitions: list[Partition]) -> Iterator[tuple[str | None, list[Partition]]]:
    """Yield shards one by one with None, and loose partitions of one input folder together, in their order."""
    together: dict[str, list[Partition]] = {}
    for partition in partitions:
        if not partition.group.partition.is_loose:
            yield None, [partition]
        else:
            together.setdefault(partition.group.partition.folder, []).append(partition)
    yield from together.items()


def _recorded(partitions: list[Partition], index: RowsIndex, shards: set[str]) -> dict[str, dict[int, Sources]]:
    """Return folder -> number -> sources of every loose partition that has rows and may matter here.

    Args:
        partitions: Of the run.
        index: The rows that are there.
        shards: Names of partitions of shards; those that have rows and are not of this run are added.
    """
    if all(not partition.group.partition.is_loose for partition in partitions):
        return {}
    numbered = {name: match for name in index.names() if name not in shards and (match := _NUMBER.fullmatch(name))}
    found: dict[str, dict[int, Sources]] = {}
    for name, note in index.notes(numbered).items():
        sources = read_sources(note.sources)
        if sources is not None and not sources.place:
            shards.add(name)
        elif sources is not None:
            found.setdefault(numbered[name][1], {})[int(numbered[name][2])] = sources
    return found


def _free_folder(first: Partition, recorded: dict[str, dict[int, Sources]], taken: set[str]) -> str:
    """Return the folder that has this input folder's rows; else its name, or ``name-2`` where that is taken."""
    owners = {folder: next(iter(numbers.values())).place for folder, numbers in recorded.items()}
    own = next((folder for folder, place in owners.items() if place == first.sources.place), None)
    if own is not None and own not in taken:
        return own
    wanted = first.group.partition.folder
    names = (wanted if number == 1 else f"{wanted}-{number}" for number in count(1))
    return next(name for name in names if name not in taken and name not in owners)


def _assign_folder(
    below: list[Partition], folder: str, recorded: dict[int, Sources], shards: set[str]
) -> list[Partition]:
    """Return the partitions of one input folder; new ones take no names of shards."""
    now = {file[0]: file for partition in below for file in partition.sources.files}
    first = below[0]
    options = first.group.partition.storage_options
    members: dict[int, list[SourceFile]] = {}
    assigned: set[str] = set()
    for number, sources in sorted(recorded.items()):
        if sources.root == first.sources.root:
            members[number] = [_as_it_is(file, now.get(file[0]), options) for file in sources.files]
            assigned |= {file[0] for file in sources.files}
        else:  # another spelling of the same folder
            respelled = [first.sources.root + file[0].removeprefix(sources.root) for file in sources.files]
            members[number] = [now[path] for path in respelled if path in now]
            assigned |= set(respelled)
    added = [file for path, file in now.items() if path not in assigned]
    free = (number for number in free_numbers(folder, shards) if number not in members)
    for start in range(0, len(added), LOOSE_FILES_PER_PARTITION):
        members[next(free)] = added[start : start + LOOSE_FILES_PER_PARTITION]
    return [_make_partition(first, folder, number, files) for number, files in sorted(members.items())]


def _as_it_is(file: SourceFile, found: SourceFile | None, options: Options | None) -> SourceFile:
    """Return a recorded file as this run has found it."""
    path, _, version = file
    if found is None:
        return (path, -1, "") if is_gone(path, options) else file
    if version and not found[2]:  # it was read once: what its row says is worth more than that it cannot be read now
        return (path, -1, "") if os.path.islink(path) else file
    return found


def _make_partition(like: Partition, folder: str, number: int, files: list[SourceFile]) -> Partition:
    paths = [path for path, size, _ in files if size >= 0]
    source_bytes = sum(max(size, 0) for _, size, _ in files)
    partition = replace(like.group.partition, name=loose_name(folder, number), folder=folder, source_bytes=source_bytes)
    group = FileGroupTask(like.group.dataset_name, paths, partition=partition)
    return Partition(group, replace(like.sources, files=tuple(files)))
