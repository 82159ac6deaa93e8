"""Open files that are read by position, and a file object over one."""

from __future__ import annotations

import io
import os
from typing import Any, Protocol

_PIECE = 2**23
"""Bytes that a file object asks for at once, however large the buffer is that it fills."""


class Ranges(Protocol):
    """Bytes that are open to be read at any position: of a file, or of what is packed in one."""

    @property
    def compressed(self) -> bool:
        """Whether they are unpacked while they are read: to go back costs a pass over what lies before."""
        ...

    @property
    def damage(self) -> str:
        """What ended the reading early; empty if nothing did."""
        ...

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``offset``: fewer where the file ends.

        Raises:
            OSError: They cannot be read, or the file has changed since the first read.
        """
        ...

    def holds(self, size: int) -> bool:
        """Return whether there are that many bytes."""
        ...

    def size_bytes(self) -> int | None:
        """Return how many bytes there are; None where only reading all would tell."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class RangesFile(io.RawIOBase):
    """`Ranges` as a file object."""

    def __init__(self, ranges: Ranges) -> None:
        self._ranges = ranges
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
        data = self._ranges.read_at(self._position, min(len(view), _PIECE))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def read(self, size: int = -1) -> bytes:
        """Return ``size`` bytes, and fewer only at the end, because pyarrow takes fewer for the end."""
        if size < 0:
            return self.readall()
        data = self._ranges.read_at(self._position, size)
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
        size = self._ranges.size_bytes()
        if size is None:
            raise io.UnsupportedOperation("the server does not say how large the file is")
        return size

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self._ranges.close()
        super().close()
