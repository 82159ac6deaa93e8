"""Repositories of the Hugging Face hub: each listing and each byte is of one commit, and no request waits for ever.

huggingface_hub's own file system asks for "main" each time, lists without a timeout, and tries again by itself. Its
session, token (``HF_TOKEN``, or what `hf auth login` saved) and endpoint (``HF_ENDPOINT``) are used here.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from fsspec.spec import AbstractBufferedFile, AbstractFileSystem
from huggingface_hub import constants, get_session, get_token

from tastemaker.errors import ConfigurationError
from tastemaker.storage.objects import RemoteFile
from tastemaker.storage.retries import current_patience
from tastemaker.storage.sources import AnyObject, BeyondEndError, ChangedError

_PLACE = re.compile(
    r"(?P<root>(?:(?P<kind>models|datasets|spaces)/)?(?P<repo>(?!(?:models|datasets|spaces)/)[^/@]+/[^/@]+)"
    r"(?:@(?P<revision>refs/(?:convert|pr)/[^/]+|[^/]+))?)(?:/(?P<path>.*))?"
)
_COMMIT = re.compile("[0-9a-f]{40}")
_EXPIRED = (401, 403, 404, 410)
"""What a server of large files answers once an address that the hub gave has run out."""


class HubPath(NamedTuple):
    """Where a path lies: the repository with its revision as it was written, and the path in it."""

    root: str
    kind: str
    repo: str
    revision: str
    path: str

    @property
    def title(self) -> str:
        """What the repository is called in errors: ``dataset owner/name``."""
        return f"{self.kind.removesuffix('s')} {self.repo}"


class AnswerError(OSError):
    """An answer that says no.

    Attributes:
        status: Of HTTP.
        headers: May say when to come back.
    """

    def __init__(self, answer: Any) -> None:  # noqa: ANN401 - httpx or its successor
        reason = answer.headers.get("X-Error-Message") or answer.reason_phrase
        super().__init__(f"status {answer.status_code} {reason}".strip())
        self.status: int = answer.status_code
        self.headers = dict(answer.headers)


class HubSystem(AbstractFileSystem):  # type: ignore[misc]
    """An fsspec file system of the hub's repositories, for reading.

    What a branch or tag points to is asked once and holds until `look_anew`, so listings and the reads after them are
    of the same commit. `invalidate_cache` does nothing: a commit does not change.

    Args:
        endpoint: Address of the hub; None for ``HF_ENDPOINT``, else the public one.
        token: None for ``HF_TOKEN`` or the saved one; False for none.
    """

    protocol = "hf"
    root_marker = ""
    cachable = False

    def __init__(self, endpoint: str | None = None, token: str | bool | None = None, **options: Any) -> None:  # noqa: ANN401
        super().__init__(**options)
        self.endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        self.token = token
        self._commits: dict[tuple[str, str, str], str] = {}
        self._entries: dict[tuple[str, str, str, str], dict[str, Any]] = {}  # also by commit
        self._lock = threading.Lock()

    def look_anew(self) -> None:
        """Look anew, at the next question, what branches point to."""
        self._commits.clear()
        self._entries.clear()

    def locate(self, path: str) -> HubPath:
        """Return where a path lies.

        Raises:
            ConfigurationError: It names no repository.
        """
        path = self._strip_protocol(path)
        match = _PLACE.fullmatch(path)
        if match is None or path.startswith("buckets/"):
            raise ConfigurationError(
                f"hf://{path} names no repository: hf://datasets/OWNER/NAME/PATH or hf://OWNER/NAME/PATH (a model) "
                "is needed, a revision as NAME@REVISION; storage buckets are not read"
            )
        revision = unquote(match["revision"] or constants.DEFAULT_REVISION)
        return HubPath(
            match["root"], match["kind"] or "models", match["repo"], revision, (match["path"] or "").strip("/")
        )

    def commit_of(self, place: HubPath) -> str:
        """Return the commit that a place's revision points to; the same until `look_anew`."""
        if _COMMIT.fullmatch(place.revision):
            return place.revision
        key = (place.kind, place.repo, place.revision)
        with self._lock:
            if key not in self._commits:
                where = f"revision/{quote(place.revision, safe='')}"
                found = self._ask(place, "GET", where, params={"expand": ["sha", "gated"]}).json()
                if found.get("gated"):  # all can list it, and only some can read it
                    self._ask(place, "GET", "auth-check")
                self._commits[key] = str(found["sha"])
            return self._commits[key]

    def info(self, path: str, **_: Any) -> dict[str, Any]:  # noqa: ANN401
        """Return name, size, type and ``blob_id`` of a file or folder.

        Raises:
            FileNotFoundError: There is none.
        """
        place = self.locate(path)
        commit = self.commit_of(place)
        if not place.path:
            return {"name": place.root, "size": 0, "type": "directory"}
        known = self._entries.get((place.kind, place.repo, commit, place.path))
        if known is None:
            asked = {"paths": [place.path], "expand": False}
            for item in self._ask(place, "POST", f"paths-info/{commit}", data=asked).json():
                known = self._note(place, commit, item)
        if known is None:
            raise FileNotFoundError(place.path)
        return {**known, "name": f"{place.root}/{place.path}"}

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:  # noqa: ANN401
        """Return what is in a folder itself."""
        place = self.locate(path)
        try:
            found = list(self._list(place, recursive=False))
        except FileNotFoundError:
            found = [self.info(path)]  # a file
        return found if detail else [entry["name"] for entry in found]

    def find(self, path: str, maxdepth: int | None = None, withdirs: bool = False, **options: Any) -> Any:  # noqa: ANN401
        """Return all that is below a folder, by name."""
        place = self.locate(path)
        below = len(place.path.split("/")) if place.path else 0
        found = {}
        for entry in self._list(place, recursive=maxdepth != 1):
            depth = entry["name"].removeprefix(place.root).count("/") - below
            if (withdirs or entry["type"] == "file") and (maxdepth is None or depth <= maxdepth):
                found[entry["name"]] = entry
        return found if options.get("detail") else sorted(found)

    def modified(self, _path: str) -> datetime:
        """Return the same for all: what is read is of one commit."""
        return datetime.fromtimestamp(0, UTC)

    def resolve_url(self, place: HubPath, commit: str) -> str:
        """Return the address of a file's bytes."""
        kind = "" if place.kind == "models" else f"{place.kind}/"
        return f"{self.endpoint}/{kind}{place.repo}/resolve/{commit}/{quote(place.path)}"

    def headers(self) -> dict[str, str]:
        """Return what goes with each request to the hub, the token among it.

        The library's own headers are not taken: to make them it may ask the public hub what program this is.

        Raises:
            ConfigurationError: No request is to be made at all.
        """
        if constants.HF_HUB_OFFLINE:
            raise ConfigurationError("the hub is not asked while HF_HUB_OFFLINE is set")
        wanted = self.token is not False and (self.token is not None or not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN)
        token = self.token if isinstance(self.token, str) else get_token() if wanted else None
        return {"User-Agent": "tastemaker"} | ({"Authorization": f"Bearer {token.strip()}"} if token else {})

    def _open(self, path: str, mode: str = "rb", **options: Any) -> AbstractBufferedFile:  # noqa: ANN401
        if mode != "rb":
            raise NotImplementedError("hf:// is for reading")
        options.pop("autocommit", None)
        return _HubFile(self, path, **options)

    def _list(self, place: HubPath, *, recursive: bool) -> Iterator[dict[str, Any]]:
        commit = self.commit_of(place)
        where = f"tree/{commit}" + (f"/{quote(place.path, safe='')}" if place.path else "")
        params: Any = {"recursive": recursive, "expand": False}
        while True:
            answer = self._ask(place, "GET", where, params=params)
            for item in answer.json():
                yield {**self._note(place, commit, item), "name": f"{place.root}/{item['path']}"}
            following = answer.links.get("next", {}).get("url", "")
            if not following:
                return
            params = urlsplit(following).query  # not its host, which may be another that must not see the token

    def _note(self, place: HubPath, commit: str, item: dict[str, Any]) -> dict[str, Any]:
        version = (item.get("lfs") or {}).get("oid") or item.get("oid", "")
        entry = {"size": item.get("size", 0), "type": item["type"], "blob_id": version}
        self._entries[place.kind, place.repo, commit, item["path"]] = entry
        return entry

    def _ask(self, place: HubPath, method: str, where: str, **arguments: Any) -> Any:  # noqa: ANN401
        url = f"{self.endpoint}/api/{place.kind}/{place.repo}/{where}"
        seconds = current_patience().timeout_s
        answer = get_session().request(method, url, headers=self.headers(), timeout=seconds, **arguments)
        check_answer(answer, place)
        return answer


