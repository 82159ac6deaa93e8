"""Places behind a URL: object stores, web servers, the Hugging Face hub."""

from __future__ import annotations

import contextlib
import posixpath
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from tastemaker.errors import RemoteError
from tastemaker.storage import canonical_url, files, options_for, public_url, relative_to, scheme_of
from tastemaker.storage.drafts import draft_folder
from tastemaker.storage.leases import Lease
from tastemaker.storage.objects import RemoteFile
from tastemaker.storage.place import DRAFT_PREFIX, Draft, Entry, Lock, Place
from tastemaker.storage.retries import persist
from tastemaker.storage.systems import open_system

T = TypeVar("T")


class RemotePlace(Place):
    """A URL, with the options of its store."""

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.address = url
        self.options = options_for(url, options)

    @property
    def local_path(self) -> None:
        return None

    def __str__(self) -> str:
        return public_url(self.address)

    def _key(self) -> str:
        return canonical_url(self.address).rstrip("/")

    @property
    def name(self) -> str:
        return posixpath.basename(str(self).rstrip("/"))

    @property
    def parent(self) -> Place:
        return RemotePlace(str(self).rstrip("/").rpartition("/")[0], self.options)

    def __truediv__(self, below: str) -> Place:
        return RemotePlace(f"{str(self).rstrip('/')}/{below}", self.options)

    def relative_to(self, folder: Place) -> str:
        return relative_to(self.address, folder.address)

    def stat(self) -> Entry | None:
        found = files.find_file(self.address, self.options)
        return None if found is None else Entry(self, found.size, found.modified, found.version)

    def is_folder(self) -> bool:
        return scheme_of(self.address) not in ("http", "https") and bool(self.list())

    def list(self, *, recursive: bool = True) -> list[Entry]:
        if not recursive and scheme_of(self.address) in ("http", "https"):
            files.list_files(self.address)  # raises that there are no listings
        listing = files.list_files if recursive else files.list_folder
        return [
            Entry(RemotePlace(found.path, self.options), found.size, found.modified, found.version)
            for found in listing(self.address, self.options)
            if canonical_url(found.path) != self._key()  # a listing of a file is that file
        ]

    def open(self) -> BinaryIO:
        return cast(BinaryIO, files.open_url(self.address, self.options))

    def open_ranges(self) -> RemoteFile:
        return RemoteFile(self.address, self.options)

    def read(self, max_bytes: int | None = None) -> bytes:
        with contextlib.closing(self.open_ranges()) as file:
            return _or_not_found(
                lambda: file.read_at(0, (file.size_bytes() if max_bytes is None else max_bytes) or 2**40)
            )

    def fetch(self, target: Path) -> None:
        files.fetch_file(self.address, target, self.options)

    def draft(self, beside: Place | None = None) -> Draft:
        self._check_writable()
        return _Upload(self)

    def write(self, data: bytes) -> None:
        self._check_writable()
        files.send_data(data, self.address, self.options)

    def create(self, data: bytes) -> bool:
        self._check_writable()
        system, path = open_system(self.address, self.options)
        try:
            persist(f"{self} cannot be written", lambda: system.pipe_file(path, data, mode="create"), self.address)
        except RemoteError as error:
            if _says_exists(error.__cause__):
                return False
            raise
        return True

    def delete(self) -> None:
        self._check_writable()
        system, path = open_system(self.address, self.options)
        with contextlib.suppress(FileNotFoundError):
            _or_not_found(lambda: persist(f"{self} cannot be deleted", lambda: system.rm_file(path), self.address))

    def remove_drafts(self) -> None:
        """Do nothing: drafts of remote files lie on this machine, see `drafts.draft_folder`."""

    def make_folder(self) -> None:
        self._check_writable()
        files.check_bucket_of(self.address, self.options)

    def lock(self) -> Lock:
        return Lease(self)

    def _check_writable(self) -> None:
        files.check_writable(self.address)


class _Upload(Draft):
    def __init__(self, target: RemotePlace) -> None:
        self._target = target
        self.path = draft_folder() / f"{DRAFT_PREFIX}{uuid.uuid4().hex[:12]}"

    def commit(self) -> None:
        files.send_draft(self.path, self._target.address, self._target.options)
        self.path.unlink()


def _or_not_found(work: Callable[[], T]) -> T:
    """Return the result of ``work``; where it failed because there is no such file, raise that."""
    try:
        return work()
    except RemoteError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise error.__cause__ from None
        raise


def _says_exists(error: BaseException | None) -> bool:
    status = getattr(error, "status", None) or getattr(error, "status_code", None) or getattr(error, "code", None)
    answer = getattr(getattr(error, "__cause__", None), "response", {})
    status = status or answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return isinstance(error, FileExistsError) or status in (409, 412)
