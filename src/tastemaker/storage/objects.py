"""One remote file, read by position: requests that go on where they were cut, and bytes of one version only."""

from __future__ import annotations

from tastemaker.storage import Options, public_url
from tastemaker.storage.retries import Attempts, current_patience, persist
from tastemaker.storage.sources import AnyObject, BeyondEndError, ChangedError, WebObject, open_source

_PROGRESS_BYTES = 2**14
"""A try that brings fewer has failed as one that brings none: else a server that gives a few bytes and then says no
more would be asked for hours."""


class RemoteFile:
    """A remote file as a `ShardReader`: each `read_at` is a request for exactly these bytes, made again where it fails.

    Args:
        url: The file.
        options: Arguments of its fsspec file system.
        source: What reads it, where that is there already.

    Attributes:
        streams: True where the server has no ranges: it is read forwards only, and going back costs a pass.
        requests: Requests for bytes so far.

    Raises:
        MissingExtraError: The library of the scheme is not installed.
    """

    compressed = False
    damage = ""

    def __init__(self, url: str, options: Options | None = None, source: AnyObject | None = None) -> None:
        self.url = url
        self._name = public_url(url)
        self._patience = current_patience()
        self._source = source or open_source(url, options)

    @property
    def streams(self) -> bool:
        """True where there are no ranges; asks a web server if nothing was read yet."""
        if isinstance(self._source, WebObject):
            self._know()
        return self._source.streams

    @property
    def requests(self) -> int:
        """Requests for bytes so far."""
        return self._source.requests

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``offset``.

        Raises:
            RemoteError: They cannot be read, whatever was tried; or the file has changed since the first read.
        """
        data = bytearray()
        attempts = Attempts(f"{self._name} cannot be read at byte {offset:,}", self._patience, self.url)
        while (missing := self._clip(offset, size) - len(data)) > 0:
            before = len(data)
            try:
                self._source.read_into(data, offset + before, missing)
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
        self._know()
        known = self._source.size
        return size <= known if known is not None else len(self.read_at(size - 1, 1)) == 1

    def size_bytes(self) -> int | None:
        """Return how many bytes the file has; None where the server does not say."""
        return self.identify()[0]

    def identify(self) -> tuple[int | None, str]:
        """Return size and version of the file, None and empty where the server does not say."""
        self._know()
        return self._source.size, self._source.version

    def close(self) -> None:
        """Close what is open."""
        self._source.close()

    def _know(self) -> None:
        """Ask for size and version if no answer has told them yet."""
        if not self._source.known:
            persist(f"{self._name} cannot be read", self._source.look, self.url)

    def _clip(self, offset: int, size: int) -> int:
        known = self._source.size
        return size if known is None else min(size, known - offset)
