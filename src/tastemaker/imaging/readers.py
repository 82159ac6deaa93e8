"""Bytes of a shard by position: from a plain file, out of a compressed one, over a network."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import BinaryIO, cast

from tastemaker.errors import ReasonKind, UnreadableImageError
from tastemaker.imaging.compressions import (
    COMPRESSED_EXTENSIONS as COMPRESSED_EXTENSIONS,
    MARK_BYTES,
    decompress,
    name_compression,
)
from tastemaker.storage import Options, public_url
from tastemaker.storage.blocks import BlockReader
from tastemaker.storage.place import Place
from tastemaker.storage.ranges import Ranges, RangesFile

TAR_EXTENSIONS = (".tar", *COMPRESSED_EXTENSIONS)

STEP_BACK_BYTES = 2**16
"""So far back a compressed file can be read for nothing. Farther, it is decompressed from its start again."""

_MAX_KINDS = 100_000
_kinds: dict[str, str] = {}
"""URL of a shard -> its compression, so that reading one image again is one request."""


class PackedReader(Ranges):
    """A compressed file, cheap to read forwards only. Ends where it is cut or damaged.

    Attributes:
        damage: What stopped the decompression early; empty if nothing did.
    """

    compressed = True

    def __init__(self, file: BinaryIO, compression: str) -> None:
        self._file, self._compression = file, compression
        self._chunks = self._decompress()
        self._chunk, self._start = b"", 0  # bytes at hand, and where in the tar they begin
        self._end = sys.maxsize  # until it is reached
        self.damage = ""

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``offset``."""
        if offset < self._start:
            self._chunks = self._decompress()
            self._chunk, self._start = b"", 0
        parts: list[bytes] = []
        while size > 0 and self.holds(offset + 1):
            part = self._chunk[offset - self._start : offset - self._start + size]
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return b"".join(parts)

    def size_bytes(self) -> None:
        """Return None: only decompression would tell."""

    def holds(self, size: int) -> bool:
        """Return whether the tar has that many bytes; decompresses up to there, or to the end, which is remembered."""
        while self._start + len(self._chunk) < size <= self._end:
            kept, more = self._chunk[-STEP_BACK_BYTES:], next(self._chunks, b"")
            if more:
                self._start += len(self._chunk) - len(kept)
                self._chunk = kept + more
            else:
                self._end = self._start + len(self._chunk)
        return size <= self._end

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _decompress(self) -> Iterator[bytes]:
        """Yield the tar from its start, until it ends or is damaged."""
        try:
            yield from decompress(self._file, self._compression)
        except EOFError as error:
            self.damage = str(error)


@dataclass(frozen=True)
class Section:
    """A part of a file or shard that is read when it is copied, piece by piece: a video is not to lie in memory.

    Attributes:
        path: The file or shard; a local path or a URL.
        offset: Where the part begins, in the unpacked shard.
        size: Its bytes.
        options: Arguments of the URL's store.
    """

    path: str
    offset: int
    size: int
    options: Options | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return self.size

    def open(self) -> closing[SectionFile]:
        """Return the part as a file, for a `with` block."""
        return closing(SectionFile(self))


class SectionFile:
    """A `Section` as a file, read from its start to its end. It is opened with the first read."""

    def __init__(self, section: Section) -> None:
        self._section, self._read = section, 0
        self._reader: Ranges | None = None

    def read(self, size: int = -1, /) -> bytes:
        """Return up to so many bytes, all with -1; none at the end of the part.

        Raises:
            UnreadableImageError: They cannot be read, or are gone.
        """
        section = self._section
        left = section.size - self._read
        wanted = left if size < 0 else min(size, left)
        try:
            if self._reader is None:
                self._reader = open_shard(section.path, section.options)
            data = self._reader.read_at(section.offset + self._read, wanted)
        except OSError as error:
            why = f"{public_url(section.path)} cannot be read: {error.strerror or error}"
            raise UnreadableImageError(why, ReasonKind.MISSING) from error
        if len(data) < wanted:
            raise UnreadableImageError(f"{public_url(section.path)} is shorter than it was", ReasonKind.CHANGED)
        self._read += wanted
        return data

    def close(self) -> None:
        """Close the file."""
        if self._reader is not None:
            self._reader.close()


def open_shard(path: str, options: Options | None = None, *, ahead: bool = False) -> Ranges:
    """Return a reader for a shard, for reads anywhere. Its first bytes tell how it is compressed.

    Args:
        path: A local path, or a URL, of which only the bytes that are asked for are requested.
        options: Arguments of the URL's store.
        ahead: The shard is read from its start to its end: in large blocks, ahead of their use.

    Raises:
        OSError: The file cannot be opened.
    """
    place = Place.at(path, options)
    file: Ranges = place.open_ranges()
    if ahead:
        file = BlockReader(file)
        _kinds.pop(path, None)  # a pass through the whole shard asks it
    if not str(place).lower().endswith(TAR_EXTENSIONS):
        return file  # a single image
    try:
        known = _kinds.get(path) if place.local_path is None else None  # a local file is asked again for nothing
        compression = name_compression(file.read_at(0, MARK_BYTES)) if known is None else known
    except OSError:
        file.close()
        raise
    if len(_kinds) == _MAX_KINDS:
        _kinds.clear()
    _kinds[path] = compression
    if not compression:
        return file
    blocks = file if ahead or place.local_path is not None else BlockReader(file, held=2)
    unpacked = PackedReader(cast("BinaryIO", RangesFile(blocks)), compression)
    return BlockReader(unpacked) if ahead else unpacked