class HubObject(AnyObject):
    """A file of the hub. Its commit is looked up once; large files are read where the hub sends the first request."""

    system: HubSystem

    def __init__(self, system: HubSystem, path: str) -> None:
        super().__init__(system, path)
        self._place = system.locate(path)
        self._url = ""
        self._elsewhere = ""  # the signed address that the hub gave, good for an hour or so
        self._lock = threading.Lock()

    def look(self) -> None:
        """Find out commit, size and version."""
        with self._lock:
            if self.known:
                return
            commit = self.system.commit_of(self._place)
            info = self.system.info(self._place.root.partition("@")[0] + f"@{commit}/{self._place.path}")
            if info["type"] == "directory":
                raise IsADirectoryError(f"{self.path} is a folder")
            self._url = self.system.resolve_url(self._place, commit)
            self.note(info["size"], info["blob_id"])

    def read_into(self, data: bytearray, offset: int, size: int) -> None:
        """Append bytes from ``offset``; on an error those that had come are in ``data``."""
        self.look()
        size = min(size, (self.size or 0) - offset)
        if size <= 0:
            raise BeyondEndError
        if not self._read_elsewhere(data, offset, size):
            self._get(self._url, self.system.headers(), data, offset, size)

    def _read_elsewhere(self, data: bytearray, offset: int, size: int) -> bool:
        """Return False where the hub has to be asked (again) where the bytes are."""
        elsewhere, is_done = self._elsewhere, False
        try:
            is_done = bool(elsewhere) and self._get(elsewhere, {}, data, offset, size)
        finally:
            if not is_done and self._elsewhere == elsewhere:
                self._elsewhere = ""
        return is_done

    def _get(self, url: str, headers: dict[str, str], data: bytearray, offset: int, size: int) -> bool:
        """Return False where the address has run out."""
        self.requests += 1
        wanted = {"Range": f"bytes={offset}-{offset + size - 1}", "Accept-Encoding": "identity"}
        seconds = current_patience().timeout_s
        with get_session().stream("GET", url, headers=headers | wanted, timeout=seconds) as answer:
            if not headers and answer.status_code in _EXPIRED:
                return False
            check_answer(answer, self._place)
            if answer.history and urlsplit(str(answer.url)).netloc != urlsplit(self.system.endpoint).netloc:
                self._elsewhere = str(answer.url)
            skipped = self._find_start(answer, offset)
            end = len(data) + size
            for piece in answer.iter_bytes():
                data += piece[skipped : skipped + end - len(data)]
                skipped = max(0, skipped - len(piece))
                if len(data) >= end:
                    break
        return True

    def _find_start(self, answer: Any, offset: int) -> int:  # noqa: ANN401
        """Return how many bytes of an answer lie before ``offset``: all, where it ignores ranges.

        Raises:
            ChangedError: It is not of the file that was looked at.
        """
        part = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
        start, total = (int(part[1]), int(part[2])) if part else (0, answer.headers.get("Content-Length", self.size))
        if int(total) != self.size or start > offset:
            raise ChangedError
        return offset - start


