"""Tables as inputs: Parquet and Arrow files, read in blocks of rows.

`tastemaker.imaging.pictures` makes samples of their pictures, and `tastemaker.embeddings` scores their embeddings.
"""

from __future__ import annotations

import contextlib
import mmap
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, Self

import pyarrow as pa

from tastemaker.errors import RemoteError, TastemakerError, UnreadableImageError
from tastemaker.storage import public_url
from tastemaker.storage.parquet import ParquetFile
from tastemaker.storage.place import Place

TABLE_EXTENSIONS = (".parquet", ".arrow", ".feather", ".ipc")

CAPTION_COLUMNS = ("caption", "text")
"""Names of the column with the caption, in any case; the first of them counts."""


def caption_in(record: Mapping[str, Any]) -> str | None:
    """Return the caption of a record, as metadata and JSON beside a picture have it; None where there is none."""
    named = {name.lower(): value for name, value in record.items()}
    return next((named[name] for name in CAPTION_COLUMNS if isinstance(named.get(name), str)), None)


_PATH_COLUMNS = ("path", "image_path", "file", "file_name", "filename", "filepath")
_SHOWN_COLUMNS = 20

_BUFFER_BYTES = 2**23
"""Bytes of a column that are asked for at once: memory holds so much of each column that is read."""


def is_table(path: str) -> bool:
    """Return whether a path or URL is called like a table."""
    return public_url(path).lower().endswith(TABLE_EXTENSIONS)


