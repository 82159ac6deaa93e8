"""The database that answers questions about rows: DuckDB in memory, over files that stay where they are."""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from tastemaker.children import Child, ChildDiedError
from tastemaker.errors import ConfigurationError
from tastemaker.machine import usable_cores
from tastemaker.scores.conditions import APART
from tastemaker.scores.locations import ROW_ID, RowsSource
from tastemaker.storage import Options, is_remote
from tastemaker.storage.drafts import draft_folder
from tastemaker.storage.system import PlaceSystem

EMBEDDING = "embedding"
"""This column is read only if it is named: it is a hundred times as large as all others together."""

NO_EMBEDDINGS = (
    "the rows have no embeddings: score with a model (not --rank-by technical_quality) and without --no-embeddings, or "
    "embeddings with --copy-embeddings"
)


Parameters = Sequence[Any] | Mapping[str, Any] | None


class Database:
    """Answers questions about rows.

    DuckDB can be stopped between blocks of 2,048 rows only. What somebody wrote may keep it busy within a block for
    minutes, so a question with such a condition is answered by a child process, which can be killed at any time.

    Args:
        sources: The files, in the order of the rows.
        columns: Name -> type of all columns.
        options: For files at URLs.

    Raises:
        duckdb.Error: The files cannot be read together.
    """

    def __init__(self, sources: Sequence[RowsSource], columns: Mapping[str, pa.DataType], options: Options) -> None:
        self._folder = Path(tempfile.mkdtemp(dir=draft_folder()))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._open = partial(_open_database, self._folder, columns=dict(columns), options=options)
        self._sources = sources
        self._here = self._open(sources)
        self._idle: list[Child] = []
        weakref.finalize(self, _end, self._idle)

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """Return a connection to the database in this process."""
        return self._here.cursor()

    def ask(self, sql: str, parameters: Parameters = None, limit_s: float | None = None) -> pa.Table:
        """Return the result of one SELECT; see `tastemaker.scores.table.ScoreTable.query`.

        Raises:
            ConfigurationError: It is no single SELECT, or was stopped.
            duckdb.Error: DuckDB refuses it.
        """
        return (self._ask_child if APART in sql else self._ask_here)(sql, parameters, limit_s)

    def _ask_here(self, sql: str, parameters: Parameters, limit_s: float | None) -> pa.Table:
        with self._here.cursor() as cursor, _limited(limit_s, cursor.interrupt):
            try:
                return _answer(cursor, sql, parameters)
            except RuntimeError as error:  # DuckDB puts its own in the place of what a signal raised
                raise KeyboardInterrupt from error
            except duckdb.InterruptException as error:
                raise _stopped(limit_s) from error

    def _ask_child(self, sql: str, parameters: Parameters, limit_s: float | None) -> pa.Table:
        try:
            child = self._idle.pop()
        except IndexError:
            # What this process sees at a URL, also once its branch has got another commit.
            pinned = [replace(source, path=source.place.pinned().address) for source in self._sources]
            child = Child(partial(_serve, partial(self._open, pinned)))
        started = time.monotonic()
        try:
            with _limited(limit_s, child.kill):
                found = child.do((sql, parameters))
        except ChildDiedError as error:
            in_time = limit_s is None or time.monotonic() - started < limit_s
            raise (ConfigurationError("the query ended its process") if in_time else _stopped(limit_s)) from error
        if child.is_alive:  # the time may have been up just when the answer came
            self._idle.append(child)
        if isinstance(found, Exception):
            raise found
        return pa.ipc.open_stream(found).read_all()


def _answer(cursor: duckdb.DuckDBPyConnection, sql: str, parameters: Parameters) -> pa.Table:
    statements = cursor.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise ConfigurationError(f"a query is one SELECT, not {sql!r}")
    if re.search(rf"\b{EMBEDDING}\b", sql, re.IGNORECASE):
        cursor.execute("USE whole")
    return cursor.sql(sql, params=parameters).to_arrow_table()


def _stopped(limit_s: float | None) -> ConfigurationError:
    why = "was interrupted" if limit_s is None else f"took longer than {limit_s:g} seconds and was stopped"
    return ConfigurationError(f"the query {why}; ask for less")


@contextmanager
def _limited(seconds: float | None, stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` if the block takes longer; never once the block has ended."""
    timer = threading.Timer(seconds or 0, stop)
    timer.daemon = True
    if seconds is not None:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if seconds is not None:
            timer.join()


def _serve(
    open_: Callable[[], duckdb.DuckDBPyConnection],
) -> Callable[[tuple[str, Parameters]], pa.Buffer | Exception]:
    """Open the database, and return what answers a question with a table in Arrow's format, or with an error."""
    database = open_()

    def answer(question: tuple[str, Parameters]) -> pa.Buffer | Exception:
        try:
            with database.cursor() as cursor:
                found = _answer(cursor, *question)
        except (duckdb.Error, ConfigurationError) as error:
            return error
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, found.schema) as stream:
            stream.write_table(found)
        return sink.getvalue()

    return answer


def _end(children: list[Child]) -> None:
    for child in children:
        child.kill()


def _open_database(
    folder: Path, sources: Sequence[RowsSource], columns: Mapping[str, pa.DataType], options: Options
) -> duckdb.DuckDBPyConnection:
    """Return a database in memory with the view ``rows`` over files. It can read these files, and nothing else."""
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
    if not link.is_symlink():  # a child has the same
        link.symlink_to(path)
    return str(link)


def sql_name(name: str) -> str:
    """Return the name of a column as SQL."""
    return '"' + name.replace('"', '""') + '"'


def sql_text(value: str) -> str:
    """Return a text as SQL."""
    return "'" + value.replace("'", "''") + "'"
