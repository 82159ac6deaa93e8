"""Which rows belong to which input files: by path, then by size and time, then by hash.

docs/decisions/0010-resume.md says why, and what else was thought of.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import xxhash

from tastemaker.imaging.keys import Sample
from tastemaker.imaging.shards import read_at_ranges
from tastemaker.imaging.tars import Member
from tastemaker.runs.index import RowsIndex, rows_path
from tastemaker.scores.files import read_rows
from tastemaker.scores.schema import caption_and_json, original_name
from tastemaker.stages.partition import LOOSE_FILES_PER_PARTITION, distinct_name, free_numbers, loose_name
from tastemaker.storage import base_name
from tastemaker.storage.inputs import UNKNOWN_VERSION, SourceFile
from tastemaker.storage.owned import describe
from tastemaker.storage.place import Place
from tastemaker.tasks import FileGroupTask, ImageObject, Partition

_FIRST_FILES = 16
"""Loose files in the first new partition of a run; each later one has twice as many, up to the usual number. So the
first rows are there soon, and a run that is stopped keeps about half of what it did, or more."""

_NUMBER = re.compile(r"(.*)-(\d{5})")
_COLUMNS = ["image_id", "image_path", "shard", "offset", "size", "sidecars", "xxh3", "caption", "json"]


@dataclass
class Match:
    """A partition of a run, and the rows that it has.

    Attributes:
        task: The files that are there now. ``task.partition.files`` has those that are gone, too, with the size -1, and
            those that are no input of this run as they were recorded.
        before: The files that its rows were made from, by the paths that they have now; None where there are no rows.
        moved: Path in the rows -> the path that the file has now: the same one where it has another time only.
    """

    task: FileGroupTask
    before: tuple[SourceFile, ...] | None = None
    moved: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of its rows file."""
        return self.task.partition.name


def describe_sources(partition: Partition) -> dict[str, Any]:
    """Return what the metadata of a rows file says of its input files."""
    return {"root": partition.root, "loose": partition.is_loose, "files": [list(file) for file in partition.files]}


def read_sources(name: str, text: str) -> Partition | None:
    """Return the partition that a rows file was made from; None where its metadata says nothing that can be used."""
    try:
        found = json.loads(text)
        files = tuple((str(path), int(size), str(version)) for path, size, version in found["files"])
        is_loose = bool(found["loose"])
        return Partition(name, found["root"], _folder_of(name) if is_loose else name, is_loose, files)
    except (ValueError, TypeError, KeyError):
        return None


def match_inputs(groups: list[FileGroupTask], index: RowsIndex, *, in_slices: bool = False) -> list[Match]:
    """Return the partitions of a run: every file that has rows is in the partition that has them.

    A file is the one that rows were made from if it has their path. Where that file is gone, another one of its name
    and size takes its place, if it has the same time of change or the same content. A loose file of another time, and
    the same size and content, has not changed.

    Loose files without rows come into new partitions, which take the lowest free numbers. The first ones are small.
    Slices of one input must agree about them, whatever is finished by now: they cut the list every 500.

    Args:
        groups: As `tastemaker.stages.partition.FilePartitioningStage` made them.
        index: The rows that are there.
        in_slices: Runs beside this one do other slices of the same input.
    """
    found = _Matcher(groups, index, in_slices=in_slices).match()
    for number, match in enumerate(found):
        match.task.task_id = str(number)
    return found


def sample_of(row: dict[str, Any]) -> Sample:
    """Return where the parts of an image lie in its shard."""
    name = original_name(row["image_path"]).removeprefix(f"{original_name(row['shard'])}/")
    sidecars = {
        original_name(part["extension"]): Member(original_name(part["member"]), part["offset"], part["size"])
        for part in row["sidecars"]
    }
    return Sample(original_name(row["image_id"]), Member(name, row["offset"], row["size"]), sidecars)


class _Now(NamedTuple):
    """A file of the input: as it is, the path to read it from, and the group that it was found in."""

    file: SourceFile
    path: str
    group: FileGroupTask


