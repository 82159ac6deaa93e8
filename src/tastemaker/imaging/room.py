"""Memory for very large images: in each process they wait for one another, and small ones for nothing.

An image of 169 megapixels takes two gigabytes while it is decoded and resized. A dozen threads that meet a dozen of
them would take more than the machine has.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
from collections.abc import Iterator
from functools import cached_property

from tastemaker.machine import MEMORY_SHARE, usable_memory_bytes

LARGE_PIXELS = 40_000_000
"""Images of more pixels wait for room; a machine of 16 GB has it for seven at once that have 45 megapixels."""

BYTES_PER_PIXEL = 12
"""What decoding and resizing takes at its peak: 11 for PNG, see docs/performance.md."""

LEAST_PIXELS = 180_000_000
"""Room for one image of the largest size that is decoded by default, however small the machine is."""


class Room:
    """So many pixels that all threads together may work on.

    Args:
        pixels: How many; an image that has more itself is worked on alone. None for what the memory of this process
            allows when the first large image comes: a worker on a cluster learns its share after it has imported this.
        large_pixels: Images up to this size are not counted and never wait.
    """

    def __init__(self, pixels: int | None = None, large_pixels: int = LARGE_PIXELS) -> None:
        self._pixels, self.large_pixels = pixels, large_pixels
        self._taken = 0
        self._changed = threading.Condition()
        self._of_thread = threading.local()

    @cached_property
    def pixels(self) -> int:
        """So many pixels there is room for."""
        return room_on(usable_memory_bytes()) if self._pixels is None else self._pixels

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep what this thread takes within the block until the outermost such block ends. Also a decorator."""
        mine = self._of_thread
        mine.depth = getattr(mine, "depth", 0) + 1
        try:
            yield
        finally:
            mine.depth -= 1
            if mine.depth == 0 and getattr(mine, "taken", 0):
                self._give_back(mine.taken)
                mine.taken = 0

    def take(self, pixels: int) -> None:
        """Wait until there is room for an image, within a block of `hold`; outside of one, nothing is counted.

        A thread that has taken some already does not wait for more: two such could wait for each other.
        """
        mine = self._of_thread
        if pixels <= self.large_pixels or not getattr(mine, "depth", 0):
            return
        has_some = bool(getattr(mine, "taken", 0))
        with self._changed:
            if not has_some:
                self._changed.wait_for(lambda: not self._taken or self._taken + pixels <= self.pixels)
            self._taken += pixels
        mine.taken = getattr(mine, "taken", 0) + pixels

    def _give_back(self, pixels: int) -> None:
        _return_memory()
        with self._changed:
            self._taken -= pixels
            self._changed.notify_all()


def _return_memory() -> None:
    """Give the memory of freed pixels back to the system: glibc keeps Pillow's blocks of 16 MB for each thread."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


def room_on(memory_bytes: int | None) -> int:
    """Return how many pixels of large images a process may work on that may use so much memory; None for unknown.

    Example:
        >>> room_on(64 * 2**30) // 10**6, room_on(4 * 2**30) // 10**6
        (1431, 180)
    """
    return max(LEAST_PIXELS, int(MEMORY_SHARE * (memory_bytes or 0) / BYTES_PER_PIXEL))


ROOM = Room()
"""Of this process."""
