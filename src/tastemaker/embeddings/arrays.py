"""Embeddings in ``.npy`` and ``.npz`` files, read in blocks from the first byte to the last."""

from __future__ import annotations

import contextlib
import io
import math
import os
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from tokenize import TokenError
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tastemaker.embeddings.names import choose_name
from tastemaker.embeddings.opened import MAX_COPY_BYTES, open_header, open_ranges, open_whole
from tastemaker.errors import ModelError, RemoteError, TastemakerError, UnreadableImageError
from tastemaker.storage import Options, is_remote, public_url

Floats = npt.NDArray[np.floating]

BLOCK_ROWS = 16_384
"""Embeddings in a block: 25 MB in float16."""

_PIECE = 2**22


@dataclass
class EmbeddingBlock:
    """Some rows of a file.

    Attributes:
        vectors: float16 or float32 (n, 768), as they are in the file; zeros where ``lengths`` is another.
        lengths: int64 (n,), numbers in each row, -1 where there is none; None where all have 768.
        columns: What else the file says of these rows.
    """

    vectors: Floats
    lengths: npt.NDArray[np.int64] | None = None
    columns: pa.Table | None = None


@dataclass(frozen=True)
class ArrayHeader:
    """What an array's header promises: its shape and type."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    is_fortran: bool

    @property
    def rows(self) -> int | None:
        """Vectors along the last axis; None where they do not form one list, as in (2, 3, 768) but not (2, 1, 768)."""
        others = self.shape[:-1]
        return math.prod(others) if others and sum(length != 1 for length in others) <= 1 else None


@dataclass
class ArraySource:
    """The embeddings of a ``.npy`` file, or of one array in a ``.npz``.

    Args:
        path: The file, or a URL of it.
        wanted: Name of the array, where the user gave one.
        size: Numbers in an embedding.
        storage_options: Of the URL.

    Attributes:
        name: The array's name in a ``.npz``; empty for a ``.npy``.
        rows: How many its header promises.
        dtype: As stored, for example ``float16``.
        schema: There are no other columns.

    Raises:
        UnreadableImageError: It is no such file.
        ModelError: Another shape or type, or pickled objects, which are never loaded.
        ConfigurationError: Several arrays could be meant.
    """

    path: str
    wanted: str | None
    size: int
    storage_options: Options | None = field(default=None, repr=False)
    name: str = field(default="", init=False)
    rows: int = field(default=0, init=False)
    dtype: str = field(default="", init=False)
    schema: pa.Schema = field(default_factory=lambda: pa.schema([]), init=False)

    def __post_init__(self) -> None:
        shown = public_url(self.path)
        with readable(shown):
            if shown.lower().endswith(".npz"):
                with open_ranges(self.path, self.storage_options) as place:
                    headers = _read_headers(place if isinstance(place, str) else io.BufferedReader(place, 2**16))
                self.name = self._choose(headers)
                header = headers[self.name]
            else:
                with open_header(self.path, self.storage_options) as file:
                    header = read_header(file)
        self.rows = _check(header, self.size, f"{shown}[{self.name}]" if self.name else shown)
        self.dtype = header.dtype.name

    def blocks(self, block_rows: int = BLOCK_ROWS) -> Iterator[EmbeddingBlock]:
        """Yield the embeddings in order.

        Raises:
            UnreadableImageError: The file ends before its header says so, goes on after, or is damaged. What could be
                read was yielded before.
        """
        memory = _Memory()
        with readable(public_url(self.path)), self._open() as file:
            header = read_header(file)
            dtype = header.dtype
            if header.is_fortran:
                yield from self._columnwise(file, dtype, block_rows)
                return
            for start in range(0, self.rows, block_rows):
                wanted = min(block_rows, self.rows - start)
                row_bytes = dtype.itemsize * self.size
                content = memory.take(wanted * row_bytes)
                there = _read_into(file, content.data) // row_bytes
                if there:
                    numbers = content[: there * row_bytes].view(dtype).reshape(there, self.size)
                    del content
                    yield EmbeddingBlock(as_floats(numbers))
                    del numbers
                if there < wanted:
                    found = f"{start + there:,} of {self.rows:,}"
                    raise UnreadableImageError(f"truncated: only {found} embeddings are there")
            if file.read(1):
                raise UnreadableImageError(f"damaged: more bytes follow the {self.rows:,} embeddings of its header")

    def _columnwise(self, file: IO[bytes], dtype: np.dtype[Any], block_rows: int) -> Iterator[EmbeddingBlock]:
        """Yield the embeddings of an array that is stored column by column, each block in a piece of every column."""
        with self._seekable(file) as (columns, first):
            there = columns.seek(0, os.SEEK_END) - first
            wanted = self.rows * self.size * dtype.itemsize
            if there < wanted:
                raise UnreadableImageError(
                    f"truncated: only {there:,} of {wanted:,} bytes are there, and no embedding is whole: the array is "
                    "stored column by column"
                )
            for start in range(0, self.rows, block_rows):
                block = np.empty((self.size, min(block_rows, self.rows - start)), dtype)
                for number, column in enumerate(block):
                    columns.seek(first + (number * self.rows + start) * dtype.itemsize)
                    if _read_into(columns, memoryview(column.view(np.uint8))) < column.nbytes:
                        raise UnreadableImageError("truncated: the file became shorter while it was read")
                yield EmbeddingBlock(as_floats(block.T))
            if there > wanted:
                raise UnreadableImageError(f"damaged: more bytes follow the {self.rows:,} embeddings of its header")

    @contextlib.contextmanager
    def _seekable(self, file: IO[bytes]) -> Iterator[tuple[IO[bytes], int]]:
        """Yield a file whose every position is at hand, and where the array begins: out of archives and URLs a copy."""
        if not self.name and not is_remote(self.path):
            yield file, file.tell()
            return
        with tempfile.TemporaryFile(prefix="tastemaker-copy-") as copy:
            while piece := file.read(_PIECE):
                if copy.tell() + len(piece) > MAX_COPY_BYTES:
                    raise UnreadableImageError(
                        f"stored column by column and larger than {MAX_COPY_BYTES / 2**30:.0f} GiB; copy it to this "
                        "machine as .npy first, or save it again with numpy.ascontiguousarray"
                    )
                copy.write(piece)
            yield copy, 0

    def _choose(self, headers: dict[str, ArrayHeader]) -> str:
        widths = {
            name: header.shape[-1] if header.rows is not None else 0
            for name, header in headers.items()
            if header.dtype.kind == "f" or name == self.wanted
        }
        return choose_name(widths, self.wanted, self.size, public_url(self.path))

    def _open(self) -> AbstractContextManager[IO[bytes]]:
        return self._open_member() if self.name else open_whole(self.path, self.storage_options)

    @contextlib.contextmanager
    def _open_member(self) -> Iterator[IO[bytes]]:
        with (
            open_ranges(self.path, self.storage_options, ahead=True) as place,
            zipfile.ZipFile(place) as archive,
            archive.open(f"{self.name}.npy") as file,
        ):
            yield file


class _Memory:
    """Memory for blocks, used again once nothing refers to it: new pages cost as much as reading into them does."""

    def __init__(self) -> None:
        self._free: list[bytearray] = []

    def take(self, size: int) -> npt.NDArray[np.uint8]:
        """Return so many bytes. Their memory is free again with the last array or view that lies in it."""
        memory = self._free.pop() if self._free else bytearray(size)
        if len(memory) < size:
            memory = bytearray(size)  # not NumPy's: it asks for huge pages, for which the kernel may search for seconds
        whole = np.frombuffer(memory, np.uint8)
        weakref.finalize(whole.base, self._free.append, memory).atexit = False  # what every view of it refers to
        return whole[:size]


def read_header(file: IO[bytes]) -> ArrayHeader:
    """Return what the header at the start of a ``.npy`` file says, and leave the file behind it.

    Raises:
        ValueError: It is no header.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, is_fortran, dtype = read(file)
    except (TokenError, SyntaxError, TypeError, MemoryError) as error:  # NumPy parses it as Python
        raise ValueError(f"cannot parse its header: {_first_line(error)}") from error
    return ArrayHeader(shape, dtype, is_fortran)


