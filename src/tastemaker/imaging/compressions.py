"""Compressed tars: which compression it is, and what is in it, from the start to the end or to the damage."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from tastemaker.errors import RemoteError

COMPRESSED_EXTENSIONS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")

MARK_BYTES = 10
"""So many bytes from the start of a file tell its compression."""

_MARKS = {
    "gzip": re.compile(rb"\x1f\x8b"),
    "bzip2": re.compile(rb"BZh[1-9](1AY&SY|\x17\x72\x45\x38\x50\x90)"),  # a plain tar may begin with a name, BZh1.jpg
    "xz": re.compile(rb"\xfd7zXZ\0"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),  # the second is a frame to skip, as of pzstd
}
_PIECE = 2**16
_BLOCK = 512
"""Of a tar: a piece that is lost with less than one loses no member."""


def name_compression(head: bytes) -> str:
    """Return how a file is compressed, ``gzip``, ``bzip2``, ``xz`` or ``zstd``, from its first bytes; else empty.

    Example:
        >>> name_compression(bz2.compress(b"tar")), name_compression(b"BZh1.jpg" + bytes(92))
        ('bzip2', '')
    """
    return next((name for name, mark in _MARKS.items() if mark.match(head)), "")


def decompress(file: BinaryIO, compression: str) -> Iterator[bytes]:
    """Yield what is in a compressed file, which stays open.

    Raises:
        EOFError: It is cut or damaged, or something else follows it; what was unpacked before was yielded, but for less
            than 64 KiB, of zstd less than 512 bytes.
        OSError: It cannot be read.
    """
    file.seek(0)
    try:
        unpacked = _OPENERS[compression](file)
        while chunk := unpacked.read1(_PIECE):
            yield chunk
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise EOFError(str(error)) from error
    except OSError as error:  # of the decoder, where it has no number of the system
        if error.errno is not None or isinstance(error, RemoteError):
            raise
        raise EOFError(str(error)) from error


class _Kept(io.RawIOBase):
    """A file that pyarrow cannot close: it does so as soon as it has no use for it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)


class _Zstd:
    """The content of a zstd file. pyarrow, which is there anyway, reads it; Python itself does so from 3.14 on."""

    def __init__(self, file: BinaryIO) -> None:
        import pyarrow as pa

        self._stream = pa.CompressedInputStream(pa.PythonFile(_Kept(file), "r"), "zstd")
        self._error: OSError | None = None

    def read1(self, size: int) -> bytes:
        """Return up to ``size`` bytes, none at the end. A read that fails loses what it has: so they are small ones."""
        parts: list[bytes] = []
        try:
            if self._error is not None:
                raise self._error
            while len(parts) * _BLOCK < size and (part := self._stream.read(_BLOCK)):
                parts.append(part)
        except OSError as error:
            if not parts:
                raise
            self._error = error
        return b"".join(parts)


class _Streams:
    """The content of bzip2 or xz streams that follow one another, perhaps with zeros behind them.

    Python's own files pass over anything that follows, and take zeros behind xz, which the format allows, for a cut.
    """

    def __init__(self, file: BinaryIO, begin: Callable[[], Any]) -> None:
        self._file, self._begin, self._stream = file, begin, begin()

    def read1(self, size: int) -> bytes:
        """Return up to ``size`` bytes, none at the end."""
        while True:
            if self._stream.eof:
                data = self._stream.unused_data.lstrip(b"\0")
                while not data and (more := self._file.read(_PIECE)):
                    data = more.lstrip(b"\0")
                if not data:
                    return b""
                self._stream = self._begin()
            else:
                data = self._file.read(_PIECE) if self._stream.needs_input else b""
                if not data and self._stream.needs_input:
                    raise EOFError("the file ends inside its compressed data")
            if content := self._stream.decompress(data, size):
                return bytes(content)


_OPENERS: dict[str, Callable[[BinaryIO], Any]] = {
    "gzip": lambda file: gzip.GzipFile(fileobj=file),
    "bzip2": lambda file: _Streams(file, bz2.BZ2Decompressor),
    "xz": lambda file: _Streams(file, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ)),
    "zstd": _Zstd,
}
