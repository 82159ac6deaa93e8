"""Places in object stores: S3, Google's, Azure's, and one in memory."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from tastemaker.errors import ConfigurationError, RemoteError
from tastemaker.storage.leases import Lease
from tastemaker.storage.place import Entry, Lock, Watch
from tastemaker.storage.ranges import PIECE_BYTES, BeyondEndError, ChangedError, RemoteRanges
from tastemaker.storage.remote import RemotePlace, or_none
from tastemaker.storage.retries import persist, status_of
from tastemaker.storage.stores import PART_BYTES, PARTS_AT_ONCE, open_store, split_url

T = TypeVar("T")

_METADATA_ADDRESS = "169.254.169.254"
"""The address where a machine in a cloud asks for credentials if it finds none elsewhere."""

_LISTED_AT_ONCE = 1000
"""Objects in one piece of a listing: whoever watches it sees them pass."""

_UNREADABLE = (
    "%s: an object with an empty part, '.' or '..' in its name cannot be read. Nor are others of its folder that have "
    "one, or whose names begin with a sign before the digits, such as '(' or '-'; rename them"
)

logger = logging.getLogger(__name__)


class StorePlace(RemotePlace):
    """An object, or a folder of objects."""

    def stat(self) -> Entry | None:
        if not self._name_in_bucket:
            return None
        meta = self._ask("looked at", lambda store: or_none(lambda: store.head(self._name_in_bucket)))
        return None if meta is None else self._entry(meta)

    def list(self, *, recursive: bool = True, watch: Watch = iter) -> list[Entry]:
        unreadable: set[str] = set()
        folder = self._name_in_bucket
        metas = self._ask("listed", lambda store: _list(store, folder, unreadable, watch, recursive=recursive))
        entries = [self._entry(meta) for meta in metas if not self._is_mark(meta)]
        for name in unreadable:
            _warn(str(self._at_name(name)))
            entries.append(Entry(self._at_name(name), 0, is_folder=True))
        return sorted(entries, key=lambda entry: entry.place.address)

    def _is_mark(self, meta: dict[str, Any]) -> bool:
        """Return whether an object only marks a folder, as web consoles make them. obstore drops its final slash."""
        return meta["path"] == self._name_in_bucket or (
            meta["size"] == 0 and "." not in meta["path"].rpartition("/")[2]
        )

    def is_folder(self) -> bool:
        return bool(self._ask("listed", lambda store: next(iter(store.list(self._name_in_bucket, chunk_size=1)), None)))

    def write(self, data: bytes) -> None:
        self._ask("written", lambda _: self._put(data))

    def read_version(self) -> tuple[bytes, Any] | None:
        """Return the bytes of a small object and its version for `put_if`; None if there is no object."""

        def read(store: Any) -> tuple[bytes, Any]:  # noqa: ANN401
            answer = store.get(self._name_in_bucket)
            return bytes(answer.bytes()), {key: answer.meta[key] for key in ("e_tag", "version") if answer.meta[key]}

        return self._ask("read", lambda store: or_none(lambda: read(store)))

    def put_if(self, data: bytes, version: Any) -> bool:  # noqa: ANN401
        """Write the object if it still has that version (None: if there is no object); return whether it was written.

        Of several callers one writes.

        Raises:
            ConfigurationError: The store has no conditional writes.
        """
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            self._ask("written", lambda _: self._put(data, version or "create"))
        except RemoteError as error:
            is_gone = version is not None and isinstance(error, FileNotFoundError)
            if is_gone or isinstance(error.__cause__, AlreadyExistsError | PreconditionError):
                return False
            if status_of(error.__cause__) == 501:
                raise ConfigurationError(
                    f"{self}: this store has no conditional writes, by which two runs on one directory are kept apart; "
                    "choose a folder or another store for the results"
                ) from error
            raise
        return True

    def delete(self) -> None:
        self._ask("deleted", lambda store: or_none(lambda: store.delete(self._name_in_bucket)))

    def make_folder(self) -> None:
        bucket = split_url(self.address)[1]
        try:
            self._ask("used", lambda store: next(iter(store.list(self._name_in_bucket, chunk_size=1)), None))
        except RemoteError as error:
            if status_of(error.__cause__) == 404:
                raise ConfigurationError(f"{self}: there is no bucket {bucket!r}; make it first") from error
            raise ConfigurationError(str(error)) from error

    def lock(self) -> Lock:
        return Lease(self)

    def open_ranges(self) -> RemoteRanges:
        return _ObjectRanges(self)

    def send(self, draft: Path) -> None:
        self._ask("written", lambda _: self._put(draft))

    @property
    def _name_in_bucket(self) -> str:
        return split_url(self.address)[2]

    def _ask(self, done: str, work: Callable[[Any], T]) -> T:
        """Return the result of ``work`` on the store, with retries. An error says that it cannot be ``done``."""
        store = self._store()  # wrong options are told before anything is tried
        return persist(f"{self} cannot be {done}", lambda: _with_credentials(lambda: work(store)), self.address)

    def _store(self, *, to_write: bool = False) -> Any:  # noqa: ANN401
        return open_store(self.address, self.options, to_write=to_write)

    def _entry(self, meta: dict[str, Any]) -> Entry:
        version = (meta["e_tag"] or meta["version"] or "").strip('"')
        return Entry(self._at_name(meta["path"]), meta["size"], meta["last_modified"].timestamp(), version)

    def _at_name(self, name: str) -> StorePlace:
        root = self.address.removesuffix("/").removesuffix(self._name_in_bucket).rstrip("/")
        return self.at_url(f"{root}/{name}")

    def _put(self, data: bytes | Path, mode: Any = None) -> None:  # noqa: ANN401
        store = self._store(to_write=True)
        store.put(self._name_in_bucket, data, mode=mode, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE)


def _list(
    store: Any,  # noqa: ANN401
    folder: str,
    unreadable: set[str],
    watch: Watch,
    *,
    recursive: bool,
) -> list[dict[str, Any]]:
    """Return the objects in a folder, also where an object has a name that obstore does not list.

    obstore gives up a whole answer of a thousand names for one of these. So the folder is found that has it, and listed
    from the first letter on that comes behind such parts.

    Args:
        store: Of obstore.
        folder: Its name, without a slash at its end.
        unreadable: Takes up the first such name of each folder.
        watch: Sees them pass while they are found.
        recursive: Also those in the folders below.
    """
    from obstore.exceptions import InvalidPathError

    whole = ""
    try:
        if recursive:
            return list(watch(meta for chunk in store.list(folder, chunk_size=_LISTED_AT_ONCE) for meta in chunk))
    except InvalidPathError as error:
        whole = _name_in(error)
    try:
        found = store.list_with_delimiter(folder)
    except InvalidPathError as error:
        part = _name_in(error)
        if recursive:
            unreadable.add(whole if whole.startswith(part) else part)
        below = f"{folder}/" if folder else ""
        metas = store.list(folder, offset=f"{below}0").collect()
        return [meta for meta in metas if recursive or "/" not in meta["path"].removeprefix(below)]
    folders = found["common_prefixes"] if recursive else []
    below_them = (meta for each in folders for meta in _list(store, each, unreadable, watch, recursive=True))
    return [*watch(found["objects"]), *below_them]


def _name_in(error: Exception) -> str:
    name = re.search(r'Path "(.*?)"(?: contained|: Enc)', str(error), re.DOTALL | re.IGNORECASE)
    if name is None:
        raise error
    return name[1]


@cache
def _warn(address: str) -> None:
    """Say once that an object cannot be read."""
    logger.warning(_UNREADABLE, address)


def _with_credentials(work: Callable[[], T]) -> T:
    try:
        return work()
    except Exception as error:
        if _METADATA_ADDRESS in str(error):
            raise ConfigurationError(
                "no credentials were found, neither in the storage options, nor in the environment, nor in what the "
                'provider\'s own program saved; public data needs the storage options {"anon": true}'
            ) from error
        raise


class _ObjectRanges(RemoteRanges):
    """Reads one version of an object: the one that the first answer named."""

    def __init__(self, place: StorePlace) -> None:
        super().__init__(place.address)
        self._store, self._key = place._store(), place._name_in_bucket
        self._tag: str | None = None

    def look(self) -> None:
        self._note(self._store.head(self._key))

    def read_into(self, data: bytearray, offset: int, size: int) -> None:
        from obstore.exceptions import PreconditionError

        same = {"if_match": self._tag} if self._tag else {}
        try:
            answer = self._store.get(self._key, options={"range": (offset, offset + size), **same})
            self._note(answer.meta)
            for piece in answer.stream(min_chunk_size=PIECE_BYTES):
                data += piece
        except PreconditionError as error:
            raise ChangedError from error
        except Exception as error:
            if status_of(error) == 416 or "Wanted range starting at" in str(error):
                self.look()  # the file may be shorter than it was
                raise BeyondEndError from error
            raise

    def _note(self, meta: dict[str, Any]) -> None:
        tag = meta["e_tag"]
        self.note(meta["size"], (tag or meta["version"] or str(meta["last_modified"])).strip('"'))
        self._tag = tag
