"""What a file of embeddings offers, and ``.npy`` and ``.npz`` files, read in blocks from the first byte to the last."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from tokenize import TokenError
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tastemaker.embeddings.names import choose_name
from tastemaker.errors import ModelError, UnreadableImageError
from tastemaker.imaging.tables import readable
from tastemaker.scores.vectors import Floats, as_floats
from tastemaker.storage.place import Place

BLOCK_ROWS = 16_384
"""Embeddings in a block: 25 MB in float16."""

_HEADER_BYTES = 2**16
"""More than NumPy accepts as the header of an array."""


@dataclass
class EmbeddingBlock:
    """Some rows of a file.

    Attributes:
        vectors: float16 or float32 (n, d), as they are in the file; zeros in a row of another length.
        lengths: int64 (n,), numbers in each row, -1 where there is none; None if all rows have d.
        columns: What else the file says of these rows.
    """

    vectors: Floats
    lengths: npt.NDArray[np.int64] | None = None
    columns: pa.Table | None = None


@dataclass
class EmbeddingSource:
    """The embeddings in one array or column of a file, which is opened as far as it takes to know what is in it.

    Args:
        place: The file.
        wanted: The name of the array or column, where the user gave one.
        size: Numbers in an embedding.

    Attributes:
        name: The name of the column, or of the array in a ``.npz``; empty for a ``.npy``.
        rows: How many embeddings the file promises.
        dtype: The type as stored, for example ``float16``.
        schema: The other columns of a table: all but embeddings and bytes.

    Raises:
        UnreadableImageError: The file is damaged, or not of the kind that its name says.
        ModelError: It holds other numbers or shapes, or pickled objects, which are never loaded.
        ConfigurationError: Several arrays or columns could be meant.
    """

    place: Place
    wanted: str | None
    size: int
    name: str = field(default="", init=False)
    rows: int = field(default=0, init=False)
    dtype: str = field(default="", init=False)
    schema: pa.Schema = field(default_factory=lambda: pa.schema([]), init=False)

    def blocks(self) -> Iterator[EmbeddingBlock]:
        """Yield the embeddings in order, each block with its part of the other columns.

        Raises:
            UnreadableImageError: The file is damaged, or ends before or after the embeddings that it promises. What
                could be read was yielded before.
        """
        raise NotImplementedError


class _Header(NamedTuple):
    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[np.generic]


@dataclass
class ArraySource(EmbeddingSource):
    """The embeddings of a ``.npy`` file, or of one array in a ``.npz``."""

    def __post_init__(self) -> None:
        shown = str(self.place)
        with readable(shown):
            if shown.lower().endswith(".npz"):
                headers = _read_headers(self.place)
                self.name = choose_name(_widths_of(headers, self.wanted), self.wanted, self.size, shown)
                header = headers[self.name]
                shown = f"{shown}[{self.name}]"
            else:
                header = _read_header(io.BytesIO(self.place.read(_HEADER_BYTES)))
        _check(header, self.size, shown)
        self.rows, self.dtype = header.shape[0], header.dtype.name

    def blocks(self) -> Iterator[EmbeddingBlock]:
        """See `EmbeddingSource.blocks`."""
        with readable(str(self.place)), self._open() as file:
            dtype = _read_header(file).dtype
            row_bytes = dtype.itemsize * self.size
            for start in range(0, self.rows, BLOCK_ROWS):
                wanted = min(BLOCK_ROWS, self.rows - start)
                content = file.read(wanted * row_bytes)
                there = len(content) // row_bytes
                if there:
                    numbers = np.frombuffer(content, dtype, there * self.size)
                    yield EmbeddingBlock(as_floats(numbers.reshape(there, self.size)))
                if there < wanted:
                    found = f"{start + there:,} of {self.rows:,}"
                    raise UnreadableImageError(f"truncated: only {found} embeddings are there")
            if file.read(1):
                raise UnreadableImageError(f"damaged: more bytes follow the {self.rows:,} embeddings of its header")

    @contextlib.contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        with self.place.open() as file:
            if not self.name:
                yield file
                return
            with zipfile.ZipFile(file) as archive, archive.open(f"{self.name}.npy") as member:
                yield member


def _read_header(file: IO[bytes]) -> _Header:
    """Return what the header at the start of a ``.npy`` file says, and leave the file behind it."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        return _Header(*read(file))
    except (TokenError, SyntaxError, TypeError, MemoryError) as error:  # NumPy parses it as Python
        raise ValueError(f"cannot parse its header: {error}") from error


def _read_headers(place: Place) -> dict[str, _Header]:
    """Return the arrays of a ``.npz``, by their names."""
    headers = {}
    with place.open() as file, zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            if name.endswith(".npy"):
                with archive.open(name) as member:
                    headers[name.removesuffix(".npy")] = _read_header(member)
    return headers


def _widths_of(headers: dict[str, _Header], wanted: str | None) -> dict[str, int | None]:
    """Return the arrays that may hold embeddings, with their numbers in a row; 0 for an array that is no matrix."""
    return {
        name: header.shape[1] if len(header.shape) == 2 else 0
        for name, header in headers.items()
        if header.dtype.kind == "f" or name == wanted
    }


def _check(header: _Header, size: int, where: str) -> None:
    """Raise `ModelError` if an array holds something else than embeddings."""
    dtype = header.dtype
    if dtype.hasobject:
        raise ModelError(f"{where} holds pickled objects, which are never loaded; save a plain array of floats")
    if dtype.kind != "f" or dtype.itemsize not in (2, 4, 8):
        is_bfloat = dtype.kind in "uV" and dtype.itemsize == 2
        raise ModelError(
            f"{where} holds {dtype}, and embeddings are float16, float32 or float64"
            + ("; save bfloat16 as float32: nothing in the file tells what these bits are" if is_bfloat else "")
        )
    if len(header.shape) != 2 or header.shape[1] != size or header.shape[0] < 0:
        raise ModelError(f"{where} has the shape {header.shape}, and this scorer takes embeddings of shape (n, {size})")
    if header.is_fortran and header.shape[0] > 1:
        raise ModelError(f"{where} is stored column by column; save it again with numpy.ascontiguousarray")