class _Matcher:
    def __init__(self, groups: list[FileGroupTask], index: RowsIndex, *, in_slices: bool) -> None:
        self._groups, self._output_dir = groups, index.output_dir
        self._first_size = LOOSE_FILES_PER_PARTITION if in_slices else min(_FIRST_FILES, LOOSE_FILES_PER_PARTITION)
        notes = index.notes(index.names())
        self._recorded = {name: found for name, note in notes.items() if (found := read_sources(name, note.sources))}
        self._names = dict.fromkeys(self._recorded, "")  # name -> whose it is, as `distinct_name` takes it
        self._folders = {recorded.folder: recorded.root for recorded in self._recorded.values() if recorded.is_loose}
        self._now = {
            file[0]: _Now(file, path, group)
            for group in groups
            for file, path in zip(group.partition.files, group.data, strict=True)
        }
        self._owner: dict[str, str] = {}
        for is_there in (False, True):  # a row of a file that is there counts for more than one of a file that is gone
            for name, recorded in self._recorded.items():
                self._owner |= {path: name for path, size, _ in recorded.files if (size >= 0) is is_there}
        self._moved: dict[str, dict[str, str]] = defaultdict(dict)  # partition -> path in the rows -> path now
        self._follow()

    def match(self) -> list[Match]:
        """Return the partitions: shards in the order of the input, then loose files by name, in each slice the same."""
        shards: dict[str, Match] = {}
        loose: dict[str, Match] = {}
        added: dict[str, list[_Now]] = defaultdict(list)  # input folder -> files without rows
        like: dict[str, FileGroupTask] = {}  # input folder -> its first group of loose files
        for group in self._groups:
            partition = group.partition
            found = loose if partition.is_loose else shards
            if partition.is_loose:
                like.setdefault(partition.root, group)
            for path, *_ in partition.files if partition.is_loose else partition.files[:1]:
                name = self._owner.get(path)
                if name is not None and self._recorded[name].is_loose is partition.is_loose:
                    found[name] = found.get(name) or self._match_recorded(name, group)
                elif partition.is_loose:
                    added[partition.root].append(self._now[path])
                else:
                    name = distinct_name(partition.name, path, self._names)
                    found[name] = Match(replace(group, partition=replace(partition, name=name, folder=name)))
        for name, recorded in self._recorded.items():  # all of whose files are gone
            if recorded.is_loose and recorded.root in like and name not in loose:
                loose[name] = self._match_recorded(name, like[recorded.root])
        for root, files in added.items():
            loose |= {match.name: match for match in self._make_new(like[root], files)}
        return [*shards.values(), *(loose[name] for name in sorted(loose))]

    def _follow(self) -> None:
        """Find the files whose rows state another path, or another time."""
        lost: dict[tuple[str, int, bool], list[_Now]] = defaultdict(list)
        for path, now in self._now.items():
            if path not in self._owner:
                lost[base_name(path), now.file[1], now.group.partition.is_loose].append(now)
        for name, recorded in self._recorded.items():
            rows: dict[str, list[dict[str, Any]]] = {}
            for old in recorded.files:
                if self._owner.get(old[0]) != name:
                    continue
                there = self._now.get(old[0])
                fits = lost.get((base_name(old[0]), old[1], recorded.is_loose), []) if there is None else [there]
                if not fits or not self._may_be_other(old, there, fits[0].group):
                    continue
                new = next((now for now in fits if _has_version(now.file, old)), None)
                if new is None:
                    rows = rows or _rows_of_files(self._output_dir, name)
                    new = next((now for now in fits if _is_same(now, rows.get(old[0], []))), None)
                if new is not None:
                    self._moved[name][old[0]], self._owner[new.file[0]] = new.file[0], name
                    fits.remove(new)

    def _may_be_other(self, old: SourceFile, there: _Now | None, like: FileGroupTask) -> bool:
        """Return whether a recorded file is gone from its path, or is a loose one whose time alone has changed."""
        if there is None:
            return self._is_gone(old[0], like)
        is_touched = there.file[1] == old[1] and there.file[2] not in (old[2], UNKNOWN_VERSION)
        return is_touched and like.partition.is_loose

    def _match_recorded(self, name: str, like: FileGroupTask) -> Match:
        """Return a partition that has rows, with its files as they are now. Those in ``moved`` have not changed."""
        recorded, moved = self._recorded[name], self._moved[name]
        before = tuple(self._now[moved[file[0]]].file if file[0] in moved else file for file in recorded.files)
        known = {file[0]: file for file in before}
        listed = before if recorded.is_loose else (known.get(file[0], file) for file in like.partition.files)
        files = tuple(self._as_it_is(file, like) for file in listed)
        elsewhere = next((new for old, new in moved.items() if new != old), None)
        root = self._now[elsewhere].group.partition.root if elsewhere else recorded.root
        partition = replace(like.partition, name=name, root=root, folder=recorded.folder, files=files)
        if not recorded.is_loose:
            return Match(replace(like, partition=partition), before, moved)
        self._folders[recorded.folder] = root
        there = [self._now[path] for path, size, _ in files if size >= 0 and path in self._now]
        return Match(_task(like, partition, there), before, moved)

    def _as_it_is(self, file: SourceFile, like: FileGroupTask) -> SourceFile:
        """Return a recorded file as this run has found it; one whose server did not answer as it was recorded."""
        path, _, version = file
        if path not in self._now:
            return (path, -1, "") if self._is_gone(path, like) else file
        found = self._now[path].file
        if version and not found[2]:  # it was read once: what its row says is worth more than that it cannot be now
            return (path, -1, "") if os.path.islink(path) else file
        return file if found[2] == UNKNOWN_VERSION else found

    def _make_new(self, like: FileGroupTask, added: list[_Now]) -> list[Match]:
        """Return partitions for files of one input folder that have no rows."""
        root = like.partition.root
        known = next((folder for folder in sorted(self._folders) if self._folders[folder] == root), None)
        folder = known or distinct_name(like.partition.folder, root, self._folders)
        numbers = free_numbers(folder, self._names.keys())
        matches = []
        start, size = 0, self._first_size
        while some := added[start : start + size]:
            start, size = start + size, min(2 * size, LOOSE_FILES_PER_PARTITION)
            name = loose_name(folder, next(numbers))
            files = tuple(now.file for now in some)
            partition = replace(like.partition, name=name, folder=folder, files=files)
            matches.append(Match(_task(like, partition, some)))
            self._names[name] = ""
        return matches

    def _is_gone(self, path: str, like: FileGroupTask) -> bool:
        return Place.at(path, like.partition.storage_options).is_gone()