class Table:
    """A Parquet file, or an Arrow file or stream, open to be read in blocks of rows. Use it as a context.

    Columns of Parquet are read in pieces. An Arrow file on this machine is mapped into memory, and one at a URL is read
    by batches, or from its start where it is a stream.

    Args:
        place: The file.

    Attributes:
        schema: Its columns.
        rows: How many there are.

    Raises:
        UnreadableImageError: It is no table, or damaged.
        OSError: It is not there, or cannot be read.
    """

    def __init__(self, place: Place) -> None:
        self.shown = str(place)
        self._stack = contextlib.ExitStack()
        with readable(self.shown), contextlib.ExitStack() as stack:
            self._parts: _ParquetParts | _ArrowParts = _open_parts(place, stack)
            _check_names(self._parts.schema)
            self._stack = stack.pop_all()
        self.schema = self._parts.schema
        self._ends = [0, *accumulate(self._parts.sizes)]
        self.rows = self._ends[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    def describe(self) -> str:
        """Return what the table has, and what can be done with it where it holds no pictures."""
        columns = ", ".join(f"{column.name} ({column.type})" for column in list(self.schema)[:_SHOWN_COLUMNS])
        more = ", ..." if len(self.schema) > _SHOWN_COLUMNS else ""
        text = f"It has {self.rows:,} rows with the columns {columns}{more}" if columns else "It has no columns"
        names = [column.name for column in self.schema if is_text(column.type)]
        if urls := [name for name in names if "url" in name.lower()]:
            text += f". Download the pictures at the addresses in {urls[0]} first, with img2dataset for example"
        elif paths := [name for name in names if name.lower() in _PATH_COLUMNS]:
            text += f". Write the paths in {paths[0]} to a file, one a line, and score them with --files-from FILE"
        return text

    def blocks(self, columns: Sequence[str], block_rows: int) -> Iterator[pa.Table]:
        """Yield columns in order, in tables of ``block_rows`` rows but for the last.

        Args:
            columns: Their names; ``image.path`` for a field of a struct, of which an Arrow file gives all.
            block_rows: Rows in a table.

        Raises:
            UnreadableImageError: The file is damaged. What could be read was yielded before.
        """
        waiting: list[pa.RecordBatch] = []
        for part in range(len(self._ends) - 1):
            for batch in self._read_part(part, columns, block_rows):
                waiting.append(batch)
                if sum(map(len, waiting)) >= block_rows:
                    table = pa.Table.from_batches(waiting)
                    yield table.slice(0, block_rows)
                    waiting = table.slice(block_rows).to_batches()
        if waiting and any(map(len, waiting)):
            yield pa.Table.from_batches(waiting)

    def at(self, columns: Sequence[str], rows: Sequence[int], block_rows: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield the blocks that some rows lie in, each with the number of its first row; other parts are not read.

        Args:
            columns: Which columns.
            rows: Numbers of rows, in ascending order.
            block_rows: Rows in a block at most.
        """
        wanted = [row for row in rows if 0 <= row < self.rows]
        while wanted:
            part = bisect_right(self._ends, wanted[0]) - 1
            last = max(row for row in wanted if row < self._ends[part + 1])
            first = self._ends[part]
            for batch in self._read_part(part, columns, block_rows):
                if first <= wanted[0] < first + len(batch):
                    yield first, batch
                    wanted = [row for row in wanted if row >= first + len(batch)]
                first += len(batch)
                if first > last:
                    break

    def _read_part(self, part: int, columns: Sequence[str], block_rows: int) -> Iterator[pa.RecordBatch]:
        with readable(self.shown):
            whole = {name if name in self.schema.names else name.partition(".")[0] for name in columns}
            for batch in self._parts.read(part, list(columns), block_rows):
                if {*batch.schema.names} != whole:
                    raise ValueError(f"the columns {', '.join(sorted(whole))} are not all there")
                batch.validate(full=True)  # or positions of a damaged file would lead anywhere in memory
                yield batch


class _ParquetParts:
    def __init__(self, file: ParquetFile) -> None:
        self._file, self.schema = file, file.schema_arrow
        self.sizes = [file.metadata.row_group(n).num_rows for n in range(file.metadata.num_row_groups)]

    def read(self, part: int, columns: list[str], block_rows: int) -> Iterator[pa.RecordBatch]:
        yield from self._file.iter_batches(block_rows, row_groups=[part], columns=columns)


class _ArrowParts:
    def __init__(self, reader: pa.RecordBatchFileReader | pa.RecordBatchStreamReader) -> None:
        self.schema = reader.schema
        # Of a mapped file these are views; of a stream at a URL they are all of it.
        if isinstance(reader, pa.RecordBatchFileReader):
            self._batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        else:
            self._batches = list(reader)
        self.sizes = list(map(len, self._batches))

    def read(self, part: int, columns: list[str], block_rows: int) -> Iterator[pa.RecordBatch]:
        names = [name if name in self.schema.names else name.partition(".")[0] for name in columns]
        batch = self._batches[part].select(names)
        yield from (batch.slice(start, block_rows) for start in range(0, len(batch), block_rows))


def _open_parts(place: Place, stack: contextlib.ExitStack) -> _ParquetParts | _ArrowParts:
    file = stack.enter_context(place.open())
    if str(place).lower().endswith(".parquet"):
        return _ParquetParts(stack.enter_context(ParquetFile(file, buffer_size=_BUFFER_BYTES)))
    source: pa.NativeFile = pa.PythonFile(file)
    if place.local_path is not None:
        source = pa.BufferReader(pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    magic = source.read(6)
    source.seek(0)
    options = pa.ipc.IpcReadOptions(use_threads=False)  # as in `ParquetFile`
    opened = pa.ipc.open_file if magic == b"ARROW1" else pa.ipc.open_stream
    return _ArrowParts(opened(source, options=options))


def _check_names(columns: Iterable[pa.Field]) -> None:
    """Raise `ValueError` where the name of a column is no text, or that of two, which pyarrow says only when asked."""
    names: set[str] = set()
    for column in columns:
        if column.name in names:
            raise ValueError(f"two columns are called {column.name!r}")
        names.add(column.name)
        _check_names(column.type.field(number) for number in range(column.type.num_fields))


@contextlib.contextmanager
def readable(shown: str) -> Iterator[None]:
    """Turn what readers raise on files that are not what they should be into `UnreadableImageError`.

    An `OSError` goes through where the file is not there or may not be read.
    """
    try:
        yield
    except (TastemakerError, FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except Exception as error:
        if isinstance(error.__context__, RemoteError):  # zipfile says that it is no archive whatever it could not read
            raise error.__context__ from None
        is_known = isinstance(error, pa.ArrowInvalid | zipfile.BadZipFile | zlib.error | EOFError | OSError)
        lead = "damaged" if is_known else f"not a sound {shown[shown.rfind('.') :]} file"
        first_line = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise UnreadableImageError(f"{lead}: {first_line}") from error


def carried_columns(schema: pa.Schema) -> pa.Schema:
    """Return the columns that go along with pictures and embeddings: all but lists of floats, and bytes."""
    return pa.schema([column for column in schema if _is_carried(column.type)])


def is_bytes(kind: pa.DataType) -> bool:
    """Return whether a column holds bytes."""
    types = pa.types
    is_view = types.is_binary_view(kind)
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind) or is_view)


def is_text(kind: pa.DataType) -> bool:
    """Return whether a column holds text."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_carried(kind: pa.DataType) -> bool:
    types = pa.types
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    if is_bytes(kind) or (is_list and types.is_floating(kind.value_type)):
        return False
    return all(_is_carried(kind.field(n).type) for n in range(kind.num_fields))
