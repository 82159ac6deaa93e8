"""Embeddings in a column of a Parquet, Arrow (Feather) or Lance table, read in blocks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tastemaker.embeddings.arrays import BLOCK_ROWS, EmbeddingBlock, Floats, as_floats, readable
from tastemaker.embeddings.names import EMBEDDING_NAMES, choose_name
from tastemaker.embeddings.opened import BUFFER_BYTES, open_ranges
from tastemaker.errors import ConfigurationError, MissingExtraError, UnreadableImageError
from tastemaker.storage import Options, is_remote, public_url

ARROW_EXTENSIONS = (".arrow", ".feather", ".ipc")
TABLE_EXTENSIONS = (".parquet", *ARROW_EXTENSIONS, ".lance")

_NUMPY_TYPES = {pa.float16(): np.float16, pa.float32(): np.float32, pa.float64(): np.float64}


@dataclass
class TableSource:
    """The embeddings in one column of a table, with its other columns.

    Args:
        path: A ``.parquet``, ``.arrow``, ``.feather`` or ``.ipc`` file, a URL of one, or a local ``.lance`` folder.
        wanted: Name of the column, where the user gave one.
        size: Numbers in an embedding.
        storage_options: Of the URL.

    Attributes:
        name: Of the column with the embeddings.
        rows: How many there are; None where only reading to the end tells (Arrow streams).
        dtype: As stored, for example ``halffloat``.
        schema: The other columns: all but embeddings and bytes.

    Raises:
        UnreadableImageError: It is no such file.
        ModelError: No column holds embeddings.
        ConfigurationError: Several columns could be meant; a Lance folder at a URL.
        MissingExtraError: A Lance folder without the extra ``lance``.
    """

    path: str
    wanted: str | None
    size: int
    storage_options: Options | None = field(default=None, repr=False)
    name: str = field(default="", init=False)
    rows: int | None = field(default=None, init=False)
    dtype: str = field(default="", init=False)
    schema: pa.Schema = field(init=False)

    def __post_init__(self) -> None:
        shown = public_url(self.path)
        with readable(shown):
            schema, self.rows = read_schema(self.path, self.storage_options)
        self.name = choose_name(embedding_columns(schema), self.wanted, self.size, shown)
        self.dtype = str(schema.field(self.name).type.value_type)
        self.schema = pa.schema([column for column in schema if _is_carried(column.type)])

    def blocks(self, block_rows: int = BLOCK_ROWS) -> Iterator[EmbeddingBlock]:
        """Yield the embeddings in order, each block with its part of the other columns.

        Raises:
            UnreadableImageError: The file is damaged. What could be read was yielded before.
        """
        done = 0
        names = [self.name, *self.schema.names]
        with readable(public_url(self.path)):
            for batch in _read_batches(self.path, self.storage_options, names, block_rows):
                for start in range(0, len(batch), block_rows):
                    part = batch.slice(start, block_rows)
                    vectors, lengths = vectors_of(part.column(self.name), self.size)
                    columns = pa.Table.from_batches([part]).select(self.schema.names)
                    yield EmbeddingBlock(vectors, lengths, columns)
                done += len(batch)
        if self.rows is not None and done < self.rows:
            raise UnreadableImageError(f"truncated: only {done:,} of {self.rows:,} embeddings are there")


def embedding_columns(schema: pa.Schema) -> dict[str, int | None]:
    """Return the columns that could hold embeddings, each with its numbers in a row (None where they vary)."""
    widths: dict[str, int | None] = {}
    for column in schema:
        if is_float_list(column.type):
            widths[column.name] = column.type.list_size if pa.types.is_fixed_size_list(column.type) else None
    return widths


def has_embeddings(path: str, size: int, wanted: str | None = None, options: Options | None = None) -> bool:
    """Return whether a table has a column that would be taken for embeddings. An unreadable table has none.

    Rows of no fixed length count only under one of `EMBEDDING_NAMES`: tables hold many lists. Where the user named the
    column, that one counts and no other.
    """
    try:
        with readable(public_url(path)):
            widths = embedding_columns(read_schema(path, options)[0])
    except (UnreadableImageError, OSError):
        return False
    if wanted is not None:
        return wanted in widths
    return any(width == size or (width is None and name.lower() in EMBEDDING_NAMES) for name, width in widths.items())


def is_float_list(kind: pa.DataType) -> bool:
    """Return whether a column's type is a list of float16, float32 or float64."""
    types = pa.types
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return is_list and kind.value_type in _NUMPY_TYPES


def read_schema(path: str, options: Options | None = None) -> tuple[pa.Schema, int | None]:
    """Return the columns of a table, and its rows if that is known before reading it."""
    if _is(path, ".parquet"):
        with _open_parquet(path, options) as file:
            return file.schema_arrow, file.metadata.num_rows
    if _is(path, ".lance"):
        dataset = _open_lance(path)
        return dataset.schema, dataset.count_rows()
    with _open_arrow(path, options) as reader:
        is_counted = isinstance(reader, pa.ipc.RecordBatchFileReader) and not is_remote(path)
        return reader.schema, _count_rows(reader) if is_counted else None


