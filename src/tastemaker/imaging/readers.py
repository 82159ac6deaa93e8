"""Bytes of a shard by position: from a plain file, out of a compressed one, over a network."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO, Protocol, cast

from tastemaker.imaging.compressions import (
    COMPRESSED_EXTENSIONS as COMPRESSED_EXTENSIONS,
    MARK_BYTES,
    decompress,
    name_compression,
)
from tastemaker.storage import Options, is_remote, public_url
from tastemaker.storage.blocks import BlockReader
from tastemaker.storage.objects import RemoteFile

TAR_EXTENSIONS = (".tar", *COMPRESSED_EXTENSIONS)

_PIECE = 2**23
"""Bytes that a file object asks its reader for at once, however large the buffer is that it fills."""

_MAX_KINDS = 100_000
_remote_kinds: dict[str, str] = {}
"""URL of a shard -> its compression, so that reading one image again is one request."""


class ShardReader(Protocol):
    """Bytes of a tar by position."""

    @property
    def compressed(self) -> bool:
        """Whether the file is compressed, so that bytes are not where the file has them."""
        ...

    @property
    def streams(self) -> bool:
        """Whether it is cheap to read forwards only: going back costs a pass over what lies before."""
        ...

    @property
    def damage(self) -> str:
        """What ended the reading early; empty if nothing did."""
        ...

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``offset``: fewer where the file ends."""
        ...

    def holds(self, size: int) -> bool:
        """Return whether the tar has that many bytes."""
        ...

    def size_bytes(self) -> int | None:
        """Return how many bytes the tar has; None where only reading it all would tell."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class PlainReader:
    """An uncompressed file. Any position costs the same."""

    compressed, streams, damage = False, False, ""

    def __init__(self, path: str) -> None:
        if not stat.S_ISREG(os.stat(path).st_mode):  # to open a pipe would wait for a writer, for ever perhaps
            raise OSError(errno.EINVAL, "it is no file", path)
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by close()
        self._end = os.fstat(self._file.fileno()).st_size

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``offset``."""
        self._file.seek(offset)
        data = self._file.read(size)
        while data and len(data) < size and (more := self._file.read(size - len(data))):
            data += more
        return data

    def holds(self, size: int) -> bool:
        """Return whether the file has that many bytes."""
        return size <= self._end

    def size_bytes(self) -> int:
        """Return how many bytes the file has."""
        return self._end

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class PackedReader:
    """A compressed file, cheap to read forwards only. Ends where it is cut or damaged.

    Attributes:
        damage: What stopped the decompression early; empty if nothing did.
    """

    compressed, streams = True, True

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
            self._start += len(self._chunk)
            self._chunk = next(self._chunks, b"")
            if not self._chunk:
                self._end = self._start
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


class ReaderFile(io.RawIOBase):
    """A `ShardReader` as a file object."""

    def __init__(self, reader: ShardReader) -> None:
        self._reader = reader
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - any writable buffer
        """Fill a buffer, as far as one request and the file go; return how many bytes that is."""
        view = memoryview(buffer).cast("B")
        data = self._reader.read_at(self._position, min(len(view), _PIECE))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def read(self, size: int = -1) -> bytes:
        """Return so many bytes, fewer only at the end: pyarrow takes fewer for the end."""
        if size < 0:
            return self.readall()
        data = self._reader.read_at(self._position, size)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position, and return it."""
        if whence == os.SEEK_END:
            offset += self.size()
        elif whence == os.SEEK_CUR:
            offset += self._position
        self._position = offset
        return offset

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def size(self) -> int:
        """Return how many bytes the file has; pyarrow asks for it."""
        size = self._reader.size_bytes()
        if size is None:
            raise io.UnsupportedOperation("the server does not say how large the file is")
        return size

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self._reader.close()
        super().close()


def open_shard(path: str, options: Options | None = None) -> ShardReader:
    """Return a reader for a shard, for reads anywhere. Its first bytes tell how it is compressed.

    Args:
        path: A local path, or a URL, of which only the bytes that are asked for are requested.
        options: Arguments of the URL's file system.

    Raises:
        OSError: The file cannot be opened.
    """
    if is_remote(path):
        return _open_remote(path, options, ahead=False)
    plain = PlainReader(path)
    try:
        compression = name_compression(plain.read_at(0, MARK_BYTES))
    except OSError:
        plain.close()
        raise
    if not compression:
        return plain
    plain.close()
    return PackedReader(open(path, "rb"), compression)


def open_stream(url: str, options: Options | None = None) -> ShardReader:
    """Return a reader for a remote shard that is read from its start to its end: in large blocks, ahead of their use.

    Raises:
        OSError: The file cannot be opened.
    """
    return _open_remote(url, options, ahead=True)


def _open_remote(url: str, options: Options | None, *, ahead: bool) -> ShardReader:
    file: ShardReader = RemoteFile(url, options)
    if ahead:
        file = BlockReader(file)
        _remote_kinds.pop(url, None)  # a pass through the whole shard asks it
    if not public_url(url).lower().endswith(TAR_EXTENSIONS):
        return file  # a single image
    try:
        known = _remote_kinds.get(url)
        compression = name_compression(file.read_at(0, MARK_BYTES)) if known is None else known
    except OSError:
        file.close()
        raise
    if len(_remote_kinds) == _MAX_KINDS:
        _remote_kinds.clear()
    _remote_kinds[url] = compression
    if not compression:
        return file
    unpacked = PackedReader(cast(BinaryIO, ReaderFile(file if ahead else BlockReader(file, held=2))), compression)
    return BlockReader(unpacked, ahead=1) if ahead else unpacked