class _HubFile(AbstractBufferedFile):  # type: ignore[misc]
    """A file as libraries read it, with the program's tries."""

    def __init__(self, system: HubSystem, path: str, **options: Any) -> None:  # noqa: ANN401
        self._remote = RemoteFile(f"hf://{path}", source=HubObject(system, path))
        super().__init__(system, path, size=self._remote.size_bytes(), **options)

    def _fetch_range(self, start: int, end: int) -> bytes:
        return self._remote.read_at(start, end - start)


def check_answer(answer: Any, place: HubPath) -> None:  # noqa: ANN401
    """Raise unless an answer brings what was asked for.

    Raises:
        ConfigurationError: The repository, its revision or the token is not as it has to be; it says what to do.
        FileNotFoundError: There is no such path.
        AnswerError: Anything else.
    """
    if answer.status_code < 400:
        return
    code, message = answer.headers.get("X-Error-Code", ""), answer.headers.get("X-Error-Message", "")
    if "Invalid credentials" in message:
        raise ConfigurationError("the hub does not know the token (HF_TOKEN, or that of the storage options)")
    if code == "GatedRepo":
        raise ConfigurationError(f"{place.title} is gated: accept its conditions on its page, and set HF_TOKEN")
    if code == "RevisionNotFound":
        raise ConfigurationError(f"{place.title} has no revision {place.revision!r}")
    if code == "RepoNotFound" or answer.status_code == 401:
        raise ConfigurationError(
            f"there is no {place.title}, or it is private: set HF_TOKEN to a token that may read it"
        )
    if answer.status_code == 404:
        raise FileNotFoundError(place.path)
    raise AnswerError(answer)
