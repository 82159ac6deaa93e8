"""What is left to do: the partitions of a run against the rows that are there. Loads no model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow.compute as pc

from tastemaker.errors import ConfigurationError, ReasonKind
from tastemaker.runs.fingerprint import Fingerprint, canonical, describe_others
from tastemaker.runs.index import RowsIndex, RowsNote, rows_path
from tastemaker.runs.matching import Match, describe_sources, has_content, rows_of_files, sample_of
from tastemaker.runs.options import RunMode
from tastemaker.scores.files import check_own_rows, read_rows
from tastemaker.scores.schema import original_name
from tastemaker.storage.inputs import SourceFile
from tastemaker.storage.place import Place
from tastemaker.tasks import FileGroupTask

_OF_THE_SHARD = (
    *(ReasonKind.DUPLICATE_KEY, ReasonKind.LATE_MEMBER, ReasonKind.UNSAFE_NAME),
    *(ReasonKind.UNSUPPORTED_MEMBER, ReasonKind.DAMAGED_SHARD),
)
"""Reasons that lie in how a shard is made: to read a sample of it again does not change them."""

_FAILED_COLUMNS = ["image_id", "image_path", "shard", "offset", "size", "sidecars", "reason_kind", "width", "height"]


@dataclass
class Plan:
    """What a run has to do.

    Attributes:
        matches: The partitions of the run that have rows in the end.
        tasks: What goes through the pipeline: whole partitions, and single images of others.
        updates: Partitions in which rows change without a picture being scored, with the files that they then say that
            they were made from.
        is_mixed: Some rows were made otherwise, and stay.
        not_retried: Failed rows that cannot come out differently, because their shard is made so.
        redone: Why rows are made again -> how many.
        moved: Files of the input that were found at another place than their rows say.
    """

    matches: list[Match] = field(default_factory=list)
    tasks: list[FileGroupTask] = field(default_factory=list)
    updates: list[tuple[Match, tuple[SourceFile, ...]]] = field(default_factory=list)
    is_mixed: bool = False
    not_retried: int = 0
    redone: Counter[str] = field(default_factory=Counter)
    moved: int = 0

    @property
    def work(self) -> int:
        """Partitions that are not finished."""
        return len({task.partition.name for task in self.tasks} | {match.name for match, _ in self.updates})


def make_plan(
    matches: list[Match],
    index: RowsIndex,
    fingerprint: Fingerprint,
    mode: RunMode,
    max_pixels: int,
) -> Plan:
    """Return what is left to do.

    Args:
        matches: The partitions of this run (of this slice).
        index: The rows that are there.
        fingerprint: What this run makes rows with.
        mode: Whether to overwrite, to leave alone, to run failures again.
        max_pixels: Images that failed because they have more, and do not, are run again.

    Raises:
        ConfigurationError: Rows were made otherwise, and nothing says what to do with them; or a file of somebody
            else is where rows are to go.
    """
    return _Planner(index, fingerprint, mode, max_pixels).plan(matches)


class _Planner:
    def __init__(self, index: RowsIndex, fingerprint: Fingerprint, mode: RunMode, max_pixels: int) -> None:
        self._index, self._output_dir = index, index.output_dir
        self._fingerprint, self._mode, self._max_pixels = fingerprint, mode, max_pixels
        self._plan = Plan()

    def plan(self, matches: list[Match]) -> Plan:
        wanted, plan, mode = canonical(self._fingerprint), self._plan, self._mode
        notes = self._index.notes(match.name for match in matches)
        for match in matches:
            if match.name in self._index and (match.name not in notes or not notes[match.name].fingerprint):
                check_own_rows(rows_path(self._output_dir, match.name))
            match.task.partition.provenance = self._provenance(match, match.task.partition.files)
        others = {name: note.fingerprint for name, note in notes.items() if note.fingerprint != wanted}
        if others and not (mode.overwrite or mode.new_fingerprint_only):
            raise ConfigurationError(
                f"{self._output_dir} has rows that were made otherwise: "
                f"{describe_others(others, self._fingerprint, len(notes))}. Say --overwrite to make them again, "
                "--new-fingerprint-only to leave them and do only what has no rows yet, or choose another directory"
            )
        plan.is_mixed = bool(others) and mode.new_fingerprint_only
        for match in matches:
            note = notes.get(match.name)
            if note is None and not match.task.data:
                continue  # all of its files are gone, and no row was written
            plan.matches.append(match)
            if note is None:
                plan.tasks.append(match.task)
            elif match.name not in others:
                self._add_changes(match, note)
            elif mode.overwrite:
                self._add_again(match, note)
        return plan

    def _provenance(self, match: Match, files: tuple[SourceFile, ...]) -> dict[str, Any]:
        partition = match.task.partition
        return {
            "fingerprint": self._fingerprint,
            "sources": describe_sources(partition.root, partition.is_loose, files),
        }

    def _add_again(self, match: Match, note: RowsNote) -> None:
        """Do a partition again as a whole; the rows of pictures that are gone cannot be, and stay."""
        self._plan.redone["made otherwise"] += note.rows
        partition = match.task.partition
        if not partition.is_loose or all(size >= 0 for _, size, _ in partition.files):
            self._plan.tasks.append(match.task)
        elif not match.task.data:
            self._update(match, partition.files)
        else:
            if match.moved:
                self._update(match, match.before or ())
            self._plan.tasks.append(_some_of(match.task, match.task.data, partition.source_bytes))

    def _add_changes(self, match: Match, note: RowsNote) -> None:
        """Add what is to be done about a partition that has rows of this fingerprint."""
        partition, before = match.task.partition, match.before or ()
        if match.before is None or (not partition.is_loose and {*before} != {*partition.files}):
            self._plan.redone["changed"] += note.rows
            self._plan.tasks.append(match.task)
            return
        self._plan.moved += len(match.moved)
        failed = self._failed_rows(match, note)
        if partition.is_loose:
            self._add_files(match, {original_name(row["image_path"]) for row in failed})
            return
        if match.moved:
            self._update(match, partition.files)
        self._add_samples(match, failed)

    def _add_files(self, match: Match, failed: set[str]) -> None:
        """Do the loose files that changed, and those in ``failed``."""
        partition, before = match.task.partition, {*(match.before or ())}
        other = {file[0]: file for file in partition.files if file[1] >= 0 and file not in before}
        same = self._same_content(match, other)
        changed = {path for path in other if path not in same}
        failed = {match.moved[path].path if path in match.moved else path for path in failed}
        paths = [path for path in match.task.data if _shown(path) in changed | failed]
        if match.moved or (not paths and match.before != partition.files):
            known = {path: file for file in match.before or () if (path := file[0]) in changed}
            self._update(match, tuple(known.get(file[0], file) for file in partition.files))
        if paths:
            self._plan.redone["changed"] += len(changed)
            sizes = {path: size for path, size, _ in partition.files}
            self._plan.tasks.append(_some_of(match.task, paths, sum(sizes[_shown(path)] for path in paths)))

    def _same_content(self, match: Match, other: dict[str, SourceFile]) -> set[str]:
        """Return the files among ``other`` whose time changed, and whose content did not."""
        sizes = {path: size for path, size, _ in match.before or ()}
        touched = [path for path, file in other.items() if sizes.get(path) == file[1]]
        if not touched:
            return set()
        rows = rows_of_files(self._output_dir, match.name)
        old = {moved.path: path for path, moved in match.moved.items()}
        address = {_shown(path): path for path in match.task.data}
        return {
            path
            for path in touched
            if len(found := rows.get(old.get(path, path), [])) == 1 and has_content(address[path], match.task, found[0])
        }

    def _failed_rows(self, match: Match, note: RowsNote) -> list[dict[str, Any]]:
        """Return the failed rows that are to be done again."""
        may_fit = note.counts.get("reasons", {}).get(ReasonKind.TOO_LARGE, 0)
        if not (note.failed and self._mode.retry_failed) and not may_fit:
            return []
        table = read_rows(rows_path(self._output_dir, match.name), [*_FAILED_COLUMNS, "status"])
        rows = table.filter(pc.equal(table["status"], "failed")).to_pylist()
        fit = [row for row in rows if self._fits_now(row)]
        self._plan.redone["within a higher limit"] += len(fit)
        if not self._mode.retry_failed:
            return fit
        self._plan.redone["failed before"] += len(rows) - len(fit)
        return list(rows)

    def _fits_now(self, row: dict[str, Any]) -> bool:
        is_bomb = row["reason_kind"] == ReasonKind.TOO_LARGE and row["width"] and row["height"]
        return bool(is_bomb) and row["width"] * row["height"] <= self._max_pixels

    def _add_samples(self, match: Match, rows: Iterable[dict[str, Any]]) -> None:
        """Do failed images of a shard by their byte ranges; the whole shard where it failed itself."""
        rows = list(rows)
        if any(not row["image_id"] for row in rows):
            self._plan.tasks.append(match.task)
            return
        done = [
            row for row in rows if row["offset"] is not None and row["size"] and row["reason_kind"] not in _OF_THE_SHARD
        ]
        self._plan.not_retried += len(rows) - len(done)
        self._plan.redone["failed before"] -= len(rows) - len(done)
        if done:
            samples = [sample_of(row) for row in done]
            source_bytes = sum(member.size for sample in samples for member in sample.members())
            self._plan.tasks.append(_some_of(match.task, match.task.data, source_bytes, samples=samples))

    def _update(self, match: Match, files: tuple[SourceFile, ...]) -> None:
        self._plan.updates.append((match, files))


def _some_of(task: FileGroupTask, paths: list[str], source_bytes: int, **parts: Any) -> FileGroupTask:  # noqa: ANN401
    """Return a task for some images of a partition: the writer puts their rows in the places of the old ones."""
    part = replace(task.partition, is_part=True, source_bytes=source_bytes, **parts)
    return replace(task, data=paths, partition=part)


def _shown(path: str) -> str:
    return str(Place.at(path))
