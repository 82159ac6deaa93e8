"""Ratings: on disk at once, found again after a kill, undone one by one."""

import os
import sqlite3
import subprocess
import sys

import pytest

from explorer.table import write_table
from tastemaker import ScoreTable
from tastemaker.errors import ConfigurationError
from tastemaker.explorer.ratings import RATINGS_FILE, Picture, Rating, Ratings, ratings_path
from tastemaker.explorer.service import Explorer


def test_a_rating_survives_a_kill_and_is_found_by_the_picture_not_by_its_row(scores, tmp_path):
    code = (
        "import os, sys; from tastemaker.explorer.service import Explorer; e = Explorer([sys.argv[1]]); "
        "e.rate(3, 4, False); e.rate(5, 0, True); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(scores)], check=False).returncode == -9
    write_table(tmp_path / "before")  # twelve rows in front of these
    explorer = Explorer([str(tmp_path / "before" / "scores"), str(scores)], ratings=scores / RATINGS_FILE)
    assert explorer.ratings.of(3) == Rating()
    rows = [row for row in range(len(explorer.table)) if explorer.ratings.of(row) != Rating()]
    paths = [row["image_path"] for row in explorer.lookup.rows(rows)]
    explorer.close()
    assert paths == [f"{tmp_path}/shards/00000.tar/p{number:05d}.jpg" for number in (3, 5)]


def test_undo_takes_back_one_change_after_another_also_in_the_next_session(scores):
    first = Explorer([str(scores)])
    first.rate(1, 3, False)
    first.rate(1, 5, False)
    first.rate(2, 0, True)
    first.close()
    again = Explorer([str(scores)])
    assert again.undo_rating()["row"] == 2
    assert again.ratings.of(2) == Rating()
    assert (again.undo_rating()["stars"], again.undo_rating()["stars"]) == (3, 0)
    assert again.undo_rating()["row"] is None
    assert again.describe()["ratings"] == {"path": str(scores / RATINGS_FILE), "rated": 0, "rejected": 0, "changes": 0}
    again.close()


def test_the_file_is_durable_and_readable_by_people(explorer, scores):
    explorer.rate(0, 2, True)
    with sqlite3.connect(scores / RATINGS_FILE) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        rating = connection.execute("SELECT image_id, stars, rejected FROM ratings").fetchall()
    assert rating == [("p00000", 2, 1)]
    assert explorer.ratings._open().execute("PRAGMA synchronous").fetchone() == (2,)


def test_ratings_lie_among_the_users_data_where_the_table_cannot_be_written(scores, monkeypatch):
    assert ratings_path(str(scores), is_local=True) == scores / RATINGS_FILE
    assert "ratings" in str(ratings_path("s3://bucket/scores", is_local=False))
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert scores not in ratings_path(str(scores), is_local=True).parents


def test_a_rating_that_cannot_be_saved_is_an_error_and_not_kept(explorer, tmp_path):
    ratings = Ratings(tmp_path / "folder.sqlite", explorer.table)
    picture = Picture(0, "path", 0, "id")
    with pytest.raises(ConfigurationError, match="0 to 5"):
        ratings.rate(picture, Rating(6))
    (tmp_path / "folder.sqlite").mkdir()
    with pytest.raises(ConfigurationError, match="not saved"):
        ratings.rate(picture, Rating(3))
    assert ratings.of(0) == Rating()


def test_a_file_that_is_no_ratings_is_said_to_be_in_the_way(scores):
    path = scores / RATINGS_FILE
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"no database at all, but long enough to look like one" * 100)
    with pytest.raises(ConfigurationError, match="move it away"):
        Ratings(path, ScoreTable(str(scores)))
