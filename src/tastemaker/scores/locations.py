"""The files of a score table: found, checked and counted, and single rows of them by number."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tastemaker.errors import ConfigurationError
from tastemaker.scores.layout import ROWS_FOLDER, STATE_FOLDER
from tastemaker.scores.schema import provenance_of, rows_schema
from tastemaker.storage.parquet import ParquetFile
from tastemaker.storage.place import Place, look_anew

Source = str | os.PathLike[str]

IntArray = npt.NDArray[np.int64]

ROW_ID = "row_id"
"""The number of a row, from 0, in the order of the files and of the rows in each."""

_NEEDED = ("image_id", "image_path", "status", "reason_kind")
"""Columns that every rows file has; other Parquet files are told apart by them."""

_OWN_TYPES = {f.name: f.type for f in rows_schema(with_embeddings=True, with_signals=True, with_copies=True)}

_TAKEN = ("file_index", "file_row_number")
"""Names of DuckDB's own columns, by which rows are numbered; no column of a file may hide them."""

_OF_ONE_PARTITION = ("sources", "parity")
"""Entries of the provenance that differ between the partitions of one run."""

_FOOTERS_AT_ONCE = 8


@dataclass(frozen=True)
class Provenance:
    """What made the scores of some rows.

    Attributes:
        entries: Models, precision, preprocessing, versions, options: see docs/rows.md.
        rows: How many rows it made.
    """

    entries: dict[str, Any]
    rows: int


@dataclass(frozen=True)
class RowsSource:
    """One file of rows.

    Attributes:
        path: A local path, or a URL.
        rows: How many there are.
        schema: Its columns; the metadata has the provenance.
        options: For a URL.
    """

    path: str
    rows: int
    schema: pa.Schema
    options: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)

    @property
    def place(self) -> Place:
        """Where it lies."""
        return Place.at(self.path, self.options)

    @property
    def provenance(self) -> dict[str, Any]:
        """What made its rows; nothing where another program damaged it."""
        return provenance_of(self.schema.metadata)


def find_rows(sources: Source | Sequence[Source], storage_options: Mapping[str, Any] | None = None) -> list[RowsSource]:
    """Return the files of rows in these places, in the order of the places and of the paths in each.

    Args:
        sources: Directories, files or URLs. Directories are searched with all below them for ``*.parquet``, directories
            of results in their ``rows``; names that begin with ``_`` or ``.`` are passed over. A file that is named is
            taken whatever it is called.
        storage_options: For URLs; see docs/remote-data.md.

    Raises:
        ConfigurationError: A place does not exist, has no such files, or a file has no rows of Tastemaker in it.
    """
    places = [Place.of(source, storage_options) for source in as_list(sources)]
    look_anew(place.address for place in places)
    paths = list(dict.fromkeys(_full_address(file) for place in places for file in _find(place)))
    if not paths:
        raise ConfigurationError("no rows: name a directory that `tastemaker score` or `filter` wrote")
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
        return list(pool.map(partial(_read_footer, storage_options=storage_options), paths))


def is_of_rows(source: Source, storage_options: Mapping[str, Any] | None = None) -> bool:
    """Return whether a place is one of rows: a Parquet file, a folder of results, or one with rows files in it.

    A folder of copies is none: it has notes, but no rows. Nor is one of pictures with a Parquet file of something else.
    """
    place = Place.of(source, storage_options)
    if place.name.endswith(".parquet") and not place.is_folder():
        return True
    if (place / STATE_FOLDER).is_folder() and (place / ROWS_FOLDER).is_folder():
        return True
    files = place.list() if place.is_folder() else []
    first = next((file.place for file in files if _is_wanted(file.place.relative_to(place))), None)
    if first is None:
        return False
    try:
        _read_footer(first.address, storage_options)
    except ConfigurationError:
        return False
    return True


def as_list(sources: Source | Sequence[Source]) -> list[Source]:
    """Return one or several places as a list."""
    return [sources] if isinstance(sources, str | os.PathLike) else list(sources)


def name_of(places: Sequence[str]) -> str:
    """Return what a page is called that shows these folders, files or URLs: their names without the folders above."""
    names = [os.path.basename(os.path.normpath(os.path.abspath(p) if "://" not in p else p)) or p for p in places]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def list_provenances(sources: Sequence[RowsSource]) -> list[Provenance]:
    """Return what made the scores: one entry for each run that differs, with the number of its rows."""
    found: dict[str, Provenance] = {}
    for source in sources:
        entries = source.provenance
        of_the_run = {name: value for name, value in entries.items() if name not in _OF_ONE_PARTITION}
        key = json.dumps(of_the_run, sort_keys=True)
        before = found[key].rows if key in found else 0
        shown = {name: value for name, value in entries.items() if name != "sources"}
        found[key] = Provenance(shown, before + source.rows)
    return list(found.values())


