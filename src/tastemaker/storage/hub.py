"""Repositories of the Hugging Face hub: each listing and each byte is of one commit, and no request waits for ever.

huggingface_hub's own file system asks for "main" each time, lists without a timeout, and tries again by itself. Its
token (``HF_TOKEN``, or what `hf auth login` saved) and endpoint (``HF_ENDPOINT``) are used here.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

import httpx2
from huggingface_hub import constants, get_token

from tastemaker.errors import ConfigurationError
from tastemaker.storage.place import Entry, Watch
from tastemaker.storage.ranges import BeyondEndError
from tastemaker.storage.remote import ReadOnlyPlace, or_none
from tastemaker.storage.retries import persist
from tastemaker.storage.web import AnswerError, WebRanges, send

_PLACE = re.compile(
    r"(?P<root>(?:(?P<kind>models|datasets|spaces)/)?(?P<repo>(?!(?:models|datasets|spaces)/)[^/@]+/[^/@]+)"
    r"(?:@(?P<revision>refs/(?:convert|pr)/[^/]+|[^/]+))?)(?:/(?P<path>.*))?"
)
_COMMIT = re.compile("[0-9a-f]{40}")
_EXPIRED = (401, 403, 404, 410)
"""Status of the answer if an address that the hub gave is no longer valid."""


class HubPath(NamedTuple):
    """A path on the hub: the repository, its revision as the user wrote it, and the path in it."""

    root: str
    kind: str
    repo: str
    revision: str
    path: str

    @property
    def title(self) -> str:
        """What the repository is called in errors: ``dataset owner/name``."""
        return f"{self.kind.removesuffix('s')} {self.repo}"


class HubPlace(ReadOnlyPlace):
    """A file or folder of a repository on the hub."""

    def stat(self) -> Entry | None:
        hub, path = self._open()
        item = persist(f"{self} cannot be looked at", lambda: or_none(lambda: hub.find(path)), self.address)
        return None if item is None or item["type"] != "file" else self._entry(path.root, item)

    def list(self, *, recursive: bool = True, watch: Watch = iter) -> list[Entry]:
        hub, path = self._open()
        found = persist(
            f"{self} cannot be listed",
            lambda: or_none(lambda: list(watch(hub.list(path, recursive=recursive)))),
            self.address,
        )
        entries = [self._entry(path.root, item) for item in found or [] if item["type"] == "file"]
        return sorted(entries, key=lambda entry: entry.place.address)

    def open_ranges(self) -> HubRanges:
        return HubRanges(self.address, *self._open())

    def pinned(self) -> HubPlace:
        hub, path = self._open()
        kind = "" if path.kind == "models" else f"{path.kind}/"
        return self.at_url(f"hf://{kind}{path.repo}@{hub.commit_of(path)}/{path.path}")

    def refusal(self) -> ConfigurationError:
        return ConfigurationError(
            f"{self}: results are not written to the hub, where each file would be a commit; write them to a folder or "
            "s3://, gs://, ..., then `hf upload OWNER/NAME FOLDER . --repo-type dataset`"
        )

    def _open(self) -> tuple[Hub, HubPath]:
        hub = open_hub(**self.options)
        return hub, hub.locate(self.address)

    def _entry(self, root: str, item: dict[str, Any]) -> Entry:
        return Entry(self.at_url(f"hf://{root}/{item['path']}"), item["size"], 0.0, item["version"])


def open_hub(endpoint: str | None = None, token: str | bool | None = None, **others: object) -> Hub:
    """Return the hub at an address, as a user with this token sees it; one until `forget` is called.

    Without an address it is that of ``HF_ENDPOINT``, else the public one.

    Raises:
        ConfigurationError: There are other options.
    """
    if others:
        names = ", ".join(sorted(others))
        raise ConfigurationError(f"hf:// cannot be used with these storage options: there is no option {names}")
    endpoint = endpoint or constants.ENDPOINT
    return _hubs.setdefault((endpoint, token), Hub(endpoint, token))


_hubs: dict[tuple[str, str | bool | None], Hub] = {}


def forget() -> None:
    """Forget which commits branches point to: the next question asks for them again."""
    _hubs.clear()


class Hub:
    """The hub's repositories, for reading.

    What a branch or tag points to is asked once and holds until `forget`, so listings and the reads after them are
    of the same commit.

    Args:
        endpoint: Address of the hub.
        token: None for ``HF_TOKEN`` or the saved one; False for none.
    """

    def __init__(self, endpoint: str, token: str | bool | None = None) -> None:
        self.endpoint = endpoint.rstrip("/")
        self.token = token
        self._commits: dict[tuple[str, str, str], str] = {}
        self._entries: dict[tuple[str, str, str, str], dict[str, Any]] = {}  # also by commit
        self._lock = threading.Lock()

    def locate(self, url: str) -> HubPath:
        """Return where a URL lies.

        Raises:
            ConfigurationError: It names no repository.
        """
        path = url.partition("://")[2].strip("/")
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
        """Return the commit that a revision points to. It stays the same until `forget`."""
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

    def find(self, place: HubPath) -> dict[str, Any] | None:
        """Return path, size, type and version of a file or folder; None if there is none."""
        commit = self.commit_of(place)
        if not place.path:
            return None
        key = (place.kind, place.repo, commit, place.path)
        if key not in self._entries:
            asked = {"paths": [place.path], "expand": False}
            for item in self._ask(place, "POST", f"paths-info/{commit}", data=asked).json():
                self._note(place, commit, item)
        return self._entries.get(key)

    def list(self, place: HubPath, *, recursive: bool) -> Iterator[dict[str, Any]]:
        """Yield the files and folders below a folder."""
        commit = self.commit_of(place)
        where = f"tree/{commit}" + (f"/{quote(place.path, safe='')}" if place.path else "")
        params: Any = {"recursive": recursive, "expand": False}
        while True:
            answer = self._ask(place, "GET", where, params=params)
            for item in answer.json():
                yield self._note(place, commit, item)
            following = answer.links.get("next", {}).get("url", "")
            if not following:
                return
            params = urlsplit(following).query  # not its host, which may be another that must not see the token

    def resolve_url(self, place: HubPath, commit: str) -> str:
        """Return the address of a file's bytes."""
        kind = "" if place.kind == "models" else f"{place.kind}/"
        return f"{self.endpoint}/{kind}{place.repo}/resolve/{commit}/{quote(place.path)}"

    def headers(self) -> dict[str, str]:
        """Return the headers of each request to the hub, with the token.

        The library's own headers are not taken: to make them it may ask the public hub what program this is.

        Raises:
            ConfigurationError: No request is to be made at all.
        """
        if constants.HF_HUB_OFFLINE:
            raise ConfigurationError("the hub is not asked while HF_HUB_OFFLINE is set")
        is_own = self.endpoint == constants.ENDPOINT.rstrip("/")  # another hub does not get the token of the usual one
        wanted = self.token or (self.token is None and is_own and not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN)
        token = self.token if isinstance(self.token, str) else get_token() if wanted else None
        return {"User-Agent": "tastemaker"} | ({"Authorization": f"Bearer {token.strip()}"} if token else {})

    def _note(self, place: HubPath, commit: str, item: dict[str, Any]) -> dict[str, Any]:
        version = (item.get("lfs") or {}).get("oid") or item.get("oid", "")
        entry = {"path": item["path"], "size": item.get("size", 0), "type": item["type"], "version": version}
        self._entries[place.kind, place.repo, commit, item["path"]] = entry
        return entry

    def _ask(self, place: HubPath, method: str, where: str, **arguments: Any) -> httpx2.Response:  # noqa: ANN401
        url = f"{self.endpoint}/api/{place.kind}/{place.repo}/{where}"
        with contextlib.closing(send(url, self.headers(), method=method, **arguments)) as answer:
            answer.read()
        check_answer(answer, place)
        return answer


