"""A place is a file or folder on this machine or behind a URL. The code that has one need not know which."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tastemaker.errors import ConfigurationError
from tastemaker.storage import STORE_SCHEMES, expand_path, is_remote, relative_to, scheme_of
from tastemaker.storage.ranges import Ranges
from tastemaker.storage.unfinished import Draft

_COPY_BYTES = 2**24


class Entry(NamedTuple):
    """A file as its file system or store describes it, and what it is as an input.

    Attributes:
        place: Where it is.
        size: In bytes; 0 where a web server does not say.
        modified: When it was written last, in seconds since 1970; 0 where nobody says.
        version: Another one after each change: an ETag, a generation or a checksum; empty where there is none.
        is_folder: It is a folder that fits a pattern, or one that cannot be listed, or a name that cannot be read.
        passed_over: What it is, where it is no input: a ``linked folder`` or a ``hidden folder``.
        root: Of an input, the folder that its name counts from: the one that the user named, or its own.
        is_named: The user named this very file; or it is a folder that cannot be read. It is input in any case.
        problem: Why it could not be looked at; empty where it could.
    """

    place: Place
    size: int
    modified: float = 0.0
    version: str = ""
    is_folder: bool = False
    passed_over: str = ""
    root: str = ""
    is_named: bool = False
    problem: str = ""

    @property
    def path(self) -> str:
        """The address of the place."""
        return self.place.address


Watch = Callable[[Iterable[Any]], Iterable[Any]]
"""Sees what stands for files pass while they are found, and yields it."""


class Lock(ABC):
    """The right of one process to do something, such as to write into a folder; see `Place.lock`.

    As a context manager it waits until it has the right, and gives it back at the end.
    """

    @abstractmethod
    def acquire(self, wait_s: float = 0.0) -> bool:
        """Take the lock if it is free within ``wait_s`` seconds (`math.inf`: wait for ever); return whether it was."""

    @abstractmethod
    def release(self) -> None:
        """Give the lock back; nothing happens if it is not held."""

    @abstractmethod
    def check(self) -> None:
        """Raise `ConfigurationError` if the lock was lost, which can happen in a store: its lease ran out."""

    @abstractmethod
    def is_held(self, wait_s: float = 0.0) -> bool:
        """Return whether another holder has it, and still has it after ``wait_s`` seconds."""

    @abstractmethod
    def holder(self) -> str:
        """Return who has it, ``process 7 on host``; empty where that is not known."""

    def __enter__(self) -> Self:
        self.acquire(float("inf"))
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Place(ABC):
    """A file or folder: a local path, or a URL with the options of its store. Made by `Place.of`.

    Places are compared by where they are, can be pickled (with their options), and are children of each other:

    Example:
        >>> output = Place.of("s3://bucket/out", {"key": "me", "secret": "word"})
        >>> rows = output / "rows" / "0.parquet"
        >>> str(rows), rows.name, rows.parent == output / "rows"
        ('s3://bucket/out/rows/0.parquet', '0.parquet', True)

    Attributes:
        address: The path or URL to open; it may hold secrets (a signed URL). `str` gives the form to show.
        options: Of the store; never shown. Empty for a local path.
    """

    address: str
    options: dict[str, Any]

    @staticmethod
    def of(place: str | os.PathLike[str] | Place, options: Mapping[str, Any] | None = None) -> Place:
        """Return the place that a user named.

        In a path a leading ``~`` and environment variables (``$HOME/a``) are expanded.

        Args:
            place: A local path, a ``file://`` URL, or a URL of a store, a web server or the Hugging Face hub: ``s3://``,
                ``gs://``, ``az://`` (``abfs://``), ``https://``, ``hf://``, ``memory://``. A place comes back as it is.
            options: Arguments of the store, or scheme -> such arguments. See docs/remote-data.md.
        """
        if isinstance(place, Place):
            return place
        return Place.at(expand_path(place), options)

    @staticmethod
    def at(address: str, options: Mapping[str, Any] | None = None) -> Place:
        """Return the place with exactly this address, as a listing or a row has it; nothing is expanded."""
        scheme = scheme_of(address) if is_remote(address) else "file"
        if scheme not in _KINDS:
            known = "s3://, gs://, az://, hf://, https://"
            raise ConfigurationError(f"{scheme}:// is no known kind of storage; known are {known}")
        module, name = _KINDS[scheme]
        if scheme == "file" and is_remote(address):
            address = url2pathname(urlsplit(address).path)
        made: Place = getattr(import_module(module), name)(address, options)
        return made

    @property
    @abstractmethod
    def name(self) -> str:
        """The last part of the path."""

    @property
    @abstractmethod
    def parent(self) -> Place:
        """The folder that it lies in."""

    @abstractmethod
    def __truediv__(self, below: str) -> Place:
        """Return the place below, of one or more parts: ``folder / "a/b.jpg"``."""

    def relative_to(self, folder: Place) -> str:
        """Return the path below a folder, with forward slashes."""
        return relative_to(self.address, folder.address)

    @property
    @abstractmethod
    def local_path(self) -> Path | None:
        """The path on this machine, for libraries that read nothing else; None where there is none."""

    @property
    @abstractmethod
    def is_pattern(self) -> bool:
        """Whether the address stands for all files that fit it; a path that exists stands for itself."""

    @abstractmethod
    def resolve(self) -> Place:
        """Return the same place by its real path: links to folders are resolved, and a file keeps its own name."""

    def pinned(self) -> Place:
        """Return the place that stands for what is there now; most are that themselves."""
        return self

    # What is there

    @abstractmethod
    def stat(self) -> Entry | None:
        """Return size, time and version of the file; None if there is no file (a folder is none).

        Raises:
            OSError: It cannot be asked for.
        """

    def is_file(self) -> bool:
        """Return whether there is a file."""
        return self.stat() is not None

    def is_gone(self) -> bool:
        """Return whether a file that was there before is known to be gone.

        Raises:
            OSError: It cannot be asked for.
        """
        return self.stat() is None

    @abstractmethod
    def is_folder(self) -> bool:
        """Return whether there is a folder. In a store, a folder is a prefix of names; a web server has no folders."""

    def exists(self) -> bool:
        """Return whether there is a file or a folder."""
        return self.is_file() or self.is_folder()

    @abstractmethod
    def glob(self, watch: Watch = iter) -> list[Entry]:
        """Return the files that this address fits as a pattern (``*``, ``**``, ``?``, ``[ab]``), in order.

        On this machine folders may fit, too. ``watch`` sees pass what is looked through.

        Raises:
            ConfigurationError: A web server has no listings.
            OSError: The folder cannot be listed.
        """

    @abstractmethod
    def list_inputs(self, watch: Watch = iter) -> list[Entry]:
        """Return the files in a folder and those below it that may be input, in the order of their addresses.

        Those that are hidden and those that Tastemaker wrote are left out. A folder that cannot be read, a link that
        leads nowhere, and whatever else is no file is among them, with the size 0: it is not to be passed over. Hidden
        folders, and links to folders, are among them with `Entry.passed_over`: nobody looks into them.

        Args:
            watch: Sees them pass while they are found.

        Raises:
            ConfigurationError: A web server has no listings.
            OSError: A store cannot list the folder.
        """

    @abstractmethod
    def list(self, *, recursive: bool = True, watch: Watch = iter) -> list[Entry]:
        """Return the files in a folder, in the order of their addresses; no drafts.

        A folder that is not there has none.

        Args:
            recursive: Also those in the folders below.
            watch: Sees them pass while they are found.

        Raises:
            ConfigurationError: A web server has no listings.
            OSError: The folder cannot be listed.
        """

    # Reading

    @abstractmethod
    def open(self) -> BinaryIO:
        """Return the file, open to be read from its start, and to be sought in.

        Raises:
            FileNotFoundError: There is none.
            OSError: It cannot be opened.
        """

    @abstractmethod
    def open_ranges(self) -> Ranges:
        """Return the file, open to be read by position: of a remote one each read is a request for exactly its bytes.

        Raises:
            OSError: It cannot be opened; of a remote file the first read says so.
        """

    @abstractmethod
    def read(self, max_bytes: int | None = None) -> bytes:
        """Return the bytes of the file, at most ``max_bytes``.

        Raises:
            FileNotFoundError: There is none.
            OSError: It cannot be read.
        """

    def fetch(self, target: Path, on_progress: Callable[[int], None] = lambda there: None) -> None:
        """Copy the file to a local path; a copy that was interrupted goes on.

        Args:
            target: The local path.
            on_progress: Called now and then with the bytes that are there.

        Raises:
            OSError: It cannot be read or written.
        """
        target.touch()
        with closing(self.open_ranges()) as file, target.open("r+b") as opened:
            position = opened.seek(0, os.SEEK_END)
            while data := file.read_at(position, _COPY_BYTES):
                opened.write(data)
                position += len(data)
                on_progress(position)

    # Writing

    def check_writable(self) -> None:  # noqa: B027 - most are
        """Raise an error if that kind of place is read-only. No request is made.

        Raises:
            ConfigurationError: It is on a web server or on the hub.
        """

    @abstractmethod
    def draft(self, beside: Place | None = None) -> Draft:
        """Return a local file to write, which takes this place when it is committed. Folders are made as needed.

        Args:
            beside: A place on the same disk in whose folder the draft lies; None: this one. For a store no matter.

        Raises:
            ConfigurationError: Nothing can be written to that kind of place.
        """

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Write the file whole, instead of what is there: no reader ever sees a part of it.

        Raises:
            OSError: It cannot be written.
        """

    @abstractmethod
    def delete(self) -> None:
        """Delete the file; nothing happens if there is none.

        Raises:
            OSError: It cannot be deleted.
        """

    @abstractmethod
    def remove_drafts(self) -> None:
        """Delete the drafts that killed processes left in this folder and those below it."""

    @abstractmethod
    def make_folder(self) -> None:
        """Make a folder, and check that it can be written to. Of a store, check that the bucket exists.

        Raises:
            ConfigurationError: It cannot be made or written to; there is no such bucket, or it cannot be asked.
        """

    @abstractmethod
    def lock(self) -> Lock:
        """Return the lock that this file stands for; it is not taken yet.

        On a disk the operating system holds the lock and lets go of it with the process. In a store it is a lease: a
        small object that its holder renews, and that is free a minute after its holder stopped doing so, or at once
        where that was a process of this machine that is no more.
        """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Place) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"Place({str(self)!r})"

    @abstractmethod
    def __str__(self) -> str:
        """Return the path or URL to show: no signature, no password."""

    @abstractmethod
    def _key(self) -> str:
        """Return the one spelling that all addresses of the same place have."""


_KINDS = {
    "file": ("tastemaker.storage.local", "LocalPlace"),
    "hf": ("tastemaker.storage.hub", "HubPlace"),
    **dict.fromkeys(("http", "https"), ("tastemaker.storage.web", "WebPlace")),
    **dict.fromkeys(STORE_SCHEMES, ("tastemaker.storage.objects", "StorePlace")),
}
"""Scheme -> module and class of its places. They are named, not imported, so that a URL loads only what it needs."""

AnyPlace = str | os.PathLike[str] | Place
"""What `Place.of` takes."""


def look_anew(places: Iterable[str]) -> None:
    """Forget which commits the branches of the hub point to, if one of these places is on the hub."""
    if any(is_remote(place) and scheme_of(place) == "hf" for place in places):
        import_module(_KINDS["hf"][0]).forget()
