"""Many small files put into an object store at the same time."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from tastemaker.storage.files import publish_bytes

_IN_FLIGHT = 16


class Uploads:
    """Puts files where they are to be seen, several at a time; what waits in memory is bounded."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_IN_FLIGHT, thread_name_prefix="upload")
        self._waiting: deque[Future[None]] = deque()

    def add(self, data: bytes, target: Path) -> None:
        """Begin to upload a file.

        Raises:
            RemoteError: One that was added before cannot be written.
        """
        if len(self._waiting) == _IN_FLIGHT:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(publish_bytes, data, target))

    def finish(self) -> None:
        """Wait until all files are there.

        Raises:
            RemoteError: One cannot be written.
        """
        try:
            while self._waiting:
                self._waiting.popleft().result()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Begin no further upload."""
        self._pool.shutdown(wait=False, cancel_futures=True)
