"""Places on web servers: files that are named one by one."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import threading
import uuid
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.request import getproxies, proxy_bypass

import httpcore2
import httpx2

from tastemaker.errors import ConfigurationError
from tastemaker.storage import Options, public_url
from tastemaker.storage.drafts import draft_folder
from tastemaker.storage.place import Entry, Watch
from tastemaker.storage.ranges import BeyondEndError, RemoteRanges
from tastemaker.storage.remote import ReadOnlyPlace
from tastemaker.storage.retries import current_patience, persist

_MAX_REDIRECTS = 10
_MAX_IDLE = 64
"""Connections that are kept open for the next request."""


class AnswerError(OSError):
    """The server refused a request.

    Attributes:
        status: Of HTTP.
        headers: May say when to come back.
    """

    def __init__(self, answer: httpx2.Response) -> None:
        reason = answer.headers.get("X-Error-Message") or answer.reason_phrase
        super().__init__(f"status {answer.status_code} {reason}".strip())
        self.status: int = answer.status_code
        self.headers = dict(answer.headers)


class WebPlace(ReadOnlyPlace):
    """A file of a web server. There are no folders."""

    def stat(self) -> Entry | None:
        file = self.open_ranges()
        try:
            persist(f"{self} cannot be looked at", file.look, self.address)
        except FileNotFoundError:
            return None
        return Entry(self, file.size or 0, file.modified, file.version)

    def is_folder(self) -> bool:
        return False

    def list_inputs(self, watch: Watch = iter) -> list[Entry]:
        return self.list() if self.address.endswith("/") else []

    def list(self, *, recursive: bool = True, watch: Watch = iter) -> list[Entry]:
        raise ConfigurationError(f"{self}: a web server has no list of its files; name each file")

    def open_ranges(self) -> WebRanges:
        return WebRanges(self.address, _headers_of(self.options))

    def refusal(self) -> ConfigurationError:
        return ConfigurationError(f"{self}: results cannot be written to a web server; use s3://, gs://, ...")


class WebRanges(RemoteRanges):
    """Reads a file in ranges. Where a server has none, it is fetched whole, into a temporary file.

    Attributes:
        address: Where it is asked for.
    """

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(url)
        self.address = url
        self._headers = headers or {}
        self._whole: Path | None = None
        self._lock = threading.Lock()

    def look(self) -> None:
        """Find out size and version from the answer to a request for one byte, whose body is left alone."""
        with contextlib.suppress(BeyondEndError), contextlib.closing(self._ask_range(0, 1)):
            pass

    def read_into(self, data: bytearray, offset: int, size: int) -> None:
        if self._whole is None:
            with contextlib.closing(self._ask_range(offset, size)) as answer:
                if answer.status_code == 206:
                    for piece in answer.iter_raw():
                        data += piece
                    return
                self._fetch_whole(answer)
        data += self._read_whole(offset, size)

    def close(self) -> None:
        if self._whole is not None:
            self._whole.unlink(missing_ok=True)

    def ask(self, headers: dict[str, str]) -> httpx2.Response:
        """Return the answer to a request for the file, its body not read yet.

        Raises:
            FileNotFoundError: There is no such file.
            AnswerError: The server refuses.
        """
        answer = send(self.address, self._headers | headers)
        if answer.status_code >= 400 and answer.status_code != 416:
            answer.close()
            if answer.status_code in (404, 410):
                raise FileNotFoundError(public_url(self.address))
            raise AnswerError(answer)
        return answer

    def take_note(self, answer: httpx2.Response, size: int | None) -> None:
        """Take down what an answer says of the file; see `note`."""
        self.note(size, _version(answer))
        with contextlib.suppress(KeyError, ValueError):
            self.modified = parsedate_to_datetime(answer.headers["Last-Modified"]).timestamp()

    def _ask_range(self, offset: int, size: int) -> httpx2.Response:
        """Return an answer with a part of the file, or, from a server without ranges, with all of it."""
        answer = self.ask({"Range": f"bytes={offset}-{offset + size - 1}"})
        try:
            if answer.status_code == 416:
                self.note(_total(answer), self.version if self.known else _version(answer))
                raise BeyondEndError
            length = answer.headers.get("Content-Length")
            whole = int(length) if length else None
            self.take_note(answer, _total(answer) if answer.status_code == 206 else whole)
        except BaseException:
            answer.close()
            raise
        return answer

    def _fetch_whole(self, answer: httpx2.Response) -> None:
        """Store the body, which is the whole file. Later reads use this copy."""
        path = draft_folder() / uuid.uuid4().hex
        with path.open("wb") as file:
            for piece in answer.iter_raw():
                file.write(piece)
        with self._lock:
            self._whole, unused = path, self._whole  # other threads may have asked, too
        if unused is not None:
            unused.unlink()

    def _read_whole(self, offset: int, size: int) -> bytes:
        assert self._whole is not None
        with self._whole.open("rb") as file:
            file.seek(offset)
            return file.read(size)


def send(
    url: str,
    headers: dict[str, str],
    *,
    named: str = "",
    method: str = "GET",
    **content: Any,  # noqa: ANN401 - what httpx2 takes
) -> httpx2.Response:
    """Return the answer to a request, before its body is read. It fails if no byte comes for too long.

    Where the server says that the file lies elsewhere, the answer is that one's. It gets no header but the range.

    Args:
        url: Where to.
        headers: For that server.
        named: The URL that the user named, if it is another one.
        method: Of HTTP.
        content: ``params`` and ``data`` of the request.

    Raises:
        PermissionError: It would be an address of this machine or of a private network that the user did not name.
    """
    seconds, first, own = current_patience().timeout_s, httpx2.URL(url), httpx2.URL(named or url).host
    there = first.copy_merge_params(content.pop("params", {}))
    for _ in range(_MAX_REDIRECTS):
        client = _client(there.host == own, _proxy_of(there))
        is_same = (there.scheme, there.host, there.port) == (first.scheme, first.host, first.port)
        sent = {name: value for name, value in headers.items() if is_same or name == "Range"}
        sent["Accept-Encoding"] = "identity"
        request = client.build_request(method, there, headers=sent, timeout=seconds, **content)
        answer = client.send(request, stream=True)
        if not answer.has_redirect_location:
            return answer
        answer.close()
        there = there.join(answer.headers["Location"])
    raise PermissionError(f"its servers lead to each other, {_MAX_REDIRECTS} times")


class _CheckedBackend(httpcore2.SyncBackend):
    """Looks up the address of a host once, and connects to that address if the host may have it.

    Args:
        is_named: Its hosts were named by the user, and may be of a private network. What a name stands for is never
            link-local, as the addresses are where machines of a cloud are told their credentials: these have to be
            named by their number.
    """

    def __init__(self, *, is_named: bool) -> None:
        self._is_named = is_named

    def connect_tcp(self, host: str, port: int, *args: Any, **options: Any) -> httpcore2.NetworkStream:  # noqa: ANN401
        try:
            found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        except OSError as error:
            raise httpcore2.ConnectError(f"{host}: {error.strerror or error}") from error
        for address in found:
            self._check(host, address.partition("%")[0])
        *others, last = dict.fromkeys(found)
        for address in others:
            with contextlib.suppress(httpcore2.ConnectError, httpcore2.ConnectTimeout):
                return super().connect_tcp(address, port, *args, **options)
        return super().connect_tcp(last, port, *args, **options)

    def _check(self, host: str, found: str) -> None:
        address = ipaddress.ip_address(found)
        real = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None) or address
        if not (real.is_global or (self._is_named and (not real.is_link_local or host == found))):
            raise PermissionError(f"{host} is {real}, a private address that you did not name: give its own URL")


class _Direct(httpx2.HTTPTransport):
    """Connects to servers by `_CheckedBackend`. Pools of named and of other hosts share no connection."""

    def __init__(self, *, is_named: bool) -> None:
        super().__init__()
        self._pool = httpcore2.ConnectionPool(
            ssl_context=httpx2.create_ssl_context(),
            max_keepalive_connections=_MAX_IDLE,
            network_backend=_CheckedBackend(is_named=is_named),
        )


@cache
def _client(is_named: bool, proxy: str | None) -> httpx2.Client:
    """Return the connections of this process to web servers; a proxy chooses the addresses that it connects to."""
    if proxy is None:
        return httpx2.Client(transport=_Direct(is_named=is_named))
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=_MAX_IDLE)
    return httpx2.Client(proxy=proxy, limits=limits)


def _proxy_of(url: httpx2.URL) -> str | None:
    """Return the proxy for a URL, as the environment has it (``HTTPS_PROXY``, ``NO_PROXY``), None for none."""
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    return None if proxy is None or proxy_bypass(url.host) else proxy


def _headers_of(options: Options) -> dict[str, str]:
    """Return the headers among the options.

    Raises:
        ConfigurationError: There are others.
    """
    if unknown := {*options} - {"headers"}:
        names = ", ".join(sorted(unknown))
        raise ConfigurationError(f"https:// cannot be used with these storage options: there is no option {names}")
    return dict(options.get("headers", {}))


def _total(answer: httpx2.Response) -> int | None:
    match = re.search(r"/(\d+)$", answer.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _version(answer: httpx2.Response) -> str:
    headers = answer.headers
    return str(headers.get("ETag") or headers.get("Last-Modified") or "").strip('"')
