"""What a person says: on disk at once, found again by content, seen by all pages, and never exported against it."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from rows import write_scores

from explorer.table import SCORES, encode_picture, set_column, write_table
from tastemaker import ScoreTable, Selection, StarOptions, select_images, write_stars
from tastemaker.errors import ConfigurationError
from tastemaker.explorer.index import Filter
from tastemaker.explorer.service import Explorer
from tastemaker.imaging.embedded import file_rating
from tastemaker.imaging.xmp import make_xmp, read_label, read_rating
from tastemaker.runs.options import RunOptions
from tastemaker.runs.run import run_scoring
from tastemaker.scores.cutoff import Top
from tastemaker.scores.marks import MARKS_FILE, Mark, Marks, marks_path, ratings_of
from tastemaker.selections.selection import choose_rows

ALL = Filter()


def rate(explorer, row, stars=None, rejected=None):
    given = {"stars": stars, "rejected": rejected}
    (rating,) = explorer.rate(ALL, {row: {name: value for name, value in given.items() if value is not None}})
    return rating


@pytest.fixture
def photos(tmp_path):
    """The results of a run over four loose pictures."""
    (tmp_path / "photos").mkdir()
    for number in range(4):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(encode_picture(number, 64 + number, 48))
    score(tmp_path)
    return tmp_path


def score(folder, name="photos"):
    return run_scoring([str(folder / name)], folder / "out", RunOptions(rank_by="technical_quality", signals=True))


def said(table):
    rows = zip(table.to_arrow().to_pylist(), ratings_of(table).tolist(), strict=True)
    return {row["image_id"]: rating for row, rating in rows if row["status"] != "deleted"}


def test_a_rating_survives_a_kill_and_is_found_by_the_picture_not_by_its_row(scores, tmp_path):
    code = (
        "import os, sys; from tastemaker import ScoreTable; from tastemaker.scores.marks import Marks; "
        "m = Marks(ScoreTable(sys.argv[1])); m.change({3: {'stars': 4}}); m.change({5: {'rejected': True}}); "
        "os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(scores)], check=False).returncode == -9
    write_table(tmp_path / "before")  # twelve rows in front of these
    table = ScoreTable([str(tmp_path / "before" / "scores"), str(scores)])
    marks = Marks(table, scores / MARKS_FILE)
    paths = {row["image_path"] for row in table.take(list(marks.current())).to_pylist()}
    marks.close()
    assert paths == {f"{tmp_path}/shards/00000.tar/p{number:05d}.jpg" for number in (3, 5)}


def test_a_folder_that_was_renamed_keeps_its_ratings(photos):
    marks = Marks(ScoreTable(photos / "out"))
    marks.change({1: {"stars": 4}})
    marks.change({2: {"rejected": True}})
    (photos / "photos").rename(photos / "other")
    (photos / "other" / "1.jpg").rename(photos / "other" / "first.jpg")
    score(photos, "other")
    expected = {"0": 0, "first": 4, "2": -1, "3": 0}
    assert {key.rpartition("/")[2]: rating for key, rating in said(ScoreTable(photos / "out")).items()} == expected


def test_a_picture_that_was_edited_keeps_its_rating(photos):
    marks = Marks(ScoreTable(photos / "out"))
    marks.change({2: {"rejected": True}})
    with open(photos / "photos" / "2.jpg", "ab") as file:
        file.write(b"edited")
    score(photos)
    assert said(ScoreTable(photos / "out")) == {"0": 0, "1": 0, "2": -1, "3": 0}


def test_a_picture_that_moved_and_was_edited_keeps_its_rating_whatever_came_first(photos):
    marks = Marks(ScoreTable(photos / "out"))
    marks.change({0: {"stars": 3}, 2: {"rejected": True}})
    folder = photos / "photos"
    for step in range(4):
        if step % 2:
            for number in (0, 2):
                with open(folder / f"{number}.jpg", "ab") as file:
                    file.write(b"edited")
        else:
            folder = folder.rename(photos / f"other{step}")
        score(photos, folder.name)
        assert said(ScoreTable(photos / "out")) == {"0": 3, "1": 0, "2": -1, "3": 0}, step


def test_ratings_that_other_programs_gave_after_the_scoring_count_from_the_next_run_on(photos):
    folder = photos / "photos"

    def rate_beside(name, rating, **made):
        xmp = make_xmp(rating, **made)
        (folder / name).write_bytes(xmp.replace(b'"Tastemaker"', b'"XMP Core 4.4.0-Exiv2"'))

    rate_beside("3.jpg.xmp", 3)
    with open(folder / "3.jpg", "ab") as file:
        file.write(b"edited")
    assert score(photos).rerated == 0, "it was scored with its sidecar"
    rate_beside("0.jpg.xmp", -1)
    rate_beside("1.xmp", 4)
    rate_beside("2.jpg.xmp", 5, by_score=True)
    before = ScoreTable(photos / "out").values("technical_quality").tolist()
    assert (score(photos).rerated, score(photos).rerated) == (2, 0)
    table = ScoreTable(photos / "out")
    assert said(table) == {"0": -1, "1": 4, "2": 0, "3": 3}
    assert table.values("technical_quality").tolist() == before
    (folder / "3.jpg.xmp").unlink()
    rate_beside("1.xmp", 2)
    folder.rename(photos / "other")
    summary = score(photos, "other")
    assert (summary.rerated, summary.moved, summary.images_scored_now) == (2, 4, 0)
    assert said(ScoreTable(photos / "out")) == {"0": -1, "1": 2, "2": 0, "3": 0}
    table = ScoreTable(photos / "out")
    row, marks = table.to_arrow(["image_id"])["image_id"].to_pylist().index("3"), Marks(table)
    write_it = Selection(row_ids=[row], rank_by="technical_quality", with_rejected=True)
    marks.change({row: {"rejected": True}})
    assert write_stars(table, write_it).created == 1
    score(photos, "other")
    marks.change({row: {"rejected": False}})
    assert said(ScoreTable(photos / "out"))["3"] == 0, "one thought otherwise"


def test_ratings_that_cannot_be_read_do_not_stop_a_scoring(photos):
    (photos / "out" / MARKS_FILE).write_bytes(b"no database at all, but long enough to look like one" * 100)
    (photos / "photos" / "0.jpg").rename(photos / "photos" / "first.jpg")
    score(photos)
    rows = ScoreTable(photos / "out").to_arrow(["image_id"], "status <> 'deleted'")
    assert sorted(rows["image_id"].to_pylist()) == ["1", "2", "3", "first"]


def test_of_two_copies_of_a_picture_only_the_one_that_was_rated_is(photos):
    (photos / "photos" / "copy.jpg").write_bytes((photos / "photos" / "1.jpg").read_bytes())
    score(photos)
    table = ScoreTable(photos / "out")
    row = [row["image_id"] for row in table.to_arrow().to_pylist()].index("copy")
    marks = Marks(table)
    marks.change({row: {"rejected": True}})
    marks.close()
    assert [key for key, rating in said(ScoreTable(photos / "out")).items() if rating] == ["copy"]


def test_two_programs_on_one_table_lose_no_rating(scores):
    one, two = Explorer([str(scores)]), Explorer([str(scores)])
    rate(one, 3, stars=4)
    assert rate(two, 3, rejected=True)["stars"] == 4  # only what changes is said
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda row: [rate((one, two)[n % 2], row, stars=n) for n in (1, 2, 3)], range(12)))
    expected = [(3, n == 3) for n in range(12)]
    for explorer in (one, two):
        found = {item["name"]: (item["stars"], item["rejected"]) for item in explorer.rows(ALL, range(12))}
        assert [found[f"p{number:05d}"] for number in range(12)] == expected
        explorer.close()


def test_ratings_lie_among_the_users_data_where_the_table_cannot_be_written(scores, monkeypatch):
    table = ScoreTable(scores)
    assert marks_path(table) == scores / MARKS_FILE
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert scores not in marks_path(table).parents


def test_a_rating_that_cannot_be_saved_is_an_error_and_not_kept(scores, tmp_path):
    marks = Marks(ScoreTable(scores), tmp_path / "folder.sqlite")
    with pytest.raises(ConfigurationError, match="0 to 5"):
        marks.change({0: {"stars": 6}})
    (tmp_path / "folder.sqlite").mkdir()
    with pytest.raises(ConfigurationError, match="not saved"):
        marks.change({0: {"stars": 3}})
    (tmp_path / "folder.sqlite").rmdir()
    assert not marks.current()


def test_a_file_that_is_no_ratings_is_said_to_be_in_the_way(scores):
    (scores / MARKS_FILE).parent.mkdir(exist_ok=True)
    (scores / MARKS_FILE).write_bytes(b"no database at all, but long enough to look like one" * 100)
    with pytest.raises(ConfigurationError, match="move it away"):
        Marks(ScoreTable(scores))


def test_the_explorers_word_beats_the_files_and_the_files_counts_where_there_is_none(scores):
    set_column(scores, "rating", pa.array([5, -1, 3, -1, *[None] * 10], pa.int8()))
    explorer = Explorer([str(scores)])
    rate(explorer, 2, stars=1)
    rate(explorer, 3, stars=4)
    shown = {item["row"]: (item["stars"], item["rejected"], item["said_by"]) for item in explorer.rows(ALL, range(20))}
    assert [shown[row] for row in range(5)] == [
        (5, False, "file"),
        (0, True, "file"),
        (1, False, "page"),
        (4, False, "page"),
        (0, False, ""),
    ]
    choices = ("4,5", "rejected", "rejected,1,2,3,4,5")
    rows = {choice: explorer.index.view(Filter(rated=choice)).rows.tolist() for choice in choices}
    assert {choice: sorted(found) for choice, found in rows.items()} == {
        "4,5": [0, 3],
        "rejected": [1],
        "rejected,1,2,3,4,5": [0, 1, 2, 3],
    }
    explorer.close()


@pytest.mark.parametrize(
    "selection", [Selection(min_score=5.0), Selection(top=Top(4)), Selection(row_ids=[0, 5]), Selection(where="true")]
)
def test_what_is_rejected_is_selected_only_if_one_says_so(explorer, selection):
    before = choose_rows(explorer.table, selection).rows.tolist()
    rate(explorer, 5, rejected=True)
    after = choose_rows(explorer.table, selection).rows.tolist()
    assert 5 in before
    assert 5 not in after
    assert len(after) == len(before) - (selection.top is None)  # a number is kept exactly
    asked = Selection(**{**vars(selection), "with_rejected": True})
    assert choose_rows(explorer.table, asked).rows.tolist() == before


def test_counts_of_page_and_selection_leave_out_what_is_rejected(explorer, tmp_path):
    for row in (5, 3, 2):
        rate(explorer, row, rejected=True)
    view = explorer.view(ALL)
    order = sorted(range(12), key=lambda row: (-SCORES[row], row))
    assert [order[place] for place in view["rejected"]] == [5, 3, 2]
    for typed, selection in (
        ("5.42", Selection(min_score=5.42)),
        ("25%", Selection(top=Top(share=0.25))),
        ("top 3", Selection(top=Top(3))),
    ):
        kept = explorer.cut(ALL, typed)["kept"]
        assert select_images(explorer.table, tmp_path / typed, selection, kind="folder").written == kept > 0


def test_stars_of_the_explorer_go_into_sidecars_over_the_files_own(photos):
    table = ScoreTable(photos / "out")
    marks = Marks(table)
    marks.change({0: {"stars": 2}})
    marks.change({1: {"rejected": True}})
    marks.change({3: {"label": "green"}})
    marks.close()
    (photos / "photos" / "0.jpg.xmp").write_text(
        "<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>"
        "<rdf:Description xmlns:xmp='http://ns.adobe.com/xap/1.0/' xmp:Rating='5'/></rdf:RDF></x:xmpmeta>"
    )
    everything = Selection(where="true", rank_by="technical_quality")
    own = write_stars(table, everything, StarOptions(bounds=()), dry_run=True)
    assert [Path(path).name for path, _, _ in own.changes] == ["0.jpg", "3.jpg"]
    report = write_stars(table, everything, StarOptions(bounds=(1.0,)))
    assert (report.images, report.starred, report.labelled) == (3, 3, 1)
    sidecars = [photos / "photos" / f"{n}.jpg.xmp" for n in (0, 2, 3)]
    assert [read_rating(sidecar.read_bytes(), by_score=True) for sidecar in sidecars] == [2, 5, 5]
    assert [file_rating(photos / "photos" / f"{n}.jpg") for n in range(4)] == [2, None, None, None]
    assert [read_label(sidecar.read_bytes()) for sidecar in sidecars] == ["", "", "green"]
    write_stars(table, Selection(row_ids=[1], rank_by="technical_quality", with_rejected=True))
    assert file_rating(photos / "photos" / "1.jpg") == -1


def test_a_view_by_ratings_stays_as_it_is_while_one_rates(explorer):
    unrated = Filter(rated="unrated", asked="1")
    before = explorer.index.view(unrated).rows.tolist()
    rate(explorer, before[0], stars=3)
    assert explorer.index.view(unrated).rows.tolist() == before
    assert explorer.index.view(Filter(rated="unrated", asked="2")).rows.tolist() == before[1:]
    assert np.array_equal(explorer.marks.current()[before[0]], Mark(3))


def test_ratings_lie_beside_the_rows_of_their_run_wherever_in_it_and_below_what_the_rows_are(tmp_path):
    (tmp_path / "rows" / "out" / "_tastemaker").mkdir(parents=True)
    for below in ("rows/a.parquet", "rows/more/a.parquet", "rows/rows/a.parquet"):
        path = write_scores(tmp_path / "rows" / "out" / below, [5.0])
        assert marks_path(ScoreTable(path)) == tmp_path / "rows" / "out" / MARKS_FILE
    path = write_scores(tmp_path / "rows" / "project" / "mine.parquet", [5.0])
    assert marks_path(ScoreTable(path)) == path.parent / MARKS_FILE
