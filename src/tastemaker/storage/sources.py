"""What each kind of storage needs to be read by position: bytes of one version, and as many of a cut body as came."""

from __future__ import annotations

import contextlib
import re
import threading
from datetime import datetime
from typing import Any

from tastemaker.errors import RemoteError
from tastemaker.storage import Options, scheme_of
from tastemaker.storage.systems import open_system

_PIECE = 2**18
"""Bytes taken from a connection at once: what was taken is not asked for again after a cut."""


class ChangedError(RemoteError):
    """The file is not the one any more that the reading began with."""


class BeyondEndError(Exception):
    """There are no bytes at that position."""


def open_source(url: str, options: Options | None) -> AnyObject:
    """Return the object that reads a URL's file; nothing is requested yet.

    Raises:
        MissingExtraError: The library of the scheme is not installed.
    """
    system, path = open_system(url, options)
    if scheme_of(url) == "hf":
        from tastemaker.storage.hub import HubObject

        return HubObject(system, path)
    return _KINDS.get(scheme_of(url), AnyObject)(system, path)


class AnyObject:
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
            raise BeyondEndError
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


class _S3Object(AnyObject):
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
                raise BeyondEndError from error
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


class _PinnedObject(AnyObject):
    """An object that is looked at first, so that all reads can ask for the version that was there then."""

    def read_into(self, data: bytearray, offset: int, size: int) -> None:
        from fsspec.asyn import sync

        if not self.known:
            self.look()
        if offset >= (self.size or 0):
            raise BeyondEndError
        self.requests += 1
        sync(self.system.loop, self._get, data, offset, size)

    async def _get(self, data: bytearray, offset: int, size: int) -> None:
        raise NotImplementedError


class _GoogleObject(_PinnedObject):
    """An object of Google's store: reads are of one generation, and a cut body leaves what had come."""

    async def _get(self, data: bytearray, offset: int, size: int) -> None:
        from gcsfs.retry import validate_response

        system = self.system
        await system._set_session()
        async with system.session.get(
            system.url(self.path),
            params=system._get_params({"ifGenerationMatch": self.version} if self.version else {}),
            headers=system._get_headers({"Range": f"bytes={offset}-{offset + size - 1}"}),
            timeout=system.requests_timeout,
        ) as answer:
            if answer.status in (412, 416):
                raise ChangedError
            if answer.status >= 400:
                validate_response(answer.status, await answer.read(), self.path)
            self.note(_total(answer), answer.headers.get("X-Goog-Generation", self.version))
            async for piece in answer.content.iter_chunked(_PIECE):
                data += piece


class _AzureObject(_PinnedObject):
    """A blob of Azure's store: reads are of the version with one ETag."""

    async def _get(self, data: bytearray, offset: int, size: int) -> None:
        from azure.core import MatchConditions
        from azure.core.exceptions import ResourceModifiedError

        container, name, version = self.system.split_path(self.path)
        same = {"etag": f'"{self.version}"', "match_condition": MatchConditions.IfNotModified} if self.version else {}
        same |= self.system._timeout_kwargs
        async with self.system.service_client.get_blob_client(container, name) as client:
            try:
                body = await client.download_blob(offset, size, version_id=version, max_concurrency=1, **same)
                data += await body.readall()
            except ResourceModifiedError as error:
                raise ChangedError from error


class WebObject(AnyObject):
    """A file of a web server, with ranges or without."""

    def __init__(self, system: Any, path: str) -> None:  # noqa: ANN401
        super().__init__(system, path)
        self._stream: Any = None  # the answer that is being read, where there are no ranges
        self._position = 0
        self._lock = threading.Lock()

    def look(self) -> None:
        """Find out size and version from an answer to a request for one byte."""
        with contextlib.suppress(BeyondEndError):  # it is empty
            self._run(self._get, bytearray(), 0, 1)

    def read_into(self, data: bytearray, offset: int, size: int) -> None:
        """Append bytes from ``offset``; on an error those that had come are in ``data``."""
        self._run(self._get, data, offset, size)

    def close(self) -> None:
        """Close the answer that is being read."""
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
                raise BeyondEndError
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


_KINDS: dict[str, type[AnyObject]] = {
    **dict.fromkeys(("s3", "s3a"), _S3Object),
    **dict.fromkeys(("gs", "gcs"), _GoogleObject),
    **dict.fromkeys(("az", "abfs", "abfss"), _AzureObject),
    **dict.fromkeys(("http", "https"), WebObject),
}


def _total(answer: Any) -> int | None:  # noqa: ANN401
    match = re.search(r"/(\d+)$", answer.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _web_version(answer: Any) -> str:  # noqa: ANN401
    headers = answer.headers
    return str(headers.get("ETag") or headers.get("Last-Modified") or "").strip('"')


def version_of(info: dict[str, Any]) -> str:
    """Return what tells one version of a file from another: its ETag or checksum, else when it was modified."""
    for name in ("generation", "ETag", "etag", "blob_id", "md5Hash", "content_md5", "last_commit"):
        if info.get(name):
            return str(info[name]).strip('"')
    for name in ("LastModified", "last_modified", "mtime", "updated", "created"):
        if info.get(name):
            return str(info[name])
    return ""


def modified_of(info: dict[str, Any]) -> float:
    """Return when a file was written last, in seconds since 1970; 0 where nobody says."""
    for name in ("LastModified", "last_modified", "mtime", "updated", "created"):
        if isinstance(time := info.get(name), datetime):
            return time.timestamp()
        if isinstance(time, str):
            return datetime.fromisoformat(time).timestamp()
    return 0.0
