"""The database that answers questions about rows: DuckDB in memory, over files that stay where they are."""

from __future__ import annotations

import re
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import duckdb
import pyarrow as pa

from tastemaker.machine import usable_cores
from tastemaker.scores.fetch import ROW_ID
from tastemaker.scores.locations import RowsSource
from tastemaker.storage import Options, is_remote
from tastemaker.storage.drafts import draft_folder
from tastemaker.storage.system import PlaceSystem

EMBEDDING = "embedding"
"""This column is read only if it is named: it is a hundred times as large as all others together."""


def open_database(
    owner: object, sources: Sequence[RowsSource], columns: Mapping[str, pa.DataType], options: Options
) -> duckdb.DuckDBPyConnection:
    """Return a database in memory with the view ``rows`` over files of rows. It can read these files, and nothing else.

    Args:
        owner: The database's temporary files are deleted with this object.
        sources: The files, in the order of the rows.
        columns: Name -> type of all columns.
        options: For files at URLs.

    Raises:
        duckdb.Error: The files cannot be read together.
    """
    folder = Path(tempfile.mkdtemp(dir=draft_folder()))
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    database = duckdb.connect(
        ":memory:",
        config={
            "threads": usable_cores(),
            "temp_directory": str(folder / "spilled"),
            "python_enable_replacements": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        },
    )
    for protocol in sorted({source.path.partition("://")[0] for source in sources if is_remote(source.path)}):
        database.register_filesystem(PlaceSystem(protocol, options))
    paths = [_readable_path(source.path, folder, number) for number, source in enumerate(sources)]
    files = "[" + ", ".join(sql_text(path) for path in paths) + "]"
    starts = [0, *accumulate(source.rows for source in sources)][:-1]
    without = f"EXCLUDE ({EMBEDDING})" if EMBEDDING in columns else ""
    texts = [name for name in ("json", "metadata") if pa.types.is_string(columns.get(name, pa.null()))]
    valid = ", ".join(f"CASE WHEN json_valid({name}) THEN {name} END AS {name}" for name in texts)
    differ = any(not source.schema.equals(sources[0].schema) for source in sources)
    database.execute("SET parquet_metadata_cache = true")
    database.execute("CREATE SCHEMA whole")
    database.execute(
        f"CREATE VIEW whole.rows AS SELECT {starts}[file_index::BIGINT + 1]::BIGINT + file_row_number AS {ROW_ID}, * "
        f"FROM read_parquet({files}, union_by_name = {differ}, hive_partitioning = false)"
    )
    ranks = [f"percent_rank() OVER (PARTITION BY {name} IS NULL ORDER BY {name})" for name in "ab"]
    database.execute(
        "CREATE MACRO rank_average(a, b) AS "
        f"CASE WHEN a IS NOT NULL AND b IS NOT NULL THEN ({' + '.join(ranks)}) / 2 END"
    )
    # A sidecar that is no JSON would end every query that looks into the column.
    database.execute(f"CREATE VIEW rows AS SELECT * {without} {f'REPLACE ({valid})' if valid else ''} FROM whole.rows")
    database.execute(f"SET allowed_paths = {files}")
    database.execute("SET enable_external_access = false")
    database.execute("SET lock_configuration = true")
    return database


def _readable_path(path: str, folder: Path, number: int) -> str:
    """Return a path that DuckDB can open: a link to it, if the name looks like a pattern or is no UTF-8."""
    if is_remote(path) or (not re.search(r"[*?\[]", path) and path.isprintable()):
        return path
    link = folder / f"{number}.parquet"
    link.symlink_to(path)
    return str(link)


def sql_name(name: str) -> str:
    """Return the name of a column as SQL."""
    return '"' + name.replace('"', '""') + '"'


def sql_text(value: str) -> str:
    """Return a text as SQL."""
    return "'" + value.replace("'", "''") + "'"
