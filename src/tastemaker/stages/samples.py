"""The samples of a group of files, from shards and loose images alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from tastemaker.errors import Problem, ReasonKind
from tastemaker.imaging.folders import FolderReader
from tastemaker.imaging.keys import Sample
from tastemaker.imaging.shards import is_shard, read_at_ranges, read_samples
from tastemaker.storage import Options

_Read = tuple[str, Sample, dict[str, bytes]]
"""Path of the file, one sample of it, and the bytes of its members."""


class GroupReader:
    """Reads the samples of shards and loose images.

    Args:
        options: Arguments of the file system of files at URLs.
        root: Folder that the keys of loose images begin below.
        wanted: Of the only shard, the samples to read, by where they lie; None for all.
        column: Of tables, the column with the pictures; None to recognise it.
        are_loose: Whether the files are loose images; None where their names tell.
    """

    def __init__(
        self,
        options: Options | None,
        root: str | None,
        wanted: list[Sample] | None,
        column: str | None = None,
        *,
        are_loose: bool | None = None,
    ) -> None:
        self._options, self._root, self._wanted, self._column = options, root, wanted, column
        self._are_loose = are_loose
        self._folders = FolderReader(options)

    def read(self, paths: Iterable[str]) -> Iterator[_Read]:
        """Yield all samples, in order."""
        for are_shards, group in groupby(paths, key=self._is_shard):
            if are_shards:
                yield from self._read_shards(group)
            else:
                yield from self._folders.read_samples(group, self._root)

    def _is_shard(self, path: str) -> bool:
        return is_shard(path) if self._are_loose is None else not self._are_loose

    def _read_shards(self, paths: Iterable[str]) -> Iterator[_Read]:
        """Yield path and samples of each shard; one that the system cannot read yields a row that says so."""
        for path in paths:
            try:
                if self._wanted is None:
                    samples = read_samples(path, self._options, self._column)
                else:
                    samples = read_at_ranges(path, self._wanted, self._options)
                for sample, data in samples:
                    yield path, sample, data
            except OSError as error:
                yield path, _unread(f"the shard cannot be read: {error.strerror or error}"), {}


def _unread(why: str) -> Sample:
    return Sample("", problem=Problem(ReasonKind.MISSING, why))