def _task(like: FileGroupTask, partition: Partition, files: list[_Now]) -> FileGroupTask:
    partition = replace(partition, source_bytes=sum(now.file[1] for now in files))
    return replace(like, data=[now.path for now in files], partition=partition)


def _folder_of(name: str) -> str:
    """Return the name of a partition of loose files without its number."""
    match = _NUMBER.fullmatch(name)
    return match[1] if match else name


def _has_version(file: SourceFile, old: SourceFile) -> bool:
    """Return whether two files have the same time or ETag. A whole second proves nothing: archives set such times."""
    version = file[2]
    is_round = version.isdigit() and int(version) % 10**9 == 0
    return version == old[2] and version not in ("", UNKNOWN_VERSION) and not is_round


def _rows_of_files(output_dir: Place, name: str) -> dict[str, list[dict[str, Any]]]:
    """Return path of an input file -> its rows in a partition, without what models made."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in read_rows(rows_path(output_dir, name), _COLUMNS).to_pylist():
        found[original_name(row["shard"] or row["image_path"])].append(row)
    return found


def _is_same(now: _Now, rows: list[dict[str, Any]]) -> bool:
    """Return whether a file has the content that some rows were made from."""
    partition = now.group.partition
    try:
        if not partition.is_loose:
            return bool(rows) and _has_samples(now, rows)
        return [row["xxh3"] for row in rows] == [describe(Place.at(now.path, partition.storage_options)).xxh3]
    except (OSError, KeyError):
        return False


def _has_samples(now: _Now, rows: list[dict[str, Any]]) -> bool:
    """Return whether a shard has the pictures, captions and JSON of some rows, all at their places."""
    if any(row["xxh3"] is None or not row["size"] for row in rows):
        return False
    wanted = {(row["offset"], row["size"]): row for row in rows}
    samples = [sample_of(row) for row in rows]
    for sample, data in read_at_ranges(now.path, samples, now.group.partition.storage_options):
        assert sample.image is not None
        row = wanted.pop((sample.image.offset, sample.image.size))
        there = {e: data[member.name] for e, member in sample.sidecars.items() if member.name in data}
        content = xxhash.xxh3_64_hexdigest(data.get(sample.image.name, b""))
        if (content, *caption_and_json(ImageObject(sidecars=there))) != (row["xxh3"], row["caption"], row["json"]):
            return False
    return not wanted
