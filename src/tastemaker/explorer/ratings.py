"""The user's own ratings: stars and rejections in a small SQLite file beside the score table."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

import platformdirs

from tastemaker.checks import check_choice
from tastemaker.errors import ConfigurationError
from tastemaker.scores.table import ScoreTable

RATINGS_FILE = "_tastemaker/ratings.sqlite"
"""Below the directory of the rows. Programs that read the directory as one table pass over it."""

CHOICES = ("rated", "unrated", "rejected", "1", "2", "3", "4", "5")
"""What `rated_condition` knows."""

_TABLES = """
CREATE TABLE IF NOT EXISTS ratings (
    image_path TEXT NOT NULL, position INTEGER NOT NULL, image_id TEXT NOT NULL,
    stars INTEGER NOT NULL, rejected INTEGER NOT NULL, changed_at TEXT NOT NULL,
    PRIMARY KEY (image_path, position)
);
CREATE TABLE IF NOT EXISTS changes (
    number INTEGER PRIMARY KEY, image_path TEXT NOT NULL, position INTEGER NOT NULL, image_id TEXT NOT NULL,
    stars_before INTEGER NOT NULL, rejected_before INTEGER NOT NULL
);
"""


@dataclass(frozen=True)
class Rating:
    """What the user thinks of a picture.

    Attributes:
        stars: 0 to 5; 0 is none.
        rejected: Marked as not wanted. Nothing is deleted.
    """

    stars: int = 0
    rejected: bool = False


@dataclass(frozen=True)
class Picture:
    """Which picture is rated: its row, and what names it across runs.

    Attributes:
        row: Number of its row in the table.
        image_path, position: Where it lies: its path, and its byte offset in the shard.
        image_id: Its key, for people who read the file.
    """

    row: int
    image_path: str
    position: int
    image_id: str


class Ratings:
    """The ratings of a table's pictures. Every change is on disk before `rate` returns.

    Args:
        path: The SQLite file; it is made with the first rating.
        table: Whose rows they are found in again.

    Attributes:
        path: As given.
        version: Grows with every change.

    Raises:
        ConfigurationError: The file is there and holds something else.
    """

    def __init__(self, path: Path, table: ScoreTable) -> None:
        self.path = path
        self.version = 0
        self._lock = Lock()
        self._by_row: dict[int, Rating] = {}
        self._connection: sqlite3.Connection | None = None
        if path.exists():
            self._by_row = self._read(table)

    def of(self, row: int) -> Rating:
        """Return the rating of a row."""
        return self._by_row.get(row, Rating())

    def rows(self, choice: str) -> list[int]:
        """Return the rows that are ``rated``, ``rejected``, or have so many stars or more, in ascending order."""

        def passes(rating: Rating) -> bool:
            if choice == "rated":
                return rating != Rating()
            return rating.rejected if choice == "rejected" else rating.stars >= int(choice) and not rating.rejected

        with self._lock:
            return sorted(row for row, rating in self._by_row.items() if passes(rating))

    def counts(self) -> dict[str, int]:
        """Return how many pictures have a rating, how many of them are rejected, and how many changes can be undone."""
        with self._lock:
            changes = self._open().execute("SELECT count(*) FROM changes").fetchone()[0] if self.path.exists() else 0
            present = self._by_row.values()
            return {
                "rated": sum(r != Rating() for r in present),
                "rejected": sum(r.rejected for r in present),
                "changes": changes,
            }

    def rate(self, picture: Picture, rating: Rating) -> None:
        """Save a rating. What it was before can be had again with `undo`.

        Raises:
            ConfigurationError: There are more than five stars, or the file cannot be written.
        """
        if not 0 <= rating.stars <= 5:
            raise ConfigurationError(f"{rating.stars} stars: there are 0 to 5")
        with self._lock:
            before = self._by_row.get(picture.row, Rating())
            what = (picture.image_path, picture.position, picture.image_id)
            try:
                with self._open() as connection:
                    connection.execute(
                        "INSERT INTO changes (image_path, position, image_id, stars_before, rejected_before) "
                        "VALUES (?, ?, ?, ?, ?)",
                        (*what, before.stars, before.rejected),
                    )
                    _store(connection, what, rating)
            except sqlite3.Error as error:
                raise ConfigurationError(f"the rating is not saved: {self.path}: {error}") from error
            self._remember(picture.row, rating)

    def undo(self, table: ScoreTable) -> tuple[int | None, Rating] | None:
        """Take the last change back; return the row and its rating now, None where there is nothing to take back.

        The row is None where the picture is no longer in the table.
        """
        with self._lock:
            if not self.path.exists():
                return None
            with self._open() as connection:
                change = connection.execute("SELECT * FROM changes ORDER BY number DESC LIMIT 1").fetchone()
                if change is None:
                    return None
                number, *what, stars, rejected = change
                rating = Rating(stars, bool(rejected))
                connection.execute("DELETE FROM changes WHERE number = ?", (number,))
                _store(connection, tuple(what), rating)
            row = _find_rows(table, [(what[0], what[1])]).get((what[0], what[1]))
            if row is not None:
                self._remember(row, rating)
            return row, rating

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _remember(self, row: int, rating: Rating) -> None:
        self.version += 1
        if rating == Rating():
            self._by_row.pop(row, None)
        else:
            self._by_row[row] = rating

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self.path, check_same_thread=False, timeout=10)
            self._connection.execute("PRAGMA journal_mode = WAL")  # a disk that cannot do that keeps its own mode
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(_TABLES)
        return self._connection

    def _read(self, table: ScoreTable) -> dict[int, Rating]:
        try:
            query = "SELECT image_path, position, stars, rejected FROM ratings WHERE stars > 0 OR rejected > 0"
            stored = {(path, position): Rating(s, bool(r)) for path, position, s, r in self._open().execute(query)}
        except sqlite3.Error as error:
            raise ConfigurationError(f"{self.path} is no file of ratings: {error}; move it away") from error
        found = _find_rows(table, list(stored))
        return {row: stored[where] for where, row in found.items()}


def ratings_path(source: str, is_local: bool) -> Path:
    """Return where the ratings of a table lie: beside it, or among the user's data where nothing can be written there.

    Args:
        source: The first place that the table was opened from.
        is_local: Whether that is on this machine.
    """
    if is_local:
        folder = Path(source) if os.path.isdir(source) else Path(source).parent
        beside = folder.absolute() / RATINGS_FILE
        if os.access(beside if beside.exists() else beside.parent if beside.parent.exists() else folder, os.W_OK):
            return beside
    name = hashlib.sha256(source.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return Path(platformdirs.user_data_dir("tastemaker")) / "ratings" / f"{name}.sqlite"


def rated_condition(choice: str, ratings: Ratings) -> str:
    """Return a filter on ratings as SQL over the rows; empty for all.

    Raises:
        ConfigurationError: It is none of `CHOICES`.
    """
    if not choice:
        return ""
    check_choice("rated", choice, CHOICES)
    rows = ratings.rows("rated" if choice == "unrated" else choice)
    numbers = ", ".join(map(str, rows)) or "-1"
    return f"row_id {'NOT IN' if choice == 'unrated' else 'IN'} ({numbers})"


def _store(connection: sqlite3.Connection, what: tuple[Any, ...], rating: Rating) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    connection.execute(
        "INSERT OR REPLACE INTO ratings VALUES (?, ?, ?, ?, ?, ?)", (*what, rating.stars, rating.rejected, now)
    )


def _find_rows(table: ScoreTable, places: list[tuple[str, int]]) -> dict[tuple[str, int], int]:
    """Return the rows of pictures that are named by path and position."""
    if not places:
        return {}
    paths = sorted({path for path, _ in places})
    found = table.query(
        'SELECT row_id, image_path, coalesce("offset", -1) AS position FROM rows '
        "WHERE image_path IN (SELECT unnest($paths))",
        {"paths": paths},
    ).to_pylist()
    wanted = set(places)
    rows = {(row["image_path"], row["position"]): row["row_id"] for row in reversed(found)}
    return {where: row for where, row in rows.items() if where in wanted}
