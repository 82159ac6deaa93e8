"""Places on web servers: files that are named one by one, read with ranges or, where a server has none, forwards."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any

import httpx2

from tastemaker.errors import ConfigurationError, RemoteError
from tastemaker.storage import Options, public_url
from tastemaker.storage.place import Entry
from tastemaker.storage.ranges import BeyondEndError, Source
from tastemaker.storage.remote import ReadOnlyPlace
from tastemaker.storage.retries import current_patience, persist


class AnswerError(OSError):
    """An answer that says no.

    Attributes:
        status: Of HTTP.
        headers: May say when to come back.
    """

    def __init__(self, answer: Any) -> None:  # noqa: ANN401 - httpx2's, or that of the hub's library
        reason = answer.headers.get("X-Error-Message") or answer.reason_phrase
        super().__init__(f"status {answer.status_code} {reason}".strip())
        self.status: int = answer.status_code
        self.headers = dict(answer.headers)


class WebPlace(ReadOnlyPlace):
    """A file of a web server. There are no folders."""

    def stat(self) -> Entry | None:
        source = self.source()
        try:
            persist(f"{self} cannot be looked at", source.look, self.address)
        except RemoteError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise
        finally:
            source.close()
        return Entry(self, source.size or 0, source.modified, source.version)

    def is_folder(self) -> bool:
        return False

    def list_inputs(self) -> list[Entry]:
        return self.list() if self.address.endswith("/") else []

    def list(self, *, recursive: bool = True) -> list[Entry]:
        raise ConfigurationError(f"{self}: a web server has no list of its files; name each file")

    def source(self) -> WebSource:
        return WebSource(self.address, self.options)

    def refusal(self) -> ConfigurationError:
        return ConfigurationError(f"{self}: results cannot be written to a web server; use s3://, gs://, ...")


class WebSource(Source):
    """Reads a file in ranges, or in one answer that stays open."""

    may_stream = True

    def __init__(self, url: str, options: Options) -> None:
        super().__init__()
        self.modified = 0.0
        self._url = url
        self._headers = _headers_of(options)
        self._stream: Any = None  # the answer that is being read, where there are no ranges
        self._pieces: Iterator[bytes] = iter(())
        self._rest = b""
        self._position = 0
        self._lock = threading.Lock()

    def look(self) -> None:
        """Find out size and version from an answer to a request for one byte."""
        with contextlib.suppress(BeyondEndError):  # it is empty
            self.read_into(bytearray(), 0, 1)

    def read_into(self, data: bytearray, offset: int, size: int) -> None:
        if self.known and not self.streams:
            self._get(data, offset, size)
            return
        with self._lock:
            self._get(data, offset, size)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _get(self, data: bytearray, offset: int, size: int) -> None:
        if self.streams:
            self._read_on(data, offset, size)
            return
        answer = self._ask({"Range": f"bytes={offset}-{offset + size - 1}"})
        try:
            if answer.status_code == 416:
                self.note(_total(answer), self.version if self.known else _version(answer))
                raise BeyondEndError
            if answer.status_code == 206:
                self._note(answer, _total(answer))
                for piece in answer.iter_raw():
                    data += piece
                return
            self.streams = True
            self._begin(answer)
            answer = None  # it stays open
        finally:
            if answer is not None:
                answer.close()
        self._read_on(data, offset, size)

    def _ask(self, headers: dict[str, str]) -> Any:  # noqa: ANN401
        self.requests += 1
        client, seconds = _client(), current_patience().timeout_s
        headers = {**self._headers, "Accept-Encoding": "identity", **headers}
        request = client.build_request("GET", self._url, headers=headers, timeout=seconds)
        answer = client.send(request, stream=True)
        if answer.status_code >= 400 and answer.status_code != 416:
            answer.close()
            if answer.status_code in (404, 410):
                raise FileNotFoundError(public_url(self._url))
            raise AnswerError(answer)
        return answer

    def _note(self, answer: Any, size: int | None) -> None:  # noqa: ANN401
        self.note(size, _version(answer))
        with contextlib.suppress(KeyError, ValueError):
            self.modified = parsedate_to_datetime(answer.headers["Last-Modified"]).timestamp()

    def _begin(self, answer: Any) -> None:  # noqa: ANN401
        """Take an answer with the whole file as the one that is read."""
        size = answer.headers.get("Content-Length")
        self._note(answer, int(size) if size else None)
        self._stream, self._position, self._rest = answer, 0, b""
        self._pieces = answer.iter_raw()

    def _read_on(self, data: bytearray, offset: int, size: int) -> None:
        if self._stream is not None and offset < self._position:
            self.close()
        if self._stream is None:
            self._begin(self._ask({}))
        try:
            while self._position < offset + size:
                piece = self._rest or next(self._pieces, b"")
                if not piece:
                    break
                if self._position >= offset:
                    part = piece[: offset + size - self._position]
                    data += part
                else:
                    part = piece[: offset - self._position]
                self._position += len(part)
                self._rest = piece[len(part) :]
        except BaseException:
            self.close()
            raise


@cache
def _client() -> httpx2.Client:
    """Return the connections of this process to web servers."""
    return httpx2.Client(
        follow_redirects=True, limits=httpx2.Limits(max_connections=None, max_keepalive_connections=64)
    )


def _headers_of(options: Options) -> dict[str, str]:
    """Return the headers among the options.

    Raises:
        ConfigurationError: There are others.
    """
    inner = options.get("client_kwargs", {})
    unknown = ({*options} - {"headers", "client_kwargs"}) | ({*inner} - {"headers"})
    if unknown:
        names = ", ".join(sorted(unknown))
        raise ConfigurationError(f"https:// cannot be used with these storage options: there is no option {names}")
    return {**inner.get("headers", {}), **options.get("headers", {})}


def _total(answer: Any) -> int | None:  # noqa: ANN401
    match = re.search(r"/(\d+)$", answer.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _version(answer: Any) -> str:  # noqa: ANN401
    headers = answer.headers
    return str(headers.get("ETag") or headers.get("Last-Modified") or "").strip('"')
