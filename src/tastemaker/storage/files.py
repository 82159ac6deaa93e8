"""What code that has no places yet asks of URLs. It goes once `Place` is used everywhere."""

from __future__ import annotations

import fnmatch
import io
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, cast

from tastemaker.storage import Options
from tastemaker.storage.place import Place
from tastemaker.storage.system import PlaceSystem


class Entry(NamedTuple):
    """A remote file: its URL, its size, and what changes when it changes."""

    path: str
    size: int
    version: str


class RemotePath:
    """A URL with the methods of a `pathlib.Path`."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.storage_options = place.options
        self.name = place.name
        self.stem, self.suffix = PurePosixPath(self.name).stem, PurePosixPath(self.name).suffix

    def __str__(self) -> str:
        return self.place.address.rstrip("/")

    def __repr__(self) -> str:
        return repr(self.place)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and self.place == other.place

    def __hash__(self) -> int:
        return hash(self.place)

    def __lt__(self, other: RemotePath) -> bool:
        return str(self) < str(other)

    def __truediv__(self, below: str) -> RemotePath:
        return RemotePath(self.place / str(below))

    @property
    def parent(self) -> RemotePath:
        return RemotePath(self.place.parent)

    def with_name(self, name: str) -> RemotePath:
        return self.parent / name

    def exists(self) -> bool:
        return self.place.exists()

    def is_dir(self) -> bool:
        return self.place.is_folder()

    def is_file(self) -> bool:
        return self.place.is_file()

    def mkdir(self, **_: Any) -> None:  # noqa: ANN401
        pass

    def unlink(self, missing_ok: bool = False) -> None:
        self.place.delete()

    def read_bytes(self) -> bytes:
        return self.place.read()

    def read_text(self, **_: Any) -> str:  # noqa: ANN401
        return self.place.read().decode()

    def write_bytes(self, data: bytes) -> None:
        self.place.write(data)

    def open(self, _mode: str = "rb", **text: Any) -> IO[Any]:  # noqa: ANN401
        return io.TextIOWrapper(self.place.open(), **text) if text else self.place.open()

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        for entry in self.place.list(recursive=False):
            if fnmatch.fnmatchcase(entry.place.name, pattern):
                yield RemotePath(entry.place)

    def iterdir(self) -> Iterator[RemotePath]:
        return self.glob("*")

    def relative_to(self, other: RemotePath) -> PurePosixPath:
        return PurePosixPath(self.place.relative_to(other.place))


def remote_path(path: str | Path, options: Options | None = None) -> Path:
    place = Place.at(str(path), options)
    place.draft()  # raises where nothing can be written
    return cast("Path", RemotePath(place))


def place_of(path: Path) -> Place:
    return path.place if isinstance(path, RemotePath) else Place.at(str(path))


def options_of(path: Path) -> Options:
    return dict(cast("Any", path).storage_options)


def find_file(url: str, options: Options | None = None) -> Entry | None:
    found = Place.at(url, options).stat()
    return None if found is None else Entry(url, found.size, found.version)


def list_files(url: str, options: Options | None = None) -> list[Entry]:
    return [Entry(found.place.address, found.size, found.version) for found in Place.at(url, options).list()]


def list_folder(url: str, options: Options | None = None) -> list[Entry]:
    if url.startswith("http"):
        return []
    found = Place.at(url, options).list(recursive=False)
    return [Entry(entry.place.address, entry.size, entry.version) for entry in found]


def glob_files(url: str, options: Options | None = None) -> list[Entry]:
    return [Entry(found.place.address, found.size, found.version) for found in Place.at(url, options).glob()]


def list_below(folder: Path) -> list[Entry]:
    return list_files(str(folder), options_of(folder))


def read_whole(url: str, options: Options | None, max_bytes: int) -> bytes:
    file = Place.at(url, options).open_ranges()
    try:
        return file.read_at(0, max_bytes + 1)
    finally:
        file.close()


def read_small(path: Path) -> bytes | None:
    try:
        return Place.at(str(path), options_of(path)).read(2**20)
    except FileNotFoundError:
        return None


def open_remote(path: Path) -> IO[bytes]:
    return Place.at(str(path), options_of(path)).open()


def check_bucket(path: Path) -> None:
    Place.at(str(path), options_of(path)).make_folder()


def publish(draft: Path, target: Path) -> None:
    cast("Any", Place.at(str(target), options_of(target))).send(draft)
    draft.unlink()


def publish_bytes(data: bytes, target: Path) -> None:
    Place.at(str(target), options_of(target)).write(data)


def library_system(url: str, options: Options) -> tuple[Any, str]:
    system = PlaceSystem(url.partition("://")[0], options)
    return system, system._strip_protocol(url)
