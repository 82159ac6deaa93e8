"""What a person says of pictures in the explorer: stars, rejections and colours, in an SQLite file beside the rows.

`ratings_of` has the rule whose rating counts: what is said in the explorer beats what the picture's file says (the
column ``rating``), and either beats the stars that the program makes of scores.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import platformdirs

from tastemaker.checks import check_choice
from tastemaker.errors import ConfigurationError
from tastemaker.scores.layout import STATE_FOLDER, results_of
from tastemaker.scores.schema import DELETED
from tastemaker.scores.table import ScoreTable
from tastemaker.storage.place import Place

logger = logging.getLogger(__name__)

MARKS_FILE = f"{STATE_FOLDER}/ratings.sqlite"
"""Below the directory of the results."""

LABELS = ("red", "yellow", "green", "blue", "purple")
"""The colour labels that Lightroom, Bridge and digiKam have."""

_NAMES = ("xxh3", "image_path", "offset", "image_id")

_TABLE = """
CREATE TABLE IF NOT EXISTS ratings (
    xxh3 TEXT NOT NULL, image_path TEXT NOT NULL, position INTEGER NOT NULL, image_id TEXT NOT NULL,
    stars INTEGER NOT NULL, rejected INTEGER NOT NULL, label TEXT NOT NULL, changed_at TEXT NOT NULL,
    PRIMARY KEY (xxh3, image_path, position)
);
"""


@dataclass(frozen=True)
class Mark:
    """What a person thinks of a picture.

    Attributes:
        stars: 0 to 5; 0 is none.
        rejected: Not wanted. Nothing is deleted.
        label: One of `LABELS`; empty for none. A label is no rating: what the file says still counts.
    """

    stars: int = 0
    rejected: bool = False
    label: str = ""

    @property
    def is_rating(self) -> bool:
        """Whether it has stars, or rejects."""
        return bool(self.stars or self.rejected)


@dataclass(frozen=True)
class _Picture:
    """What names a picture across runs: its content, with its place as a hint.

    Attributes:
        xxh3: The hash of its bytes; empty where the rows have none.
        image_path, position: Where it lies: its path, and its byte offset in the shard, -1 for a loose file.
        image_id: Its key, for people who read the file.
    """

    xxh3: str
    image_path: str
    position: int
    image_id: str = ""

    @property
    def place(self) -> tuple[str, int]:
        return self.image_path, self.position


_SAME: tuple[Callable[[_Picture], tuple[Any, ...] | None], ...] = (
    lambda p: (p.xxh3, *p.place),
    lambda p: (p.xxh3, os.path.basename(p.image_path)) if p.xxh3 else None,
    lambda p: (p.xxh3,) if p.xxh3 else None,
    lambda p: p.place,
)
"""What makes a picture the one that was marked, the surest first."""


Ratings = npt.NDArray[np.int8]
"""int8 (n,): 1 to 5 stars, 0 for none, `REJECTED`."""

REJECTED = -1


class Marks:
    """The marks of a table's pictures. Every change is on disk before `change` returns; others may change them, too.

    Args:
        table: The rows.
        path: The SQLite file; None for the one beside the rows. It is made with the first mark.

    Attributes:
        path: Of the file.
        version: Grows with every change that is seen here.

    Raises:
        ConfigurationError: The file is there and holds something else.
    """

    def __init__(self, table: ScoreTable, path: Path | None = None) -> None:
        self.path = path or marks_path(table)
        self.version = 0
        self._table = table
        self._lock = Lock()
        self._by_row: dict[int, Mark] = {}
        self._seen: int | None = None
        self._connection: sqlite3.Connection | None = None
        self.current()

    def current(self) -> Mapping[int, Mark]:
        """Return row -> mark of all that are marked, with what other programs have changed since."""
        with self._lock:
            if self.path.exists():
                self._refresh()
            return self._by_row

    def change(self, changes: Mapping[int, Mapping[str, Any]]) -> dict[int, Mark]:
        """Change the marks of rows in what is given, all of them or none, and return them.

        Args:
            changes: Row -> those of ``stars``, ``rejected`` and ``label`` that change.

        Raises:
            ConfigurationError: There are more than five stars, the label is none, or the file cannot be written.
        """
        _check(changes.values())
        pictures = dict(zip(changes, self._name(list(changes)), strict=True))
        with self._lock:
            try:
                with self._open() as connection:
                    connection.execute("BEGIN IMMEDIATE")
                    self._refresh()
                    marks = {row: replace(self._by_row.get(row, Mark()), **part) for row, part in changes.items()}
                    now = datetime.now(UTC).isoformat(timespec="microseconds")
                    connection.executemany(
                        "INSERT OR REPLACE INTO ratings VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                        [
                            (p.xxh3, *p.place, p.image_id, marks[row].stars, marks[row].rejected, marks[row].label, now)
                            for row, p in pictures.items()
                        ],
                    )
            except sqlite3.Error as error:
                raise ConfigurationError(f"the rating is not saved: {self.path}: {error}") from error
            self._by_row = {row: mark for row, mark in (self._by_row | marks).items() if mark != Mark()}
            self.version += 1
            return marks

    def follow(self) -> None:
        """Note what the bytes of the marked pictures are now, and where they lie.

        A picture that is found by one of the two after the other has changed is so found again once both have.

        Raises:
            ConfigurationError: The file cannot be read or written.
        """
        with self._lock:
            try:
                with self._open() as connection:
                    connection.execute("BEGIN IMMEDIATE")
                    known = _find_rows(self._table, self._read())
                    connection.executemany(
                        "UPDATE OR REPLACE ratings SET xxh3 = ?, image_path = ?, position = ?, image_id = ? "
                        "WHERE xxh3 = ? AND image_path = ? AND position = ?",
                        [
                            (now.xxh3, *now.place, now.image_id, before.xxh3, *before.place)
                            for now, before in zip(self._name(list(known)), known.values(), strict=True)
                            if now != before
                        ],
                    )
            except sqlite3.Error as error:
                raise ConfigurationError(f"the ratings do not follow their pictures: {self.path}: {error}") from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _name(self, rows: Sequence[int]) -> list[_Picture]:
        names = [name for name in _NAMES if name in self._table.columns]
        found = (dict.fromkeys(_NAMES) | row for row in self._table.take(rows, names).to_pylist())
        return [
            _Picture(
                row["xxh3"] or "",
                row["image_path"] or "",
                -1 if row["offset"] is None else row["offset"],
                row["image_id"] or "",
            )
            for row in found
        ]

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self.path, check_same_thread=False, timeout=10, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode = WAL")  # a disk that cannot do that keeps its own mode
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute(_TABLE)
        return self._connection

    def _refresh(self) -> None:
        """Read all marks where another program has changed them, or none were read yet."""
        try:
            seen = self._open().execute("PRAGMA data_version").fetchone()[0]
            if seen == self._seen:
                return
            stored = self._read()
        except sqlite3.Error as error:
            raise ConfigurationError(f"{self.path} is no file of ratings: {error}; move it away") from error
        found = _find_rows(self._table, stored).items()
        self._by_row = {row: stored[picture] for row, picture in found if stored[picture] != Mark()}
        self.version, self._seen = self.version + 1, seen

    def _read(self) -> dict[_Picture, Mark]:
        """Return all marks of the file, the newest first."""
        names = "xxh3, image_path, position, image_id, stars, rejected, label"
        query = f"SELECT {names} FROM ratings ORDER BY changed_at DESC"
        return {_Picture(*what): Mark(s, bool(r), label) for *what, s, r, label in self._open().execute(query)}


def follow_pictures(results: Place, storage_options: Mapping[str, Any] | None = None) -> None:
    """Let the marks follow their pictures to where they lie now: see `Marks.follow`. Nothing is done without marks.

    Args:
        results: The directory of the results.
        storage_options: For a URL.
    """
    path = _path_of(results)
    if path.exists():
        try:
            with closing(Marks(ScoreTable(results.address, storage_options=storage_options), path)) as marks:
                marks.follow()
        except ConfigurationError as error:  # the rows are as they are to be, whatever is in that file
            logger.warning("%s", error)


def ratings_of(table: ScoreTable, marks: Mapping[int, Mark] | None = None) -> Ratings:
    """Return what a person says of each row: the word that counts.

    Args:
        table: The rows.
        marks: As `Marks.current` returns them; None to read them.

    Raises:
        ConfigurationError: The file of the marks holds something else.
    """
    if marks is None:
        with closing(Marks(table)) as stored:
            marks = stored.current()
    ratings = np.zeros(len(table), np.int8)
    if "rating" in table.columns:
        ratings = np.nan_to_num(table.values("rating")).astype(np.int8)
    for row, mark in marks.items():
        if mark.is_rating:
            ratings[row] = REJECTED if mark.rejected else mark.stars
    return ratings


def _check(changes: Iterable[Mapping[str, Any]]) -> None:
    for change in changes:
        if not 0 <= (stars := change.get("stars", 0)) <= 5:
            raise ConfigurationError(f"{stars} stars: there are 0 to 5")
        check_choice("label", change.get("label", ""), ("", *LABELS))


def marks_path(table: ScoreTable) -> Path:
    """Return where the marks of a table lie: beside its rows, or among the user's data where that cannot be written.

    Args:
        table: The rows; of several places the first one counts.
    """
    return _path_of(results_of(table.sources[0].place.parent))


def _path_of(results: Place) -> Path:
    folder = results.local_path
    if folder is not None:
        beside = folder / MARKS_FILE
        if os.access(beside if beside.exists() else beside.parent if beside.parent.exists() else folder, os.W_OK):
            return beside
    name = hashlib.sha256(str(folder or results).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return Path(platformdirs.user_data_dir("tastemaker")) / "ratings" / f"{name}.sqlite"


def _find_rows(table: ScoreTable, stored: Collection[_Picture]) -> dict[int, _Picture]:
    """Return row -> the picture that was marked. Each row takes one, and each picture goes to one row."""
    if not stored:
        return {}
    xxh3 = "coalesce(xxh3, '')" if "xxh3" in table.columns else "''"
    rows = table.query(
        f'SELECT min(row_id) AS row_id, {xxh3} AS xxh3, image_path, coalesce("offset", -1) AS position FROM rows '
        f"WHERE status IS DISTINCT FROM '{DELETED}' AND (image_path IN (SELECT unnest($paths)) "
        f"OR ({xxh3} <> '' AND {xxh3} IN (SELECT unnest($hashes)))) GROUP BY ALL",
        {"paths": [picture.image_path for picture in stored], "hashes": [picture.xxh3 for picture in stored]},
    ).to_pylist()
    left = {row["row_id"]: _Picture(row["xxh3"], row["image_path"], row["position"]) for row in rows}
    waiting, found = list(stored), {}
    for same in _SAME:
        known: dict[Any, int] = {same(picture): row for row, picture in sorted(left.items(), reverse=True)}
        for picture in list(waiting):
            row = known.pop(same(picture), None) if same(picture) is not None else None
            if row is not None:
                found[row] = picture
                waiting.remove(picture)
                del left[row]
    return found
