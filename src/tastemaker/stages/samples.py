"""The samples of a group of files, from shards and loose images alike."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from tastemaker.errors import Problem, ReasonKind
from tastemaker.imaging.folders import FolderReader
from tastemaker.imaging.keys import Sample
from tastemaker.imaging.shards import is_shard, read_at_ranges, read_samples
from tastemaker.tasks import FileGroupTask


def read_group(task: FileGroupTask, column: str | None) -> Iterator[tuple[str, Sample, dict[str, bytes]]]:
    """Yield the path of the file, one sample of it, and the bytes of its members, in order.

    A shard that the system cannot read yields one sample that says so.

    Args:
        task: The files.
        column: Of tables, the column with the pictures; None to recognise it.
    """
    partition, options = task.partition, task.partition.storage_options
    root = partition.root if partition.name else None
    folders = FolderReader(options)
    for are_shards, paths in groupby(task.data, is_shard if not partition.name else lambda _: not partition.is_loose):
        if not are_shards:
            yield from folders.read_samples(paths, root)
            continue
        for path in paths:
            try:
                if partition.samples is None:
                    samples = read_samples(path, options, column)
                else:
                    samples = read_at_ranges(path, partition.samples, options)
                for sample, data in samples:
                    yield path, sample, data
            except OSError as error:
                why = f"the shard cannot be read: {error.strerror or error}"
                yield path, Sample("", problem=Problem(ReasonKind.MISSING, why)), {}
