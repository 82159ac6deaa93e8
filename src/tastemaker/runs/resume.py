"""What is left to do: the partitions of a run against the rows that are there. Loads no model."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.errors import ConfigurationError, ReasonKind
from tastemaker.imaging.embedded import file_rating, rating_beside
from tastemaker.runs.fingerprint import Fingerprint, canonical, describe_others
from tastemaker.runs.index import RowsIndex, RowsNote, rows_path
from tastemaker.runs.matching import Match, describe_sources, sample_of
from tastemaker.runs.options import RunMode
from tastemaker.scores.files import check_own_rows, read_rows
from tastemaker.scores.merge import update_rows
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
        names: The partitions of the run that have rows in the end.
        tasks: What goes through the pipeline: whole partitions, and single images of others.
        is_mixed: Some rows were made otherwise, and stay.
        not_retried: Failed rows that cannot come out differently, because their shard is made so.
        redone: Why rows are made again -> how many.
        moved: Files of the input that were found at another place than their rows said.
        rerated: Pictures whose sidecars say another rating than their rows did.
        changed: The partitions whose rows change: those of ``tasks``, and those that were brought up to date.
    """

    names: list[str] = field(default_factory=list)
    tasks: list[FileGroupTask] = field(default_factory=list)
    is_mixed: bool = False
    not_retried: int = 0
    redone: Counter[str] = field(default_factory=Counter)
    moved: int = 0
    rerated: int = 0
    changed: set[str] = field(default_factory=set)


def make_plan(
    matches: list[Match],
    index: RowsIndex,
    fingerprint: Fingerprint,
    mode: RunMode,
    max_pixels: int,
) -> Plan:
    """Return what is left to do, and bring rows up to date that need no scoring: of files that moved, or are gone.

    Args:
        matches: The partitions of this run (of this slice).
        index: The rows that are there.
        fingerprint: What this run makes rows with.
        mode: Whether to overwrite, to leave alone, to run failures again.
        max_pixels: Images that failed because they have more, and do not, are run again.

    Raises:
        ConfigurationError: Rows were made otherwise, and nothing says what to do with them; or a file of somebody
            else is where rows are to go. No rows have changed then.
    """
    return _Planner(index, fingerprint, mode, max_pixels).plan(matches)


