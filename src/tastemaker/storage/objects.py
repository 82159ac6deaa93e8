"""One remote file, read by position: requests that go on where they were cut, and bytes of one version only."""

from __future__ import annotations

import contextlib
import re
import threading
from typing import Any

from tastemaker.errors import RemoteError
from tastemaker.storage import Options, public_url, scheme_of
from tastemaker.storage.retries import Attempts, current_patience, persist
from tastemaker.storage.systems import open_system

_PIECE = 2**18
"""Bytes taken from a connection at once: what was taken is not asked for again after a cut."""


class ChangedError(RemoteError):
    """The file is not the one any more that the reading began with."""


class _BeyondEndError(Exception):
    """There are no bytes at that position."""


class RemoteFile:
    """A remote file as a `ShardReader`: each `read_at` is a request for exactly these bytes, made again where it fails.

    Args:
        url: The file.
        options: Arguments of its fsspec file system.

    Attributes:
        streams: True where the server has no ranges: it is read forwards only, and going back costs a pass.
        requests: Requests for bytes so far.

    Raises:
        MissingExtraError: The library of the scheme is not installed.
    """

    compressed = False
    damage = ""

    def __init__(self, url: str, options: Options | None = None) -> None:
        self.url = url
        self._name = public_url(url)
        self._patience = current_patience()
        self._source = _open_source(url, options)

    @property
    def streams(self) -> bool:
        """True where there are no ranges; asks a web server if nothing was read yet."""
        if isinstance(self._source, _WebObject):
            self._know()
        return self._source.streams

    @property
    def requests(self) -> int:
        """Requests for bytes so far."""
        return self._source.requests

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``offset``.

        Raises:
            RemoteError: They cannot be read, whatever was tried; or the file has changed since the first read.
        """
        data = bytearray()
        attempts = Attempts(f"{self._name} cannot be read at byte {offset:,}", self._patience, self.url)
        while (missing := self._clip(offset, size) - len(data)) > 0:
            before = len(data)
            try:
                self._source.read_into(data, offset + before, missing)
            except _BeyondEndError:
                break
            except ChangedError:
                raise ChangedError(f"{self._name} was changed while it was read") from None
            except Exception as error:  # noqa: BLE001 - each library has its own errors
                attempts.wait_after(error, progressed=len(data) > before)
                continue
            if len(data) == before:
                break
        return bytes(data)

    def holds(self, size: int) -> bool:
        """Return whether the file has that many bytes."""
        self._know()
        known = self._source.size
        return size <= known if known is not None else len(self.read_at(size - 1, 1)) == 1

    peek_at = read_at

    def size_bytes(self) -> int | None:
        """Return how many bytes the file has; None where the server does not say."""
        return self.identify()[0]

    def identify(self) -> tuple[int | None, str]:
        """Return size and version of the file, None and empty where the server does not say."""
        self._know()
        return self._source.size, self._source.version

    def close(self) -> None:
        """Close what is open."""
        self._source.close()

    def _know(self) -> None:
        """Ask for size and version if no answer has told them yet."""
        if not self._source.known:
            persist(f"{self._name} cannot be read", self._source.look, self.url)

    def _clip(self, offset: int, size: int) -> int:
        known = self._source.size
        return size if known is None else min(size, known - offset)


def _open_source(url: str, options: Options | None) -> _AnyObject:
    system, path = open_system(url, options)
    kind = {"s3": _S3Object, "s3a": _S3Object, "http": _WebObject, "https": _WebObject}.get(scheme_of(url), _AnyObject)
    return kind(system, path)


class _AnyObject:
    """A file of any fsspec file system. The version is looked at when it is opened and after each failure."""

    streams = False

    def __init__(self, system: Any, path: str) -> None:  # noqa: ANN401 - fsspec has no types
        self.system, self.path = system, path
        self.size: int | None = None
        self.version = ""
        self.known = False
        self.requests = 0

    def look(self) -> None:
        """Find out size and version."""
        self.system.invalidate_cache(self.path)
        info = self.system.info(self.path)
        if info.get("type") == "directory":
            raise IsADirectoryError(f"{self.path} is a folder")
        self.note(info.get("size"), version_of(info))

    def note(self, size: int | None, version: str) -> None:
        """Take down what an answer says of the file; refuse another version than before.

        Raises:
            ChangedError: It is another one.
        """
        if self.known and (size != self.size or version != self.version):
            raise ChangedError
        self.size, self.version, self.known = size, version, True

    def read_into(self, data: bytearray, offset: int, size: int) -> None:
        """Append bytes from ``offset``; on an error those that had come are in ``data``."""
        if not self.known:
            self.look()
            size = min(size, (self.size or 0) - offset)
        if size <= 0:
            raise _BeyondEndError
        self.requests += 1
        try:
            part = self.system.cat_file(self.path, start=offset, end=offset + size)
        except Exception:
            self.look()
            raise
        data += part
        if len(part) != size:
            self.look()

    def close(self) -> None:
        """Close what is open."""


class _S3Object(_AnyObject):
    """An object of S3: each answer names size and ETag, and a cut body leaves what had come."""

    def read_into(self, data: bytearray, offset: int, size: int) -> None:
        from fsspec.asyn import sync

        self.requests += 1
        try:
            sync(self.system.loop, self._get, data, offset, size)
        except OSError as error:
            status = getattr(error.__cause__, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode")
            if status == 412:
                raise ChangedError from error
            if status == 416:
                self.look()  # the file may be shorter than it was
                raise _BeyondEndError from error
            raise

    async def _get(self, data: bytearray, offset: int, size: int) -> None:
        bucket, key, version = self.system.split_path(self.path)
        arguments = {"Bucket": bucket, "Key": key, "Range": f"bytes={offset}-{offset + size - 1}", **self.system.req_kw}
        if version:
            arguments["VersionId"] = version
        if self.known and self.version:
            arguments["IfMatch"] = f'"{self.version}"'
        answer = await self.system._call_s3("get_object", **arguments)
        body = answer["Body"]
        try:
            self.note(int(answer["ContentRange"].rpartition("/")[2]), answer["ETag"].strip('"'))
            while piece := await body.read(_PIECE):
                data += piece
        finally:
            body.close()


class _WebObject(_AnyObject):
    """A file of a web server, with ranges or without."""

    def __init__(self, system: Any, path: str) -> None:  # noqa: ANN401
        super().__init__(system, path)
        self._stream: Any = None  # the answer that is being read, where there are no ranges
        self._position = 0
        self._lock = threading.Lock()

    def look(self) -> None:
        with contextlib.suppress(_BeyondEndError):  # it is empty
            self._run(self._get, bytearray(), 0, 1)

    def read_into(self, data: bytearray, offset: int, size: int) -> None:
        self._run(self._get, data, offset, size)

    def close(self) -> None:
        if self._stream is not None:
            self.system.loop.call_soon_threadsafe(self._stream.close)
            self._stream = None

    def _run(self, work: Any, *arguments: Any) -> None:  # noqa: ANN401
        from fsspec.asyn import sync

        if self.known and not self.streams:
            sync(self.system.loop, work, *arguments)
        else:
            with self._lock:
                sync(self.system.loop, work, *arguments)

    async def _get(self, data: bytearray, offset: int, size: int) -> None:
        if self.streams:
            await self._read_on(data, offset, size)
            return
        answer = await self._ask({"Range": f"bytes={offset}-{offset + size - 1}"})
        try:
            if answer.status == 416:
                self.note(_total(answer), self.version if self.known else _web_version(answer))
                raise _BeyondEndError
            if answer.status == 206:
                self.note(_total(answer), _web_version(answer))
                async for piece in answer.content.iter_chunked(_PIECE):
                    data += piece
                return
            self.streams = True
            await self._begin(answer)
            answer = None  # it stays open
        finally:
            if answer is not None:
                answer.close()
        await self._read_on(data, offset, size)

    async def _ask(self, headers: dict[str, str]) -> Any:  # noqa: ANN401
        self.requests += 1
        session = await self.system.set_session()
        settings = dict(self.system.kwargs)
        headers = {**settings.pop("headers", {}), "Accept-Encoding": "identity", **headers}
        answer = await session.get(self.system.encode_url(self.path), headers=headers, **settings)
        if answer.status != 416:
            try:
                self.system._raise_not_found_for_status(answer, self.path)
            except BaseException:
                answer.close()
                raise
        return answer

    async def _begin(self, answer: Any) -> None:  # noqa: ANN401
        """Take an answer with the whole file as the one that is read."""
        self.note(answer.content_length, _web_version(answer))
        self._stream, self._position = answer, 0

    async def _read_on(self, data: bytearray, offset: int, size: int) -> None:
        if self._stream is not None and offset < self._position:
            self._stream.close()
            self._stream = None
        if self._stream is None:
            await self._begin(await self._ask({}))
        try:
            while self._position < offset + size:
                wanted = size - (self._position - offset) if self._position >= offset else offset - self._position
                piece = await self._stream.content.read(min(wanted, _PIECE))
                if not piece:
                    break
                if self._position >= offset:
                    data += piece
                self._position += len(piece)
        except BaseException:
            self._stream.close()
            self._stream = None
            raise


def _total(answer: Any) -> int | None:  # noqa: ANN401
    match = re.search(r"/(\d+)$", answer.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _web_version(answer: Any) -> str:  # noqa: ANN401
    headers = answer.headers
    return str(headers.get("ETag") or headers.get("Last-Modified") or "").strip('"')


def version_of(info: dict[str, Any]) -> str:
    """Return what tells one version of a file from another: its ETag or checksum, else when it was modified."""
    for name in ("ETag", "etag", "blob_id", "md5Hash", "content_md5", "last_commit"):
        if info.get(name):
            return str(info[name]).strip('"')
    for name in ("LastModified", "last_modified", "mtime", "updated", "created"):
        if info.get(name):
            return str(info[name])
    return ""