class HubRanges(WebRanges):
    """A file of the hub. Its commit is looked up once; large files are read where the hub sends the first request."""

    def __init__(self, url: str, hub: Hub, place: HubPath) -> None:
        super().__init__(url)
        self._hub, self._place = hub, place
        self._elsewhere = ""  # the signed address that the hub gave, good for an hour or so
        self._looking = threading.Lock()

    def look(self) -> None:
        """Find out commit, size and version."""
        with self._looking:
            if self.known:
                return
            commit = self._hub.commit_of(self._place)
            item = self._hub.find(self._place._replace(revision=commit))
            if item is None:
                raise FileNotFoundError(self._place.path)
            if item["type"] == "directory":
                raise IsADirectoryError(f"{self._place.path} is a folder")
            self.address = self._hub.resolve_url(self._place, commit)
            self.note(item["size"], item["version"])

    def read_into(self, data: bytearray, offset: int, size: int) -> None:
        self.look()
        size = min(size, (self.size or 0) - offset)
        if size <= 0:
            raise BeyondEndError
        super().read_into(data, offset, size)

    def ask(self, headers: dict[str, str]) -> httpx2.Response:
        """See `WebRanges.ask`. The server that gave bytes before is asked first, unless its address has run out."""
        answer = None
        try:
            if self._elsewhere:
                answer = send(self._elsewhere, headers, named=self._hub.endpoint)
            if answer is not None and answer.status_code in _EXPIRED:
                answer.close()
                answer = None
            if answer is None:
                answer = send(self.address, self._hub.headers() | headers)
            check_answer(answer, self._place)
        except BaseException:
            self._elsewhere = ""
            if answer is not None:
                answer.close()
            raise
        if urlsplit(str(answer.url)).netloc != urlsplit(self._hub.endpoint).netloc:
            self._elsewhere = str(answer.url)
        return answer

    def take_note(self, answer: httpx2.Response, size: int | None) -> None:
        self.note(size, self.version)  # that of an answer is none of the hub's


def check_answer(answer: httpx2.Response, place: HubPath) -> None:
    """Raise an error if the hub refused a request.

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