class _Planner:
    def __init__(self, index: RowsIndex, fingerprint: Fingerprint, mode: RunMode, max_pixels: int) -> None:
        self._index, self._output_dir = index, index.output_dir
        self._fingerprint, self._mode, self._max_pixels = fingerprint, mode, max_pixels
        self._plan = Plan()
        self._xmp_in = cache(_xmp_in)

    def plan(self, matches: list[Match]) -> Plan:
        wanted, plan, mode = canonical(self._fingerprint), self._plan, self._mode
        notes = self._index.notes(match.name for match in matches)
        for match in matches:
            if match.name in self._index and (match.name not in notes or not notes[match.name].fingerprint):
                check_own_rows(rows_path(self._output_dir, match.name))
        # Where all files are gone nothing can be made again, so what made their rows does not matter.
        made_by = {
            match.name: notes[match.name].fingerprint for match in matches if match.task.data and match.name in notes
        }
        others = {name: fingerprint for name, fingerprint in made_by.items() if fingerprint != wanted}
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
            plan.names.append(match.name)
            if note is None:
                self._add(match)
            elif match.name not in others:
                self._add_changes(match, note)
            elif mode.overwrite:
                self._add_again(match, note)
        return plan

    def _add_changes(self, match: Match, note: RowsNote) -> None:
        """Add what is to be done about a partition that has rows of this fingerprint."""
        partition = match.task.partition
        if match.before is None or (not partition.is_loose and match.before != partition.files):
            self._plan.redone["changed"] += note.rows
            self._add(match)
            return
        self._plan.moved += sum(new != old for old, new in match.moved.items())
        if partition.is_loose:
            self._add_changed_files(match, note)
            return
        self._update(match, partition.files)
        self._add_samples(match, self._failed_rows(match, note))

    def _add_changed_files(self, match: Match, note: RowsNote) -> None:
        """Do the loose files that changed, and those that failed. Until then their rows stay, as of the old files."""
        before, files = match.before or (), match.task.partition.files
        changed = {file[0] for file, old in zip(files, before, strict=True) if file[1] >= 0 and file != old}
        now = tuple(file if file[1] < 0 else old for file, old in zip(files, before, strict=True))
        self._update(match, now, self._new_ratings(match, changed))
        failed = {original_name(row["image_path"]) for row in self._failed_rows(match, note)}
        self._plan.redone["changed"] += len(changed)
        self._add_files(match, [path for path in match.task.data if _shown(path) in changed | failed])

    def _new_ratings(self, match: Match, changed: set[str]) -> dict[str, int | None]:
        """Return path -> rating of pictures of this machine whose sidecars say another one than their rows.

        Other programs write sidecars at any time, and leave the picture's file as it is. What changed itself is left
        out, for it is read anew. So is what was written from the explorer, where one may have thought otherwise since.
        """
        found: dict[str, int | None] = {}
        if Place.at(match.task.partition.root).local_path is None:
            return found
        table = read_rows(rows_path(self._output_dir, match.name), ["image_path", "rating", "sidecars", "status"])
        for row in table.filter(pc.is_in(table["status"], pa.array(["kept", "dropped"]))).to_pylist():
            name = original_name(row["image_path"])
            name, before = match.moved.get(name, name), row["rating"]
            path = Path(name)
            with suppress(OSError):  # the picture is gone, or a sidecar cannot be read
                is_there = not self._xmp_in(path.parent).isdisjoint(
                    (f"{path.name}.xmp".lower(), f"{path.stem}.xmp".lower())
                )
                was_there = any(part["extension"].lower().endswith("xmp") for part in row["sidecars"] or ())
                if name in changed or not (is_there or was_there):
                    continue
                now = rating_beside(path, by_explorer=False)
                if now is None and before is not None:  # it was that of a sidecar, or is inside the picture
                    now = file_rating(path)
                if now != before:
                    found[name] = now
        self._plan.rerated += len(found)
        return found

    def _add_again(self, match: Match, note: RowsNote) -> None:
        """Do what was made otherwise. Rows of loose files that it does not read lose what other models made."""
        self._plan.redone["made otherwise"] += note.rows
        partition = match.task.partition
        if not partition.is_loose or match.before is None:
            self._add(match)
            return
        self._update(match, partition.files)
        read = {_shown(path) for path in match.task.data}
        # What is no input of this run is recorded as another file, so that a run that has it as an input scores it.
        files = tuple(file if file[0] in read or file[1] < 0 else (file[0], 0, "") for file in partition.files)
        self._add_files(match, match.task.data, files)

    def _failed_rows(self, match: Match, note: RowsNote) -> list[dict[str, Any]]:
        """Return the failed rows that are to be done again."""
        may_fit = note.counts.get("reasons", {}).get(ReasonKind.TOO_LARGE, 0)
        if not (note.failed and self._mode.retry_failed) and not may_fit:
            return []
        table = read_rows(rows_path(self._output_dir, match.name), [*_FAILED_COLUMNS, "status"])
        rows: list[dict[str, Any]] = table.filter(pc.equal(table["status"], "failed")).to_pylist()
        fit = [row for row in rows if self._fits_now(row)]
        self._plan.redone["within a higher limit"] += len(fit)
        if not self._mode.retry_failed:
            return fit
        self._plan.redone["failed before"] += len(rows) - len(fit)
        return rows

    def _fits_now(self, row: dict[str, Any]) -> bool:
        is_bomb = row["reason_kind"] == ReasonKind.TOO_LARGE and row["width"] and row["height"]
        return bool(is_bomb) and row["width"] * row["height"] <= self._max_pixels

    def _add_samples(self, match: Match, rows: list[dict[str, Any]]) -> None:
        """Do failed images of a shard by their byte ranges; the whole shard where it failed itself."""
        if any(not row["image_id"] for row in rows):
            self._add(match)
            return
        done = [
            row for row in rows if row["offset"] is not None and row["size"] and row["reason_kind"] not in _OF_THE_SHARD
        ]
        self._plan.not_retried += len(rows) - len(done)
        self._plan.redone["failed before"] -= len(rows) - len(done)
        if done:
            samples = [sample_of(row) for row in done]
            source_bytes = sum(member.size for sample in samples for member in sample.members())
            self._add(match, is_part=True, samples=samples, source_bytes=source_bytes)

    def _add_files(self, match: Match, paths: list[str], files: tuple[SourceFile, ...] | None = None) -> None:
        """Do some loose files; ``files`` are what the rows file says then that it was made from."""
        if paths:
            files = files or match.task.partition.files
            sizes = {path: size for path, size, _ in files}
            source_bytes = sum(sizes[_shown(path)] for path in paths)
            self._add(match, paths, is_part=True, files=files, source_bytes=source_bytes)

    def _add(self, match: Match, data: list[str] | None = None, **parts: Any) -> None:  # noqa: ANN401
        """Do a partition. With ``is_part``, the rows of what is read take the places of the old ones."""
        partition = replace(match.task.partition, **parts)
        partition.provenance = {"fingerprint": self._fingerprint, "sources": describe_sources(partition)}
        self._plan.tasks.append(
            replace(match.task, data=match.task.data if data is None else data, partition=partition)
        )
        self._plan.changed.add(match.name)

    def _update(
        self, match: Match, files: tuple[SourceFile, ...], ratings: Mapping[str, int | None] | None = None
    ) -> None:
        """Bring the rows of files up to date that moved, are gone, were touched, or have another rating."""
        if match.moved or files != match.before or ratings:
            sources = describe_sources(replace(match.task.partition, files=files))
            update_rows(rows_path(self._output_dir, match.name), sources, match.moved, ratings or {})
            self._plan.changed.add(match.name)


def _xmp_in(folder: Path) -> set[str]:
    """Return the names of the XMP files in a folder, in small letters."""
    return {lower for name in os.listdir(folder) if (lower := name.lower()).endswith(".xmp")}


def _shown(path: str) -> str:
    return str(Place.at(path))
