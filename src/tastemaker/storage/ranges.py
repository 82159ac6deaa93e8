"""Remote files read by position: requests that go on where they were cut, and bytes of one version only."""

from __future__ import annotations

from abc import ABC, abstractmethod

from tastemaker.errors import RemoteError
from tastemaker.storage import public_url
from tastemaker.storage.retries import Attempts, current_patience, persist

PIECE_BYTES = 2**14
"""Bytes taken from a connection at once: what was taken is not asked for again after a cut."""

_PROGRESS_BYTES = PIECE_BYTES
"""A try that brings fewer has failed as one that brings none: else a server that gives a few bytes and then says no
more would be asked for hours."""


class ChangedError(RemoteError):
    """The file was replaced while it was read."""


class BeyondEndError(Exception):
    """The file ends before that position."""


class RemoteRanges(ABC):
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

    compressed, damage = False, ""

    def __init__(self, url: str) -> None:
        self._url, self._name = url, public_url(url)
        self._patience = current_patience()
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

    def identify(self) -> None:
        """Ask for size and version if no answer has told them yet.

        Raises:
            RemoteError: The server does not tell, whatever was tried.
        """
        if not self.known:
            persist(f"{self._name} cannot be read", self.look, self._url)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``offset``.

        Raises:
            RemoteError: They cannot be read, whatever was tried; or the file has changed since the first read.
        """
        data = bytearray()
        attempts = Attempts(f"{self._name} cannot be read at byte {offset:,}", self._patience, self._url)
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

    def holds(self, size: int) -> bool:
        """Return whether the file has that many bytes."""
        self.identify()
        return size <= self.size if self.size is not None else len(self.read_at(size - 1, 1)) == 1

    def size_bytes(self) -> int | None:
        """Return how many bytes the file has; None where the server does not say."""
        self.identify()
        return self.size

    def close(self) -> None:  # noqa: B027 - most have nothing open
        """Close what is open."""

    def _clip(self, offset: int, size: int) -> int:
        return size if self.size is None else min(size, self.size - offset)
