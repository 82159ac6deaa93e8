"""Files of embeddings as file objects, wherever they are: on this machine, in an object store, on a web server."""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from tastemaker.errors import UnreadableImageError
from tastemaker.storage import Options, base_name, is_remote, public_url
from tastemaker.storage.blocks import BlockReader
from tastemaker.storage.drafts import draft_folder
from tastemaker.storage.place import Place, Ranges
from tastemaker.storage.reading import RangesFile

BUFFER_BYTES = 2**23
"""Bytes of a column that are asked for at once: memory holds so much of each column that is read."""

MAX_COPY_BYTES = 2**33
"""Size of the largest file that is copied to this machine, where a format needs ranges and the server has none."""

_HEADER_BYTES = 2**16
_PIECE = 2**22


@contextlib.contextmanager
def open_whole(path: str, options: Options | None) -> Iterator[IO[bytes]]:
    """Yield a file to be read from its first byte to its last. Of a remote one at most 64 MiB are in memory.

    Raises:
        OSError: It is not there, or cannot be read.
    """
    if not is_remote(path):
        with open(path, "rb", buffering=0) as file:
            yield file
        return
    with contextlib.closing(RangesFile(BlockReader(Place.at(path, options).open_ranges()))) as remote:
        yield cast("IO[bytes]", remote)


@contextlib.contextmanager
def open_header(path: str, options: Options | None) -> Iterator[IO[bytes]]:
    """Yield a file of which little is to be read: one request for 64 KiB of a remote one.

    Raises:
        OSError: It is not there, or cannot be read.
    """
    if not is_remote(path):
        with open(path, "rb") as file:
            yield file
        return
    with contextlib.closing(
        io.BufferedReader(RangesFile(Place.at(path, options).open_ranges()), _HEADER_BYTES)
    ) as remote:
        yield cast("IO[bytes]", remote)


@contextlib.contextmanager
def open_ranges(path: str, options: Options | None, *, ahead: bool = False) -> Iterator[Any]:
    """Yield what pyarrow and zipfile read by position: a local path as it is, a remote file as a file object.

    From a web server without ranges the file is copied to this machine for as long as the block lasts.

    Args:
        path: The file.
        options: Of its URL.
        ahead: Read large blocks in advance, for a reader that takes small pieces one after the other. Else each piece
            is a request.

    Raises:
        UnreadableImageError: That copy would be larger than `MAX_COPY_BYTES`.
        OSError: The file is not there, or cannot be read.
    """
    if not is_remote(path):
        yield path
        return
    with contextlib.closing(Place.at(path, options).open_ranges()) as remote:
        if remote.streams:
            with _copy_of(path, remote) as copied:
                yield copied
        else:
            yield RangesFile(BlockReader(remote) if ahead else remote)


@contextlib.contextmanager
def _copy_of(path: str, remote: Ranges) -> Iterator[str]:
    """Yield the path of a copy, which is deleted afterwards."""
    folder = Path(tempfile.mkdtemp(dir=draft_folder()))
    try:
        target, position = folder / base_name(path), 0
        with target.open("wb") as file:
            while data := remote.read_at(position, _PIECE):
                position += len(data)
                if position > MAX_COPY_BYTES:
                    raise UnreadableImageError(
                        f"{public_url(path)} is larger than {MAX_COPY_BYTES / 2**30:.0f} GiB, and its server sends no "
                        "parts of it; copy it to this machine first"
                    )
                file.write(data)
        yield str(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
