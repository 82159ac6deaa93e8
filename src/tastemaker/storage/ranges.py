"""Files that are read by position: what all have in common, a file object over one, and those at URLs.

Requests for remote files go on where they were cut, and bring bytes of one version only.
"""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from typing import Any

from tastemaker.errors import RemoteError
from tastemaker.storage import public_url
from tastemaker.storage.retries import Attempts, persist

PIECE_BYTES = 2**14
"""Bytes taken from a connection at once: what was taken is not asked for again after a cut."""

_PROGRESS_BYTES = PIECE_BYTES
"""A try that brings fewer has failed as one that brings none: else a server that gives a few bytes and then says no
more would be asked for hours."""

_FILE_BYTES = 2**23
"""Bytes that a file object asks for at once, however large the buffer is that it fills."""


class Ranges(ABC):
    """Bytes that are open to be read at any position: of a file, or of what is packed in one.

    Attributes:
        compressed: Whether they are unpacked while they are read: to go back costs a pass over what lies before.
        damage: What ended the reading early; empty if nothing did.
    """

    compressed = False
    damage = ""

    @abstractmethod
    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``offset``: fewer where the file ends.

        Raises:
            OSError: They cannot be read, or the file has changed since the first read.
        """

    @abstractmethod
    def size_bytes(self) -> int | None:
        """Return how many bytes there are; None where only reading all would tell."""

    def holds(self, size: int) -> bool:
        """Return whether there are that many bytes."""
        there = self.size_bytes()
        return size <= there if there is not None else len(self.read_at(size - 1, 1)) == 1

    def close(self) -> None:  # noqa: B027 - some have nothing open
        """Close what is open."""


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
        data = self.read(min(len(view), _FILE_BYTES))
        view[: len(data)] = data
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
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}
        self._position = offset + (self.size() if whence == os.SEEK_END else start[whence])
        return self._position

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


class ChangedError(RemoteError):
    """The file was replaced while it was read."""


class BeyondEndError(Exception):
    """The file ends before that position."""


class RemoteRanges(Ranges):
    """A remote file, open by position: each `read_at` is a request for exactly these bytes, made again where it fails.

    Each kind of server has a subclass, whose `look` and `read_into` try once.

    Args:
        url: The file.

    Attributes:
        known: Whether an answer has told size and version.
        size: In bytes; None where the server does not say.
        version: Of the file that was seen first; empty where the server does not say.
        modified: When it was written last, in seconds since 1970; 0 where that is not known.
    """

    def __init__(self, url: str) -> None:
        self._url, self._name = url, public_url(url)
        self.known = False
        self.size: int | None = None
        self.version = ""
        self.modified = 0.0

    @abstractmethod
    def look(self) -> None:
        """Ask for size and version, once."""

    @abstractmethod
    def read_into(self, data: bytearray, offset: int, size: int) -> None:
        """Append bytes from ``offset``, in one try. On an error, those that had come are in ``data``.

        Raises:
            BeyondEndError: There are none.
            ChangedError: The file is another one than before.
        """

    def note(self, size: int | None, version: str) -> None:
        """Take down what an answer says of the file; refuse another version than before.

        Raises:
            ChangedError: It is another one.
        """
        if self.known and (size != self.size or version != self.version):
            raise ChangedError
        self.size, self.version, self.known = size, version, True

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``offset``.

        Raises:
            RemoteError: They cannot be read, whatever was tried; or the file has changed since the first read.
        """
        data = bytearray()
        attempts = Attempts(f"{self._name} cannot be read at byte {offset:,}", self._url)
        while (missing := self._clip(offset, size) - len(data)) > 0:
            before = len(data)
            try:
                self.read_into(data, offset + before, missing)
            except BeyondEndError:
                break
            except ChangedError:
                raise ChangedError(f"{self._name} was changed while it was read") from None
            except Exception as error:  # noqa: BLE001 - each library has its own errors
                attempts.wait_after(error, progressed=len(data) - before >= _PROGRESS_BYTES)
                continue
            if len(data) == before:
                break
        return bytes(data)

    def size_bytes(self) -> int | None:
        """Return how many bytes the file has; None where the server does not say.

        Raises:
            RemoteError: The server does not answer, whatever was tried.
        """
        if not self.known:
            persist(f"{self._name} cannot be read", self.look, self._url)
        return self.size

    def _clip(self, offset: int, size: int) -> int:
        return size if self.size is None else min(size, self.size - offset)