def read_parquet_columns(path: str, block_rows: int, options: Options | None = None) -> Iterator[pa.Table]:
    """Yield the columns that are carried into the rows, in tables of exactly ``block_rows``, but for the last."""
    with readable(public_url(path)), _open_parquet(path, options) as file:
        names = [column.name for column in file.schema_arrow if _is_carried(column.type)]
        waiting: list[pa.RecordBatch] = []
        for batch in file.iter_batches(block_rows, columns=names):
            waiting.append(batch)
            while sum(map(len, waiting)) >= block_rows:
                table = pa.Table.from_batches(waiting)
                yield table.slice(0, block_rows)
                waiting = table.slice(block_rows).to_batches()
        if waiting:
            yield pa.Table.from_batches(waiting)


def carried_columns(path: str, options: Options | None = None) -> tuple[pa.Schema, int]:
    """Return the columns of a Parquet file that are carried into the rows, and how many rows it has."""
    with readable(public_url(path)), _open_parquet(path, options) as file:
        carried = [column for column in file.schema_arrow if _is_carried(column.type)]
        return pa.schema(carried), file.metadata.num_rows


def vectors_of(column: pa.Array, size: int) -> tuple[Floats, npt.NDArray[np.int64] | None]:
    """Return a list column as float16 or float32 (n, size), and the length of each row if they are not all ``size``.

    Rows of another length are zeros, and their length is stated; -1 for a null. A null inside a row is a NaN.
    """
    lengths = pc.fill_null(pc.list_value_length(column), -1).to_numpy(zero_copy_only=False).astype(np.int64)
    is_whole = lengths == size
    if is_whole.all():
        return as_floats(_numbers(column.flatten()).reshape(-1, size)), None
    whole = column.filter(pa.array(is_whole))
    part = as_floats(_numbers(whole.flatten()).reshape(-1, size))
    vectors = np.zeros((len(column), size), part.dtype)
    vectors[is_whole] = part
    return vectors, lengths


def _numbers(values: pa.Array) -> Floats:
    kind = _NUMPY_TYPES[values.type]
    if not len(values):
        return np.empty(0, kind)
    numbers = np.frombuffer(values.buffers()[1], kind)[values.offset : values.offset + len(values)]
    if values.null_count:
        numbers = numbers.copy()
        numbers[values.is_null().to_numpy(zero_copy_only=False)] = np.nan
    return numbers


def _is_carried(kind: pa.DataType) -> bool:
    """Return whether a column goes into the rows: embeddings do not, nor do bytes, which may be whole pictures."""
    types = pa.types
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return False
    return not is_float_list(kind) and all(_is_carried(kind.field(n).type) for n in range(kind.num_fields))


def _read_batches(path: str, options: Options | None, columns: list[str], block_rows: int) -> Iterator[pa.RecordBatch]:
    if _is(path, ".parquet"):
        with _open_parquet(path, options) as file:
            yield from file.iter_batches(block_rows, columns=columns)
    elif _is(path, ".lance"):
        yield from _open_lance(path).to_batches(columns=columns, batch_size=block_rows)
    else:
        with _open_arrow(path, options, ahead=True) as reader:
            is_file = isinstance(reader, pa.ipc.RecordBatchFileReader)
            batches = map(reader.get_batch, range(reader.num_record_batches)) if is_file else iter(reader)
            for batch in batches:
                batch.validate()  # a hostile file may have offsets that lead out of it
                yield batch.select(columns)


def _is(path: str, extension: str) -> bool:
    return public_url(path).lower().rstrip("/").endswith(extension)


@contextlib.contextmanager
def _open_parquet(path: str, options: Options | None) -> Iterator[pq.ParquetFile]:
    """Yield a Parquet file. Of a remote one columns are read in pieces, not a row group of each at once."""
    buffer = BUFFER_BYTES if is_remote(path) else 0
    with open_ranges(path, options) as place, pq.ParquetFile(place, buffer_size=buffer) as file:
        yield file


@contextlib.contextmanager
def _open_arrow(path: str, options: Options | None, *, ahead: bool = False) -> Iterator[Any]:
    with (
        open_ranges(path, options, ahead=ahead) as place,
        pa.memory_map(place) if isinstance(place, str) else pa.PythonFile(place, "r") as file,
    ):
        yield _open_ipc(file)


def _open_ipc(file: Any) -> Any:  # noqa: ANN401 - pyarrow ships no types
    """Return a reader of an Arrow file (Feather), or of an Arrow stream as Hugging Face's datasets write it."""
    try:
        return pa.ipc.open_file(file)
    except pa.ArrowInvalid:
        file.seek(0)
        return pa.ipc.open_stream(file)


def _count_rows(reader: Any) -> int:  # noqa: ANN401
    return sum(reader.get_batch(number).num_rows for number in range(reader.num_record_batches))


def _open_lance(path: str) -> Any:  # noqa: ANN401
    if is_remote(path):
        raise ConfigurationError(
            f"{public_url(path)}: Lance tables are read from this machine only; copy it here first"
        )
    try:
        import lance
    except ImportError as error:
        raise MissingExtraError('reading Lance tables needs pip install "tastemaker[lance]"') from error
    return lance.dataset(path)