def _find(place: Place) -> list[Place]:
    """Return the rows files at a place: the file itself, or those in a folder of results or in any other folder."""
    try:
        if not place.address.endswith("/") and place.is_file():
            return [place]
        if not place.is_folder():
            raise ConfigurationError(f"{str(place) or repr('')} does not exist")
        rows = place / ROWS_FOLDER
        folder = rows if (place / STATE_FOLDER).is_folder() and rows.is_folder() else place
        found = [entry.place for entry in folder.list() if _is_wanted(entry.place.relative_to(folder))]
    except OSError as error:
        raise ConfigurationError(str(error)) from error
    if not found:
        raise ConfigurationError(
            f"no rows in {place}: there is no *.parquet file in it; name a directory that `tastemaker score` or "
            "`filter` wrote"
        )
    return found


def _is_wanted(name: str) -> bool:
    return name.endswith(".parquet") and not any(part.startswith(("_", ".")) for part in name.split("/"))


def _full_address(place: Place) -> str:
    return place.address if place.local_path is None else os.path.abspath(place.address)


def _read_footer(path: str, storage_options: Mapping[str, Any] | None) -> RowsSource:
    try:
        with Place.at(path, storage_options).open() as file:  # pyarrow itself takes no path that is no UTF-8
            footer = ParquetFile(file)
            rows, schema = footer.metadata.num_rows, footer.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise ConfigurationError(f"{path} is no rows file: {error}") from error
    missing = [name for name in _NEEDED if name not in schema.names]
    if missing:
        raise ConfigurationError(f"{path} is no rows file of Tastemaker: it has no column {', '.join(missing)}")
    twice = {name for name in schema.names if schema.names.count(name) > 1}
    if twice:
        raise ConfigurationError(f"{path} has more than one column {', '.join(sorted(twice))}")
    taken = [name for name in schema.names if name.lower() in _TAKEN]
    if taken:
        raise ConfigurationError(f"{path} has a column {taken[0]}, which DuckDB takes for its own: rename it")
    checked = pa.schema([_checked(field, path) for field in schema], schema.metadata)
    return RowsSource(path, rows, checked, storage_options)


def _checked(field: pa.Field, path: str) -> pa.Field:
    """Return a column with the type that it is read as. Other programs may have stored our texts as other types."""
    own = _OWN_TYPES.get(field.name, field.type)
    if field.type == own:
        return field
    kind = _kind(field.type)
    if kind not in (_kind(own), "null"):
        raise ConfigurationError(f"the column {field.name} of {path} holds {field.type}: the rows were changed")
    return field.with_type(own) if kind in ("string", "timestamp", "null") else field


def _kind(stored: pa.DataType) -> str:
    """Return what a column holds, however it is written; ``null`` where another program saw no value."""
    kind = stored.value_type if pa.types.is_dictionary(stored) else stored
    name = re.split(r"[<\[]", str(kind))[0]
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return "number"
    return name.removeprefix("large_").removeprefix("fixed_size_").removesuffix("_view")


def fetch_rows(
    sources: Sequence[RowsSource],
    row_ids: IntArray,
    columns: Mapping[str, pa.DataType],
) -> Iterator[pa.Table]:
    """Yield rows in their order, a table for each row group that has any of them.

    Args:
        sources: The files of the table.
        row_ids: int64 (n,), ascending.
        columns: Name -> type of what is wanted, also ``row_id``. Where a file does not have a column, it is null.
    """
    starts = accumulate((source.rows for source in sources), initial=0)
    for source, start in zip(sources, starts, strict=False):
        inside = _between(row_ids, start, source.rows)
        if len(inside):
            yield from _fetch_from(source, inside, start, columns)


def _fetch_from(
    source: RowsSource, row_ids: IntArray, start: int, columns: Mapping[str, pa.DataType]
) -> Iterator[pa.Table]:
    present = [name for name in columns if name in source.schema.names]
    with source.place.open() as file:
        parquet = ParquetFile(file)
        for group in range(parquet.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            inside = _between(row_ids, start, rows)
            if len(inside):
                found = parquet.read_row_group(group, columns=present).take(pa.array(inside - start))
                yield _complete(found, inside, columns)
            start += rows


def _complete(found: pa.Table, row_ids: IntArray, columns: Mapping[str, pa.DataType]) -> pa.Table:
    arrays = {}
    for name, kind in columns.items():
        if name == ROW_ID:
            arrays[name] = pa.chunked_array([row_ids], kind)
        elif name in found.column_names:
            arrays[name] = found[name].cast(kind)
        else:
            arrays[name] = pa.chunked_array([pa.nulls(len(row_ids), kind)])
    return pa.table(arrays)


def _between(row_ids: IntArray, start: int, rows: int) -> IntArray:
    first, last = np.searchsorted(row_ids, [start, start + rows])
    return row_ids[first:last]
