"""Files on this machine and behind URLs. `place.Place` opens, lists, writes and locks both; this module reads URLs.

No other package knows file systems and stores. The libraries of stores are imported when a URL is first used.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from tastemaker.errors import ConfigurationError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+://")
_WEB = ("http", "https")
STORE_SCHEMES = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az"}
STORE_SCHEMES["memory"] = "memory"
"""Scheme of an object store -> its usual spelling."""

_KINDS = {*STORE_SCHEMES, "hf"}
"""By which options may be named, beside URLs."""

_AZURE_ACCOUNT = re.compile(r"(?<=^az://)([^/@]+)@[^/]*")
_PASSWORD = re.compile(r"(?<=://)[^/@:]*:[^/@]*@")

STATE_FOLDER = "_tastemaker"
"""Folder for notes. Readers of a directory of Parquet files pass over names that begin with an underscore."""

SELECTION_FILE = "selection.json"
"""Note in the state folder of a folder that a selection wrote."""

Options = dict[str, Any]
"""Settings of a store, named as in fsspec; or store -> such settings. See `options_for`."""


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
    """Return the options that are meant for a URL. What they hold, such as a password, goes to no other store.

    Options are named by the kind of their store (``s3``, ``gs``, ``az``, ``hf``), or by a URL, for all that lies below
    it; the longest such URL counts. Options without names are for object stores only: web servers and the hub, which
    are shown tokens as they are, have to be named.

    Raises:
        ConfigurationError: There are options without a name, and the URL is one of a web server or the hub; or only
            some of the options are named.

    Example:
        >>> options_for("s3://b/a", {"anon": True}), options_for("s3://b/a", {"gs": {"token": "anon"}})
        ({'anon': True}, {})
        >>> options_for("https://host/a.tar", {"https://host": {"headers": {"X-Token": "1"}}})
        {'headers': {'X-Token': '1'}}
    """
    if not options:
        return {}
    named = [key for key in options if key in _KINDS or is_remote(key)]
    if not named:
        if (kind := scheme_of(url)) in STORE_SCHEMES:
            return dict(options)
        example = {"hf": {"token": "..."}} if kind == "hf" else {_server_of(url): {"headers": {"...": "..."}}}
        raise ConfigurationError(
            f"the storage options do not say that they are for {public_url(url)}: name it, {json.dumps(example)}"
        )
    if len(named) < len(options):
        raise ConfigurationError(f"storage options are named by store or not; here only {', '.join(named)} is a store")
    meant = [key for key in named if _is_meant(key, url)]
    return dict(options[max(meant, key=len)] or {}) if meant else {}


def _is_meant(key: str, url: str) -> bool:
    """Return whether options of this name are for a URL."""
    if not is_remote(key):
        return STORE_SCHEMES.get(key, key) == STORE_SCHEMES.get(scheme_of(url), scheme_of(url))
    folder = urlsplit(with_one_scheme(key)).path.rstrip("/")
    return _server_of(key) == _server_of(url) and f"{urlsplit(url).path}/".startswith(f"{folder}/")


def _server_of(url: str) -> str:
    """Return the part of a URL that says to whom a request goes: scheme, host and port; in a store, the bucket."""
    parts = urlsplit(with_one_scheme(url))
    if parts.scheme not in _WEB:
        return f"{parts.scheme}://{parts.netloc}"
    port = "" if parts.port in (None, {"http": 80, "https": 443}[parts.scheme]) else f":{parts.port}"
    host = parts.hostname or ""
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}"
