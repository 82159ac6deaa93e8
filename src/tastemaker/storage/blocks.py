"""Reads by position through a few large blocks, which are fetched ahead of their use."""

from __future__ import annotations

import threading
from concurrent.futures import Future, wait

from tastemaker.storage.ranges import Ranges

BLOCK_BYTES = 2**23
HELD_BLOCKS = 6
AHEAD = 6
"""Blocks that are fetched at the same time, ahead of the one that is read: a store gives a connection 50 to 100 MB/s,
and a GPU takes the pictures of several."""


class BlockReader(Ranges):
    """A `Ranges` over another: few large reads in place of many small ones.

    Memory holds ``held + ahead`` blocks at most, those that were asked for last. A block that was let go is read again
    when its bytes are asked for: what comes back never depends on the sizes.

    Args:
        source: What is read. One that is packed has one position: it is read a block at a time.
        block_bytes: Size of a block.
        held: Blocks that stay in memory.
        ahead: Blocks that are fetched in advance, each in a thread; one at most of a packed source.
    """

    def __init__(
        self, source: Ranges, block_bytes: int = BLOCK_BYTES, held: int = HELD_BLOCKS, ahead: int = AHEAD
    ) -> None:
        self._source, self.compressed = source, source.compressed
        self._block_bytes = block_bytes
        self._ahead = min(ahead, 1) if source.compressed else ahead
        self._most = held + self._ahead
        self._blocks: dict[int, Future[bytes]] = {}  # those that were asked for first come first
        self._latest = -1
        self._end: int | None = None  # size of the source, once that was seen
        self._broken: Exception | None = None

    @property
    def damage(self) -> str:  # type: ignore[override]
        """What ended the reading of the source early; empty if nothing did."""
        return self._source.damage

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``offset``.

        Raises:
            OSError: The source cannot be read. It is not tried again; blocks that are in memory can still be read.
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
        """Return whether the source has that many bytes; a packed one is read up to there, or to its end."""
        if size <= 0:
            return True
        if not self.compressed:
            return self._source.holds(size)
        last = (size - 1) // self._block_bytes
        for number in range(min(max(self._latest, 0), last), last + 1):
            if self._end is not None:  # a damaged header may ask for 2**88 bytes
                break
            self._block(number)
        return self._end is None or size <= self._end

    def size_bytes(self) -> int | None:
        """Return how many bytes the source has; None of a packed one."""
        return None if self.compressed else self._source.size_bytes()

    def close(self) -> None:
        """Close the source."""
        self._blocks.clear()
        self._source.close()

    def _block(self, number: int) -> bytes:
        coming, is_next = self._blocks.get(number), number == self._latest + 1
        is_new = coming is None
        if coming is None:
            if self._broken is not None:
                raise self._broken
            if self._is_behind_end(number):
                return b""
            coming = self._start(number)
        try:
            block = coming.result()
        except Exception as error:
            self._broken = error
            raise
        if len(block) < self._block_bytes:
            end = number * self._block_bytes + len(block)
            self._end = end if self._end is None else min(end, self._end)
        if is_new or is_next:
            self._latest = number
        if is_next:
            self._look_ahead(number)
        return block

    def _look_ahead(self, number: int) -> None:
        """Start to fetch the blocks that follow, because blocks are read one after the other."""
        for following in range(number + 1, number + 1 + self._ahead):
            if following not in self._blocks and not self._is_behind_end(following):
                if not self.compressed and not self._source.holds(following * self._block_bytes + 1):
                    return
                self._start(following)

    def _is_behind_end(self, number: int) -> bool:
        return self._end is not None and number * self._block_bytes >= self._end

    def _start(self, number: int) -> Future[bytes]:
        """Fetch a block in a thread that ends with the process, whatever the server does: a pool would be waited for.

        The block that was asked for first goes, and not the one used longest ago: that is the next that a sample needs,
        where headers are read ahead of the samples.
        """
        coming: Future[bytes] = Future()
        if self.compressed:
            wait(self._blocks.values())

        def run() -> None:
            try:
                coming.set_result(self._source.read_at(number * self._block_bytes, self._block_bytes))
            except Exception as error:  # noqa: BLE001 - raised again where the block is asked for
                coming.set_exception(error)

        self._blocks[number] = coming
        while len(self._blocks) > self._most:
            del self._blocks[next(iter(self._blocks))]
        threading.Thread(target=run, name="read-ahead", daemon=True).start()
        return coming
