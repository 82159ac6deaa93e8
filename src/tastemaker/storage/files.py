"""Remote files as a whole: lists of them, what identifies them, copies of them here, and results put there."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from tastemaker.errors import ConfigurationError, RemoteError
from tastemaker.storage import Options, base_name, options_for, public_url, scheme_of
from tastemaker.storage.objects import RemoteFile
from tastemaker.storage.retries import persist
from tastemaker.storage.sending import send_bytes, send_file
from tastemaker.storage.sources import modified_of, version_of
from tastemaker.storage.systems import OBJECT_STORES, check_scheme, open_system, shorten_waits

_WEB = ("http", "https")
_COPY_BYTES = 2**24
_BUFFER_BYTES = 2**22


class Entry(NamedTuple):
    """A remote file, as a listing shows it.

    Attributes:
        path: Its URL.
        size: In bytes; 0 where the server does not say.
        version: ETag, checksum or time of modification; empty where the server does not say.
        modified: Seconds since 1970; 0 where the server does not say.
    """

    path: str
    size: int
    version: str
    modified: float = 0.0


def find_file(url: str, options: Options | None = None) -> Entry | None:
    """Return the file at a URL, None if there is none (a folder is none).

    Raises:
        RemoteError: The server does not answer, or denies it.
    """
    system, path = open_system(url, options)
    if scheme_of(url) in _WEB:
        return _find_on_web(url, options)
    try:
        info = persist(f"{public_url(url)} cannot be looked at", lambda: system.info(path), url)
    except RemoteError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    return _entry(system, url, info) if info.get("type") == "file" else None


def list_files(url: str, options: Options | None = None) -> list[Entry]:
    """Return all files below a folder, in the order of their paths.

    Raises:
        ConfigurationError: The scheme has no listings.
        RemoteError: The server does not answer, or denies it.
    """
    return _list(url, options, "find")


def list_below(folder: Path) -> list[Entry]:
    """Return all files below a folder of results."""
    return list_files(str(folder), options_of(folder))


def list_folder(url: str, options: Options | None = None) -> list[Entry]:
    """Return the files in a folder itself. A web server has no listings: the list is empty."""
    return [] if scheme_of(url) in _WEB else _list(url, options, "ls")


def glob_files(pattern: str, options: Options | None = None) -> list[Entry]:
    """Return the files that a pattern (``s3://bucket/a/*.tar``) fits, in the order of their paths."""
    return _list(pattern, options, "glob")


def read_whole(url: str, options: Options | None, max_bytes: int) -> bytes:
    """Return a remote file's bytes, at most ``max_bytes`` and one more.

    Raises:
        RemoteError: It cannot be read, whatever was tried.
    """
    with contextlib.closing(RemoteFile(url, options)) as file:
        return file.read_at(0, max_bytes + 1)


def read_small(path: Path) -> bytes | None:
    """Return the bytes of an object of at most a megabyte, None if there is none.

    Raises:
        RemoteError: It cannot be read, whatever was tried.
    """
    try:
        return read_whole(str(path), options_of(path), 2**20)
    except RemoteError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def open_remote(path: Path) -> IO[bytes]:
    """Return a remote file as a file object that reads ahead.

    Raises:
        FileNotFoundError: There is none.
        RemoteError: It cannot be asked for.
    """
    return open_url(str(path), options_of(path))


def open_url(url: str, options: Options | None = None) -> IO[bytes]:
    """Return the file at a URL, as `open_remote` does."""
    from tastemaker.imaging.readers import ReaderFile

    file = RemoteFile(url, options)
    try:
        file.identify()
    except RemoteError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise error.__cause__ from None
        raise
    return io.BufferedReader(ReaderFile(file), _BUFFER_BYTES)


def fetch_file(url: str, target: Path, options: Options | None = None) -> None:
    """Copy a remote file to a local one; a copy that was interrupted goes on.

    Raises:
        RemoteError: It cannot be read, whatever was tried.
    """
    target.touch()
    with contextlib.closing(RemoteFile(url, options)) as file, target.open("r+b") as opened:
        position = opened.seek(0, os.SEEK_END)
        while data := file.read_at(position, _COPY_BYTES):
            opened.write(data)
            position += len(data)


def remote_path(path: str | Path, options: Options | None = None) -> Path:
    """Return a URL as an object with the methods of a `pathlib.Path` (universal-pathlib).

    Raises:
        MissingExtraError: The library of the scheme is not installed.
        ConfigurationError: Nothing can be written to that kind of place.
    """
    url = str(path)
    check_writable(url)
    from upath import UPath

    chosen = options_for(url, options)
    made: Any = UPath(url.rstrip("/"), **{**chosen, "use_listings_cache": False})
    shorten_waits(made.fs, scheme_of(url))
    return cast(Path, made)


def check_writable(url: str) -> None:
    """Raise unless files can be written to that kind of place.

    Raises:
        MissingExtraError: The library of the scheme is not installed.
        ConfigurationError: They cannot.
    """
    check_scheme(scheme_of(url))
    if scheme_of(url) in _WEB:
        raise ConfigurationError(f"{public_url(url)}: results cannot be written to a web server; use s3://, gs://, ...")
    if scheme_of(url) == "hf":
        raise ConfigurationError(
            f"{url}: results are not written to the hub, where each file would be a commit; write them to a folder or "
            "s3://, gs://, ..., then `hf upload OWNER/NAME FOLDER . --repo-type dataset`"
        )


def check_bucket(path: Path) -> None:
    """Look whether the bucket of an object store is there; where there are folders, make the folder.

    Raises:
        ConfigurationError: There is no such bucket, or it cannot be asked.
    """
    check_bucket_of(str(path), options_of(path))


def check_bucket_of(url: str, options: Options | None) -> None:
    """Do as `check_bucket` for a URL."""
    system, name = open_system(url, options)
    if scheme_of(url) not in OBJECT_STORES:
        system.makedirs(name, exist_ok=True)
        return
    if scheme_of(url) == "memory":
        return
    bucket = name.strip("/").split("/")[0]
    try:
        is_there = persist(f"{public_url(url)} cannot be used", lambda: _exists(system, bucket), url)
    except RemoteError as error:
        raise ConfigurationError(str(error)) from error
    if not is_there:
        raise ConfigurationError(f"{public_url(url)}: there is no bucket {bucket!r}; make it first")


def publish(draft: Path, target: Path) -> None:
    """Put a finished local file where it is to be seen, whole or not at all, and delete the local one.

    Raises:
        RemoteError: It cannot be written, whatever was tried. The draft is still there.
    """
    send_draft(draft, str(target), options_of(target))
    draft.unlink()


def publish_bytes(data: bytes, target: Path) -> None:
    """Put bytes where they are to be seen, whole or not at all.

    Raises:
        RemoteError: They cannot be written, whatever was tried.
    """
    send_data(data, str(target), options_of(target))


def send_draft(draft: Path, url: str, options: Options | None) -> None:
    """Put a local file at a URL, whole or not at all."""
    system, path = _made_ready(url, options)
    persist(f"{public_url(url)} cannot be written", lambda: send_file(system, draft, path), url)


def send_data(data: bytes, url: str, options: Options | None) -> None:
    """Put bytes at a URL, whole or not at all."""
    system, path = _made_ready(url, options)
    persist(f"{public_url(url)} cannot be written", lambda: send_bytes(system, data, path), url)


def _made_ready(url: str, options: Options | None) -> tuple[Any, str]:
    """Return file system and path of a file to be written; its folder is made where there are folders."""
    system, path = open_system(url, options)
    if scheme_of(url) not in OBJECT_STORES:
        system.makedirs(system._parent(path), exist_ok=True)
    return system, path


def _find_on_web(url: str, options: Options | None) -> Entry | None:
    with contextlib.closing(RemoteFile(url, options)) as file:
        try:
            size, version = file.identify()
        except RemoteError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise
    return Entry(url, size or 0, version)


def _list(url: str, options: Options | None, how: str) -> list[Entry]:
    if scheme_of(url) in _WEB:
        raise ConfigurationError(f"{public_url(url)}: a web server has no list of its files; name each file")
    system, path = open_system(url, options)
    system.invalidate_cache()
    listing = getattr(system, how)
    try:
        found = persist(f"{public_url(url)} cannot be listed", lambda: listing(path, detail=True), url)
    except RemoteError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return []
        raise
    infos = found.values() if isinstance(found, dict) else found
    entries = [_entry(system, url, info) for info in infos if info.get("type") == "file"]
    return sorted(entry for entry in entries if base_name(entry.path))


def _entry(system: Any, url: str, info: dict[str, Any]) -> Entry:  # noqa: ANN401 - fsspec has no types
    path = system.unstrip_protocol(info["name"])
    scheme, name = url.partition("://")[0], path.partition("://")[2]
    if scheme != "file":
        name = name.lstrip("/")
    return Entry(f"{scheme}://{name}", int(info.get("size") or 0), version_of(info), modified_of(info))


def options_of(path: Path) -> Options:
    """Return the arguments of the file system of what `remote_path` returned."""
    return dict(cast(Any, path).storage_options)


def _exists(system: Any, bucket: str) -> bool:  # noqa: ANN401
    try:
        system.ls(bucket, detail=False)
    except FileNotFoundError:
        return False
    return True
