"""Single files behind URLs as an fsspec file system, through which DuckDB reads them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fsspec.spec import AbstractFileSystem

from tastemaker.storage import Options
from tastemaker.storage.place import Entry, Place


class PlaceSystem(AbstractFileSystem):  # type: ignore[misc]
    """A file system of all URLs of a scheme, to read files that are named whole: it lists nothing.

    Args:
        scheme: Of the URLs.
        options: Of their places.
    """

    cachable = False

    def __init__(self, scheme: str, options: Options | None = None) -> None:
        super().__init__()
        self.protocol = scheme
        self._options = options or {}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.partition("://")[2] if "://" in path else path

    def glob(self, path: str, maxdepth: int | None = None, **_: Any) -> list[str]:  # noqa: ANN401
        """Return the path itself, which is never a pattern."""
        return [self._strip_protocol(path)]

    def info(self, path: str, **_: Any) -> dict[str, Any]:  # noqa: ANN401
        """Return name, size and type of a file.

        Raises:
            FileNotFoundError: There is none.
        """
        entry = self._entry(path)
        return {"name": self._strip_protocol(path), "size": entry.size, "type": "file"}

    def modified(self, path: str) -> datetime:
        """Return when a file was written last. DuckDB asks for it."""
        return datetime.fromtimestamp(self._entry(path).modified, UTC)

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:  # noqa: ANN401
        if mode != "rb":
            raise NotImplementedError("these files are for reading")
        return self._place(path).open()

    def _place(self, path: str) -> Place:
        return Place.at(self.unstrip_protocol(path), self._options)

    def _entry(self, path: str) -> Entry:
        entry = self._place(path).stat()
        if entry is None:
            raise FileNotFoundError(path)
        return entry
