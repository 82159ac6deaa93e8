"""Places on web servers: files that are named one by one."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import threading
import uuid
from email.utils import parsedate_to_datetime
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import httpx2

from tastemaker.errors import ConfigurationError, RemoteError
from tastemaker.storage import Options, public_url
from tastemaker.storage.drafts import draft_folder
from tastemaker.storage.place import Entry
from tastemaker.storage.ranges import BeyondEndError, RemoteRanges
from tastemaker.storage.remote import ReadOnlyPlace
from tastemaker.storage.retries import current_patience, persist

_MAX_REDIRECTS = 10


class AnswerError(OSError):
    """The server refused a request.

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
        file = self.open_ranges()
        try:
            persist(f"{self} cannot be looked at", file.look, self.address)
        except RemoteError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise
        finally:
            file.close()
        return Entry(self, file.size or 0, file.modified, file.version)

    def is_folder(self) -> bool:
        return False

    def list_inputs(self) -> list[Entry]:
        return self.list() if self.address.endswith("/") else []

    def list(self, *, recursive: bool = True) -> list[Entry]:
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

    def ask(self, headers: dict[str, str]) -> Any:  # noqa: ANN401
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

    def take_note(self, answer: Any, size: int | None) -> None:  # noqa: ANN401
        """Take down what an answer says of the file; see `note`."""
        self.note(size, _version(answer))
        with contextlib.suppress(KeyError, ValueError):
            self.modified = parsedate_to_datetime(answer.headers["Last-Modified"]).timestamp()

    def _ask_range(self, offset: int, size: int) -> Any:  # noqa: ANN401
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

    def _fetch_whole(self, answer: Any) -> None:  # noqa: ANN401
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


def send(url: str, headers: dict[str, str]) -> Any:  # noqa: ANN401
    """Return the answer to a request, before its body is read. It fails if no byte comes for too long.

    Where the server says that the file lies elsewhere, the answer is that one's. It gets no header but the range.

    Raises:
        PermissionError: It would be an address of this machine or of a private network.
    """
    client, seconds, first = _client(), current_patience().timeout_s, httpx2.URL(url)
    there = first
    for _ in range(_MAX_REDIRECTS):
        _refuse_private(there.host, first.host)
        is_same = (there.scheme, there.host, there.port) == (first.scheme, first.host, first.port)
        sent = {name: value for name, value in headers.items() if is_same or name == "Range"}
        request = client.build_request("GET", there, headers={**sent, "Accept-Encoding": "identity"}, timeout=seconds)
        answer = client.send(request, stream=True)
        if not answer.has_redirect_location:
            return answer
        answer.close()
        there = there.join(answer.headers["Location"])
    raise PermissionError(f"its servers lead to each other, {_MAX_REDIRECTS} times")


@lru_cache(1024)
def _refuse_private(host: str, named: str) -> None:
    """Raise `PermissionError` if a host is not public and the user did not name it.

    A name that the user gave may be of a private network. What it stands for is not link-local, as the addresses are
    where machines of a cloud are told their credentials: that has to be named by its number.
    """
    try:
        found = {str(entry[4][0]).partition("%")[0] for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return  # the request says so, with the name
    for address in map(ipaddress.ip_address, found):
        real = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None) or address
        is_allowed = real.is_global or (host == named and (not real.is_link_local or host.strip("[]") in found))
        if not is_allowed:
            raise PermissionError(f"{host} is {real}, a private address that you did not name: give its own URL")


@cache
def _client() -> httpx2.Client:
    """Return the connections of this process to web servers."""
    return httpx2.Client(limits=httpx2.Limits(max_connections=None, max_keepalive_connections=64))


def _headers_of(options: Options) -> dict[str, str]:
    """Return the headers among the options.

    Raises:
        ConfigurationError: There are others.
    """
    if unknown := {*options} - {"headers"}:
        names = ", ".join(sorted(unknown))
        raise ConfigurationError(f"https:// cannot be used with these storage options: there is no option {names}")
    return dict(options.get("headers", {}))


def _total(answer: Any) -> int | None:  # noqa: ANN401
    match = re.search(r"/(\d+)$", answer.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _version(answer: Any) -> str:  # noqa: ANN401
    headers = answer.headers
    return str(headers.get("ETag") or headers.get("Last-Modified") or "").strip('"')
