"""Files on this machine and behind URLs. `place.Place` opens, lists, writes and locks both; this module reads URLs.

No other package knows file systems and stores. The libraries of stores are imported when a URL is first used.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeVar

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+://")
_WEB = ("http", "https")
STORE_SCHEMES = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az"}
STORE_SCHEMES["memory"] = "memory"
"""Scheme of an object store -> its usual spelling."""

_AZURE_ACCOUNT = re.compile(r"(?<=^az://)([^/@]+)@[^/]*")
_PASSWORD = re.compile(r"(?<=://)[^/@:]*:[^/@]*@")

STATE_FOLDER = "_tastemaker"
"""Folder for notes. Readers of a directory of Parquet files pass over names that begin with an underscore."""

SELECTION_FILE = "selection.json"
"""Note in the state folder of a folder that a selection wrote."""

Options = dict[str, Any]
"""Settings of a store, named as in fsspec; or scheme -> such settings, if a run has URLs of several schemes."""


def is_remote(path: str | os.PathLike[str]) -> bool:
    r"""Return whether a path is a URL.

    Example:
        >>> is_remote("s3://bucket/a.tar"), is_remote("photos/a.jpg"), is_remote("C:\\a.jpg")
        (True, False, False)
    """
    return _URL.match(str(path)) is not None


def expand_path(path: str | os.PathLike[str]) -> str:
    """Return a path that a user gave, with ``~`` and environment variables replaced by what they stand for.

    A variable that is not set stays as it is, and so does a URL.
    """
    if is_remote(path):
        return str(path)
    return os.path.expanduser(os.path.expandvars(os.fspath(path)))


def scheme_of(url: str) -> str:
    """Return the scheme of a URL, in lower case."""
    return url.partition("://")[0].lower()


def canonical_url(url: str) -> str:
    """Return the one spelling that all URLs of the same place have. Compare with it, but do not read from it.

    Example:
        >>> canonical_url("s3a://bucket/a.tar"), canonical_url("abfss://box@account.dfs.core.windows.net/a.tar")
        ('s3://bucket/a.tar', 'az://box/a.tar')
    """
    return _AZURE_ACCOUNT.sub(r"\1", with_one_scheme(url))


def with_one_scheme(url: str) -> str:
    """Return a URL with the usual spelling of its scheme. An Azure account stays: it says whose container it is."""
    scheme = scheme_of(url)
    return f"{STORE_SCHEMES.get(scheme, scheme)}://{url.partition('://')[2]}"


def public_url(path: str) -> str:
    """Return a path without secrets: without the query of a web address, and without a password before the host.

    Rows, file names, logs and errors have this form. Anything that is no URL comes back as it is.

    Example:
        >>> public_url("https://me:word@host/a.tar?X-Amz-Signature=0123#top")
        'https://host/a.tar'
    """
    if not is_remote(path):
        return path
    if scheme_of(path) in _WEB:
        path = re.split(r"[?#]", path, maxsplit=1)[0]
    return _PASSWORD.sub("", path, count=1)


def is_pattern(url: str) -> bool:
    """Return whether a URL is a pattern. In a web address, a question mark begins the query."""
    return "*" in url or (not url.startswith("http") and re.search(r"[?\[]", url) is not None)


def base_name(path: str) -> str:
    """Return the last part of a local path or of a URL."""
    return posixpath.basename(public_url(path).rstrip("/")) if is_remote(path) else os.path.basename(path)


def folder_of(path: str) -> str:
    """Return the folder of a local path or of a URL."""
    return public_url(path).rstrip("/").rpartition("/")[0] if is_remote(path) else os.path.dirname(path)


class _WithPath(Protocol):
    @property
    def path(self) -> str: ...


_File = TypeVar("_File", bound=_WithPath)


def without_repeats(files: Iterable[_File]) -> list[_File]:
    """Return each file once, in the order in which they come first. Their paths must be real paths.

    Files of two Azure accounts are two, though their containers have the same name.
    """
    first: dict[str, _File] = {}
    for file in files:
        first.setdefault(with_one_scheme(file.path) if is_remote(file.path) else file.path, file)
    return list(first.values())


def relative_to(path: str, root: str) -> str:
    """Return the path below a folder, with forward slashes. A URL that is not below it comes back without its host.

    Example:
        >>> relative_to("s3://bucket/a/b.jpg", "s3a://bucket"), relative_to("/photos/b.jpg", "/photos")
        ('a/b.jpg', 'b.jpg')
    """
    if not is_remote(path):
        below = os.path.join(root, "")
        is_below = bool(root) and path.startswith(below) and f"{os.sep}." not in path
        return (path[len(below) :] if is_below else os.path.relpath(path, root or ".")).replace(os.sep, "/")
    url, folder = canonical_url(public_url(path)), canonical_url(public_url(root)).rstrip("/") + "/"
    return url.removeprefix(folder) if url.startswith(folder) else url.partition("://")[2].partition("/")[2]


def options_for(url: str, options: Mapping[str, Any] | None) -> Options:
    """Return the options that are meant for a URL.

    Example:
        >>> options_for("s3://b/a", {"anon": True}), options_for("s3://b/a", {"gs": {"token": "anon"}})
        ({'anon': True}, {})
    """
    if not options:
        return {}
    if set(options) <= {*STORE_SCHEMES, *_WEB, "hf"}:
        return dict(options.get(scheme_of(url)) or {})
    return dict(options)


_looks = 0


def look_anew(places: Iterable[str], _options: Options | None = None) -> None:
    """Forget which commits the branches of the hub point to, if one of these places is on the hub."""
    global _looks
    _looks += any(is_remote(place) and scheme_of(place) == "hf" for place in places)


def count_looks() -> int:
    """Return how often `look_anew` was called for the hub. What is known from before the last call does not count."""
    return _looks
