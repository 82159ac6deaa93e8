"""Facets: the values that pictures are told apart by, their counts, and orders other than by score."""

from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest

from explorer.table import SCORES, set_column, write_large_table
from tastemaker import ScoreTable
from tastemaker.explorer.facets import MAX_DAYS
from tastemaker.explorer.index import Filter, ScoreIndex
from tastemaker.scores.marks import Marks

CANON, NIKON = "Canon EOS R5", "NIKON Z 8"
CAMERAS = [CANON] * 5 + [NIKON] * 4 + [None] * 3
DAYS = [datetime(2024, 5, 1 + number % 3, 12, 0, number) for number in range(11)] + [None]
FOLDERS = ["photos/wedding/a", "photos/wedding/b", "photos/o'brien"]
STARS = [5, 5, 4, -1, 0, 0, None, None, 3, 3, 3, 1]


@pytest.fixture
def index(tmp_path):
    folder = write_large_table(tmp_path / "rows", SCORES).parent
    names = [f"IMG_{9 - number % 10}{number}" for number in range(12)]
    set_column(folder, "camera", pa.array(CAMERAS))
    set_column(folder, "captured_at", pa.array(DAYS, pa.timestamp("us")))
    set_column(folder, "rating", pa.array(STARS, pa.int8()))
    set_column(folder, "shard", pa.nulls(12, pa.string()))
    set_column(folder, "image_id", pa.array(names))
    set_column(folder, "image_path", pa.array([f"{FOLDERS[n % 3]}/{name}.jpg" for n, name in enumerate(names)]))
    table = ScoreTable(str(folder))
    return ScoreIndex(table, Marks(table))


def counts(index, facet, search="", **chosen):
    values, others = index.count_values(Filter(**chosen), facet, search)
    return {value.name: value.images for value in values}, others


def rows(index, **chosen):
    return sorted(index.view(Filter(**chosen)).rows.tolist())


def test_values_of_a_facet_are_alternatives_and_facets_are_combined(index):
    assert rows(index, camera=f'["{CANON}"]') == [0, 1, 2, 3, 4]
    assert rows(index, camera=f'["{CANON}", null]') == [0, 1, 2, 3, 4, 9, 10, 11]
    assert rows(index, camera=f'["{CANON}", "{NIKON}"]', rated="4,5,rejected") == [0, 1, 2, 3]
    assert rows(index, folder='["photos/o\'brien"]', rated="unrated") == [5]
    assert rows(index, camera='["another"]') == rows(index, lens='["none has one"]') == []
    assert rows(index, lens="[null]") == list(range(12))


def test_counts_are_of_what_would_be_shown_if_the_value_were_chosen_alone(index):
    assert counts(index, "camera") == ({CANON: 5, NIKON: 4, "not known": 3}, 0)
    assert counts(index, "rated") == ({"5": 2, "4": 1, "3": 3, "1": 1, "unrated": 4, "rejected": 1}, 0)
    assert counts(index, "date")[0] == {"2024-05-01": 4, "2024-05-02": 4, "2024-05-03": 3, "not known": 1}
    assert counts(index, "folder")[0] == {"o'brien": 4, "wedding/a": 4, "wedding/b": 4}
    chosen = {"camera": f'["{NIKON}"]', "rated": "3,unrated"}
    for facet, name, value in (("camera", CANON, f'["{CANON}"]'), ("rated", "3", "3"), ("date", "2024-05-03", None)):
        only = chosen | {facet: value or f'["{name}"]'}
        assert counts(index, facet, **chosen)[0].get(name, 0) == len(rows(index, **only)), facet


def test_what_is_chosen_stays_in_the_list_and_a_search_finds_the_rest(tmp_path, index):
    assert counts(index, "camera", camera=f'["{CANON}"]', rated="3")[0] == {NIKON: 1, CANON: 0, "not known": 2}
    assert counts(index, "folder", search="WEDD")[0] == {"wedding/a": 4, "wedding/b": 4}
    number = 3 * MAX_DAYS
    folder = write_large_table(tmp_path / "many", [5.0] * number).parent
    times = np.datetime64("2020-01-01", "us") + np.arange(number).astype("timedelta64[D]")
    set_column(folder, "captured_at", pa.array(times))
    set_column(folder, "lens", pa.array([f"lens {n:03}" for n in range(number)]))
    table = ScoreTable(str(folder))
    many = ScoreIndex(table, Marks(table))
    assert list(counts(many, "date")[0]) == [f"2020-{month:02}" for month in range(1, 8)]
    shown, others = counts(many, "lens", lens='["lens 150"]')
    assert (len(shown), others, shown["lens 150"]) == (100, number - 100, 1)
    assert counts(many, "lens", search="s 15")[0].keys() == {f"lens 15{n}" for n in range(10)}


def test_counts_are_of_groups_where_only_the_best_of_each_is_shown(tmp_path, index):
    folder = write_large_table(tmp_path / "grouped", SCORES).parent
    set_column(folder, "camera", pa.array(CAMERAS))
    set_column(folder, "group", pa.array(["a", "a", "b", "b", "b", "b", "c", "c", None, None, None, None]))
    table = ScoreTable(str(folder))
    grouped = ScoreIndex(table, Marks(table))
    assert counts(grouped, "camera", group="best")[0] == {NIKON: 3, CANON: 2, "not known": 3}
    assert len(rows(grouped, group="best", camera=f'["{NIKON}"]')) == 3


def test_a_filtered_histogram_keeps_the_axis_and_the_cut_offs_of_the_whole(index):
    whole, part = (index.view(Filter(rated=rated)) for rated in ("", "3"))
    assert (part.chart.low, part.chart.high, part.chart.first) == (whole.chart.low, whole.chart.high, whole.chart.first)
    assert part.chart.reaching[0] == len(part.rows) == 3
    assert [part.count_from(round(n * 0.01, 2)) for n in (part.chart.first, 543, 611)] == [
        part.chart.reaching[n - part.chart.first] for n in (part.chart.first, 543, 611)
    ]
    assert index.view(Filter(rated="2")).chart.low == whole.chart.low


def test_orders_are_those_of_the_rows_and_what_is_not_known_comes_last(index):
    view = index.view(Filter())

    def arranged(order):
        return view.rows[index.facets.arrange(view.rows, order, index.ratings())].tolist()

    taken = sorted(range(11), key=lambda row: DAYS[row])
    assert arranged("oldest") == [*taken, 11]
    assert arranged("newest") == [*reversed(taken), 11]
    assert arranged("name") == sorted(range(12), key=lambda row: f"IMG_{9 - row % 10}{row}")
    by_stars = arranged("stars")
    assert [STARS[row] or 0 for row in by_stars] == sorted((stars or 0 for stars in STARS), reverse=True)
    assert by_stars[:2] == [0, 1]  # of equal stars the best first
    assert index.facets.orders == ["oldest", "newest", "stars", "name"]
