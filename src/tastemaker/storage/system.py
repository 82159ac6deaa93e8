"""Places as an fsspec file system, for libraries that read through one: DuckDB."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fsspec.spec import AbstractFileSystem

from tastemaker.storage import Options
from tastemaker.storage.place import Entry, Place


class PlaceSystem(AbstractFileSystem):  # type: ignore[misc]
    """A file system of all URLs of a scheme.

    Args:
        scheme: Of the URLs.
        options: Of their places.
    """

    cachable = False
    root_marker = ""

    def __init__(self, scheme: str, options: Options | None = None) -> None:
        super().__init__()
        self.protocol = scheme
        self._options = options or {}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.partition("://")[2] if "://" in path else path

    def unstrip_protocol(self, name: str) -> str:
        """Return a path as a URL."""
        return f"{self.protocol}://{self._strip_protocol(name)}"

    def info(self, path: str, **_: Any) -> dict[str, Any]:  # noqa: ANN401
        """Return name, size and type of a file.

        Raises:
            FileNotFoundError: There is none.
        """
        entry = self._place(path).stat()
        if entry is None:
            raise FileNotFoundError(path)
        return self._describe(entry)

    def find(self, path: str, maxdepth: int | None = None, withdirs: bool = False, **options: Any) -> Any:  # noqa: ANN401
        """Return all files below a folder, by name."""
        place = self._place(path)
        found = {}
        for entry in place.list(recursive=maxdepth != 1):
            if maxdepth is None or entry.place.relative_to(place).count("/") < maxdepth:
                described = self._describe(entry)
                found[described["name"]] = described
        return found if options.get("detail") else sorted(found)

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:  # noqa: ANN401
        """Return the files in a folder itself."""
        found = self.find(path, maxdepth=1, detail=True)
        return list(found.values()) if detail else list(found)

    def modified(self, path: str) -> datetime:
        """Return when a file was written last; DuckDB asks."""
        return datetime.fromtimestamp(self.info(path)["mtime"], UTC)

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:  # noqa: ANN401
        if mode != "rb":
            raise NotImplementedError("these files are for reading")
        return self._place(path).open()

    def _place(self, path: str) -> Place:
        return Place.at(self.unstrip_protocol(path), self._options)

    def _describe(self, entry: Entry) -> dict[str, Any]:
        name = self._strip_protocol(entry.place.address)
        return {"name": name, "size": entry.size, "type": "file", "mtime": entry.modified}
