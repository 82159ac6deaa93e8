"""Unfinished files: written under names of their own, and moved to their places once they are whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Self

DRAFT_PREFIX = ".tastemaker-tmp-"
"""How the names of unfinished files begin. Listings leave them out."""


class Draft:
    """An unfinished file: a local file that any library may write. Nobody sees it until `commit`.

    As a context manager it commits at the end of the block, and discards where the block raises.

    Args:
        path: The local file. It is not made yet.
        put: Makes the bytes of a local file durable, and puts them in their place, whole, instead of what was there.

    Attributes:
        path: The same.
    """

    def __init__(self, path: Path, put: Callable[[Path], None]) -> None:
        self.path, self._put = path, put

    def commit(self) -> None:
        """Put the file in its place.

        Raises:
            OSError: It cannot be written.
            RemoteError: It cannot be uploaded, whatever was tried. The draft is still there.
        """
        self._put(self.path)

    def discard(self) -> None:
        """Delete what was written."""
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.discard()
            return
        try:
            self.commit()
        except BaseException:
            self.discard()
            raise