def _read_headers(place: str | IO[bytes]) -> dict[str, ArrayHeader]:
    """Return the arrays of a ``.npz``, by their names."""
    headers = {}
    with zipfile.ZipFile(place) as archive:
        for member in archive.namelist():
            if member.endswith(".npy"):
                with archive.open(member) as file:
                    headers[member.removesuffix(".npy")] = read_header(file)
    return headers


@contextlib.contextmanager
def readable(path: str) -> Iterator[None]:
    """Turn what readers raise on files that are not what they should be into `UnreadableImageError`.

    An `OSError` goes through where the file is not there or may not be read.
    """
    try:
        yield
    except (TastemakerError, FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except zipfile.BadZipFile as error:
        if isinstance(error.__context__, RemoteError):  # zipfile says that it is no archive whatever it could not read
            raise error.__context__ from None
        raise UnreadableImageError(f"damaged: {_first_line(error)}") from error
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, zlib.error, EOFError, OSError) as error:
        raise UnreadableImageError(f"damaged: {_first_line(error)}") from error
    except (ValueError, NotImplementedError, RuntimeError) as error:  # no magic, a wrong header, an encrypted archive
        raise UnreadableImageError(f"not a sound {os.path.splitext(path)[1]} file: {_first_line(error)}") from error


def as_floats(vectors: Floats) -> Floats:
    """Return float16 or float32 in the machine's byte order; float64 is narrowed, and copied only where need be."""
    kind = np.float16 if vectors.dtype.itemsize == 2 else np.float32
    with np.errstate(over="ignore"):  # an infinity fails with its reason later
        return np.ascontiguousarray(vectors, kind)


def _check(header: ArrayHeader, size: int, where: str) -> int:
    """Return how many embeddings an array has, or raise `ModelError` where it holds something else."""
    if header.dtype.hasobject:
        raise ModelError(f"{where} holds pickled objects, which are never loaded; save a plain array of floats")
    if header.dtype.kind != "f" or header.dtype.itemsize not in (2, 4, 8):
        is_bfloat = header.dtype.kind in "uV" and header.dtype.itemsize == 2
        raise ModelError(
            f"{where} holds {header.dtype}, and embeddings are float16, float32 or float64"
            + ("; save bfloat16 as float32: nothing in the file tells what these bits are" if is_bfloat else "")
        )
    rows = header.rows
    if rows is None or rows < 0 or header.shape[-1] != size:
        raise ModelError(f"{where} has the shape {header.shape}, and CLIP ViT-L/14 embeddings have (n, {size})")
    return rows


def _read_into(file: IO[bytes], buffer: memoryview) -> int:
    """Fill a buffer as far as the file goes; return how many bytes that is."""
    done = 0
    while done < len(buffer):
        count = file.readinto(buffer[done:])  # type: ignore[attr-defined]
        if not count:
            break
        done += count
    return done


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
