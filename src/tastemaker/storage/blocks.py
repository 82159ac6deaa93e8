"""Bytes by position through a few large blocks, read ahead while the last is worked on."""

from __future__ import annotations

import threading
from concurrent.futures import Future, wait

from tastemaker.storage.reading import Ranges

BLOCK_BYTES = 2**23
HELD_BLOCKS = 6
AHEAD = 6
"""Blocks that are fetched at the same time, ahead of the one that is read: a store gives a connection 50 to 100 MB/s,
and a GPU takes the pictures of several."""


class BlockReader:
    """A `Ranges` over another: few large reads in place of many small ones.

    Memory holds ``held + ahead`` blocks at most, those that were read last. A block that was let go is read again when
    its bytes are asked for: what comes back never depends on the sizes.

    Args:
        source: What is read. With `streams` only forwards, one block at a time.
        block_bytes: Size of a block.
        held: Blocks that stay in memory.
        ahead: Blocks that are fetched in advance, each in a thread.

    Attributes:
        peak_bytes: The largest number of bytes that was held at once.
    """

    def __init__(
        self, source: Ranges, block_bytes: int = BLOCK_BYTES, held: int = HELD_BLOCKS, ahead: int = AHEAD
    ) -> None:
        self._source = source
        self._block_bytes = block_bytes
        self._held_blocks = held
        self._wanted_ahead = ahead
        self._held: dict[int, bytes] = {}
        self._coming: dict[int, Future[bytes]] = {}
        self._latest = -1  # the block that was fetched last
        self._end: int | None = None  # size of the source, once that was seen
        self._broken: Exception | None = None
        self.peak_bytes = 0

    @property
    def compressed(self) -> bool:
        """Whether the source is."""
        return self._source.compressed

    @property
    def streams(self) -> bool:
        """Whether going back is dear."""
        return self._source.streams

    @property
    def damage(self) -> str:
        """What stopped the source early; empty if nothing did."""
        return self._source.damage

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``offset``.

        Raises:
            OSError: The source cannot be read. It is not tried again; what is held can still be read.
        """
        parts: list[bytes] = []
        while size > 0:
            number, skipped = divmod(offset, self._block_bytes)
            part = self._block(number)[skipped : skipped + size]
            if not part:
                break
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def holds(self, size: int) -> bool:
        """Return whether the source has that many bytes; one that streams is read up to there, or to its end."""
        if size <= 0:
            return True
        if not self._source.streams:
            return self._source.holds(size)
        if self._end is None:
            last = (size - 1) // self._block_bytes
            for number in range(min(max(self._latest, 0), last), last + 1):
                self._block(number)
                if self._end is not None:
                    break
        return self._end is None or size <= self._end

    def size_bytes(self) -> int | None:
        """Return how many bytes the source has, None where it streams."""
        return None if self._source.streams else self._source.size_bytes()

    def close(self) -> None:
        """Close the source."""
        self._coming.clear()
        self._held.clear()
        self._source.close()

    def _is_behind_end(self, number: int) -> bool:
        return self._end is not None and number * self._block_bytes >= self._end

    def _block(self, number: int) -> bytes:
        block = self._held.get(number)
        if block is None:
            if self._is_behind_end(number):
                return b""
            block = self._fetch(number)
            self._held[number] = block
            while len(self._held) > self._held_blocks:
                del self._held[next(iter(self._held))]  # the first that came, not the one used longest ago: that is
                # the next that a sample needs, where headers are read ahead of the samples
            self._look_ahead(number)
            self._latest = number
            self.peak_bytes = max(self.peak_bytes, (len(self._held) + len(self._coming)) * self._block_bytes)
        return block

    def _fetch(self, number: int) -> bytes:
        if self._broken is not None:
            raise self._broken
        try:
            coming = self._coming.pop(number, None)
            if coming is not None:
                block = coming.result()
            else:
                if self._coming and self._source.streams:  # it has one position
                    self._drop_coming(0)
                block = self._source.read_at(number * self._block_bytes, self._block_bytes)
        except Exception as error:
            self._broken = error
            raise
        if len(block) < self._block_bytes:
            end = number * self._block_bytes + len(block)
            self._end = end if self._end is None else min(end, self._end)
        return block

    def _look_ahead(self, number: int) -> None:
        """Start to fetch the next blocks, if blocks are read one after the other."""
        if number != self._latest + 1:
            return
        ahead = min(self._wanted_ahead, 1) if self._source.streams else self._wanted_ahead
        for following in range(number + 1, number + 1 + ahead):
            if following in self._held or following in self._coming or self._is_behind_end(following):
                continue
            if not self._source.streams and not self._source.holds(following * self._block_bytes + 1):
                return
            self._coming[following] = _fetch(self._source, following * self._block_bytes, self._block_bytes)
        self._drop_coming(self._wanted_ahead)

    def _drop_coming(self, kept: int) -> None:
        """Forget all but the last blocks that are on their way; a source that streams has to be done with them."""
        while len(self._coming) > kept:
            coming = self._coming.pop(next(iter(self._coming)))
            if self._source.streams:
                wait([coming])


def _fetch(source: Ranges, offset: int, size: int) -> Future[bytes]:
    """Fetch a block in a thread that ends with the process, whatever the server does: a pool would be waited for."""
    coming: Future[bytes] = Future()

    def run() -> None:
        try:
            coming.set_result(source.read_at(offset, size))
        except Exception as error:  # noqa: BLE001 - raised again where the block is asked for
            coming.set_exception(error)

    threading.Thread(target=run, name="read-ahead", daemon=True).start()
    return coming
