"""What is left to do: the partitions of a run against the rows that are there. Loads no model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow.compute as pc

from tastemaker.errors import ConfigurationError, ReasonKind
from tastemaker.imaging.shards import Member, Sample
from tastemaker.runs.fingerprint import Fingerprint, canonical, describe_others
from tastemaker.runs.index import RowsIndex, RowsNote, rows_path
from tastemaker.runs.input_files import Sources, read_sources, with_known
from tastemaker.runs.loose import Partition
from tastemaker.runs.options import RunMode
from tastemaker.scores.files import check_own_rows, read_rows
from tastemaker.scores.schema import original_name
from tastemaker.storage.place import Place
from tastemaker.tasks import FileGroupTask

_OF_THE_SHARD = (
    *(ReasonKind.DUPLICATE_KEY, ReasonKind.LATE_MEMBER, ReasonKind.UNSAFE_NAME),
    *(ReasonKind.UNSUPPORTED_MEMBER, ReasonKind.DAMAGED_SHARD),
)
"""Reasons that lie in how a shard is made: to read a sample of it again does not change them."""

_FAILED_COLUMNS = ["image_id", "image_path", "shard", "offset", "size", "sidecars", "reason_kind"]


@dataclass
class Plan:
    """What a run has to do.

    Attributes:
        partitions: All of the run that have rows in the end.
        tasks: What goes through the pipeline: whole partitions, and single images of others.
        updates: Names of the partitions in which rows change without a picture being read.
        is_mixed: Some rows were made otherwise, and stay.
        not_retried: Failed rows that cannot come out differently, because their shard is made so.
    """

    partitions: list[Partition] = field(default_factory=list)
    tasks: list[FileGroupTask] = field(default_factory=list)
    updates: list[Partition] = field(default_factory=list)
    is_mixed: bool = False
    not_retried: int = 0

    @property
    def work(self) -> int:
        """Partitions that are not finished."""
        return len(self.tasks) + len(self.updates)


def make_plan(
    partitions: list[Partition], index: RowsIndex, output_dir: Place, fingerprint: Fingerprint, mode: RunMode
) -> Plan:
    """Return what is left to do.

    Args:
        partitions: Of this run (of this slice).
        index: The rows that are there.
        output_dir: Where they are.
        fingerprint: What this run makes rows with.
        mode: Whether to overwrite, to leave alone, to run failures again.

    Raises:
        ConfigurationError: Rows were made otherwise, and nothing says what to do with them; or a file of somebody
            else is where rows are to go.
    """
    wanted = canonical(fingerprint)
    notes = index.notes(partition.name for partition in partitions)
    for partition in partitions:
        if partition.name in index and (partition.name not in notes or not notes[partition.name].fingerprint):
            check_own_rows(rows_path(output_dir, partition.name))
        before = read_sources(notes[partition.name].sources) if partition.name in notes else None
        if before is not None:
            partition.sources = with_known(partition.sources, before)
        made_by = {"fingerprint": fingerprint, "sources": partition.sources.as_json()}
        partition.group.partition.provenance = made_by
    others = {name: note.fingerprint for name, note in notes.items() if note.fingerprint != wanted}
    if others and not (mode.overwrite or mode.new_fingerprint_only):
        raise ConfigurationError(
            f"{output_dir} has rows that were made otherwise: {describe_others(others, fingerprint, len(notes))}. Say "
            "--overwrite to make them again, --new-fingerprint-only to leave them and do only what has no rows yet, or "
            "choose another directory"
        )
    plan = Plan(is_mixed=bool(others) and mode.new_fingerprint_only)
    for partition in partitions:
        note = notes.get(partition.name)
        if note is None and not partition.group.data:
            continue  # all of its files are gone, and no row was written
        plan.partitions.append(partition)
        if partition.name in others and not mode.overwrite:
            continue
        if note is None:
            plan.tasks.append(partition.group)
        elif partition.name in others:
            _add_again(plan, partition)
        else:
            _add_changes(plan, partition, note, output_dir, mode)
    return plan


def redo_task(partition: Partition, paths: list[str], source_bytes: int, **parts: Any) -> FileGroupTask:  # noqa: ANN401
    """Return a task for some images of a partition: the writer puts their rows in the places of the old ones."""
    group = partition.group
    part = replace(group.partition, is_part=True, source_bytes=source_bytes, **parts)
    return replace(group, data=paths, partition=part)


def _add_again(plan: Plan, partition: Partition) -> None:
    """Do a partition again as a whole; the rows of pictures that are gone cannot be, and stay."""
    is_gone = any(size < 0 for _, size, _ in partition.sources.files)
    if is_gone and partition.group.partition.is_loose:
        if partition.group.data:
            plan.tasks.append(redo_task(partition, partition.group.data, partition.group.partition.source_bytes))
        else:
            plan.updates.append(partition)
    else:
        plan.tasks.append(partition.group)


def _add_changes(plan: Plan, partition: Partition, note: RowsNote, output_dir: Place, mode: RunMode) -> None:
    """Add what is to be done about a partition that has rows of this fingerprint."""
    before = read_sources(note.sources)
    if before is None or before.root != partition.sources.root:
        plan.tasks.append(partition.group)
    elif not partition.group.partition.is_loose:
        if before.files != partition.sources.files:
            plan.tasks.append(partition.group)
        elif mode.retry_failed and note.failed:
            _retry_shard(plan, partition, output_dir)
    else:
        rows = _failed_rows(partition, output_dir) if mode.retry_failed and note.failed else []
        _add_files(plan, partition, before, {original_name(row["image_path"]) for row in rows})


def _add_files(plan: Plan, partition: Partition, before: Sources, failed: set[str]) -> None:
    """Do the loose files that changed, and those in ``failed``."""
    known = set(before.files)
    paths = [file[0] for file in partition.sources.files if file[1] >= 0 and (file not in known or file[0] in failed)]
    if paths:
        sizes = {path: size for path, size, _ in partition.sources.files}
        source_bytes = sum(sizes[path] for path in paths)
        plan.tasks.append(redo_task(partition, paths, source_bytes))
    elif before.files != partition.sources.files:
        plan.updates.append(partition)


def _retry_shard(plan: Plan, partition: Partition, output_dir: Place) -> None:
    """Do the failed images of a shard by their byte ranges; the whole shard where it failed itself."""
    rows = _failed_rows(partition, output_dir)
    if any(not row["image_id"] for row in rows):
        plan.tasks.append(partition.group)
        return
    samples = [sample for row in rows if (sample := _sample_of(row)) is not None]
    plan.not_retried += len(rows) - len(samples)
    if samples:
        source_bytes = sum(member.size for sample in samples for member in sample.members())
        plan.tasks.append(redo_task(partition, partition.group.data, source_bytes, samples=samples))


def _failed_rows(partition: Partition, output_dir: Place) -> list[dict[str, Any]]:
    table = read_rows(rows_path(output_dir, partition.name), [*_FAILED_COLUMNS, "status"])
    rows: list[dict[str, Any]] = table.filter(pc.equal(table["status"], "failed")).to_pylist()
    return rows


def _sample_of(row: dict[str, Any]) -> Sample | None:
    """Return where the parts of an image lie in its shard; None where the shard itself is what is wrong with it."""
    if row["offset"] is None or not row["size"] or row["reason_kind"] in _OF_THE_SHARD:
        return None
    name = original_name(row["image_path"]).removeprefix(f"{original_name(row['shard'])}/")
    sidecars = {
        original_name(part["extension"]): Member(original_name(part["member"]), part["offset"], part["size"])
        for part in row["sidecars"]
    }
    return Sample(original_name(row["image_id"]), Member(name, row["offset"], row["size"]), sidecars)
