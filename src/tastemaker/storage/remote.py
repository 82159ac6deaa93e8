"""Places behind a URL: what object stores, web servers and the Hugging Face hub have in common."""

from __future__ import annotations

import io
import posixpath
import re
import uuid
from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeVar, cast

from tastemaker.errors import ConfigurationError
from tastemaker.storage import canonical_url, is_pattern, options_for, public_url, relative_to
from tastemaker.storage.drafts import draft_folder
from tastemaker.storage.inputs import without_results
from tastemaker.storage.place import Entry, Place, Watch
from tastemaker.storage.ranges import RangesFile, RemoteRanges
from tastemaker.storage.unfinished import DRAFT_PREFIX, Draft

T = TypeVar("T")

_BUFFER_BYTES = 2**22
_ALL = 2**62


class RemotePlace(Place):
    """A URL, with the options of its store."""

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.address = url
        self.options = options_for(url, options)

    @abstractmethod
    def send(self, draft: Path) -> None:
        """Upload a local file to this place."""

    def at_url(self, url: str) -> Self:
        """Return another place of the same kind, with the same options."""
        place = type(self).__new__(type(self))
        place.address, place.options = url, self.options
        return place

    @property
    def local_path(self) -> None:
        return None

    def __str__(self) -> str:
        return public_url(self.address)

    def _key(self) -> str:
        return canonical_url(self.address).rstrip("/")

    @property
    def name(self) -> str:
        return posixpath.basename(str(self).rstrip("/"))

    @property
    def parent(self) -> Place:
        return self.at_url(public_url(self.address).rstrip("/").rpartition("/")[0])

    def __truediv__(self, below: str) -> Place:
        return self.at_url(f"{public_url(self.address).rstrip('/')}/{below}")

    @property
    def is_pattern(self) -> bool:
        return is_pattern(self.address)

    def resolve(self) -> Place:
        return self

    def is_folder(self) -> bool:
        return bool(self.list())

    def list_inputs(self, watch: Watch = iter) -> list[Entry]:
        hidden = re.compile(r"(^|/)\.").search
        entries = without_results(self.list(watch=watch), self.address)
        names = [relative_to(entry.path, self.address) for entry in entries]
        return [
            entry._replace(passed_over="hidden file") if hidden(name) and not entry.is_folder else entry
            for entry, name in zip(entries, names, strict=True)
        ]

    def glob(self, watch: Watch = iter) -> list[Entry]:
        from fsspec.utils import glob_translate

        fixed, pattern = re.match(r"(.*?://[^*?\[]*/)?(.*)", self.address, re.DOTALL).groups()  # type: ignore[union-attr]
        fits = re.compile(glob_translate(pattern)).match
        entries = self.at_url(fixed).list(recursive="/" in pattern or "**" in pattern, watch=watch)
        return [entry for entry in entries if fits(entry.place.address.removeprefix(fixed))]

    def open(self) -> BinaryIO:
        file = self.open_ranges()
        file.size_bytes()  # says so where there is none
        return cast("BinaryIO", io.BufferedReader(RangesFile(file), _BUFFER_BYTES))

    @abstractmethod
    def open_ranges(self) -> RemoteRanges: ...

    def read(self, max_bytes: int | None = None) -> bytes:
        with closing(self.open_ranges()) as file:
            return file.read_at(0, (file.size_bytes() or _ALL) if max_bytes is None else max_bytes)

    def draft(self, beside: Place | None = None) -> Draft:
        return Draft(draft_folder() / f"{DRAFT_PREFIX}{uuid.uuid4().hex[:12]}", self._send_draft)

    def _send_draft(self, draft: Path) -> None:
        self.send(draft)
        draft.unlink()

    def remove_drafts(self) -> None:
        """Delete those on this machine, where drafts of remote files lie."""
        draft_folder()


class ReadOnlyPlace(RemotePlace):
    """A read-only URL."""

    @abstractmethod
    def refusal(self) -> ConfigurationError:
        """Return the error that says why nothing can be written."""

    def _refuse(self, *_args: object, **_options: object) -> Any:  # noqa: ANN401 - it never returns
        raise self.refusal()

    check_writable = send = draft = write = delete = make_folder = lock = _refuse


def or_none(work: Callable[[], T]) -> T | None:
    """Return the result of ``work``, None where there is no such file."""
    try:
        return work()
    except FileNotFoundError:
        return None
