"""The order of the pictures, the counts of every cut-off, filters: the same as DuckDB and `select` have them."""

import numpy as np
import pytest

from explorer.table import write_large_table
from tastemaker import ScoreTable
from tastemaker.errors import ConfigurationError
from tastemaker.explorer.chart import MAX_EDGES
from tastemaker.explorer.index import Filter, ScoreIndex
from tastemaker.scores.cutoff import Top, name_cutoff
from tastemaker.scores.marks import Marks


@pytest.fixture
def index_of(tmp_path):
    def make(path):
        table = ScoreTable(str(path))
        return ScoreIndex(table, Marks(table, tmp_path / "ratings.sqlite"))

    return make


def test_every_count_in_the_page_is_what_duckdb_counts(tmp_path, index_of):
    rng = np.random.default_rng(0)
    scores = np.round(rng.normal(5.2, 0.7, 3000), 2).tolist() + rng.normal(5.2, 0.7, 3000).tolist()
    path = write_large_table(tmp_path / "many", [float(score) for score in scores])
    index = index_of(path)
    chart = index.view(Filter()).chart
    for number, kept in enumerate(chart.reaching):
        score = round((chart.first + number) * 0.01, 2)
        assert kept == index.table.cutoff(min_score=score).kept, score
    edge = "SELECT count(*) AS n FROM rows WHERE aesthetic_score >= 5.42::FLOAT"
    assert chart.reaching[542 - chart.first] == index.table.query(edge).to_pylist()[0]["n"]
    assert chart.reaching[0] == 6000
    assert chart.reaching[-1] == 0


def test_a_cut_off_is_named_with_the_digits_that_keep_the_same_pictures(tmp_path, index_of):
    scores = np.random.default_rng(1).normal(5.2, 0.7, 804).astype(np.float32)
    index = index_of(write_large_table(tmp_path / "many", [float(score) for score in scores]))
    view = index.view(Filter())
    for kept in range(1, 805):
        cut = view.cut(None, Top(kept))
        assert index.table.cutoff(min_score=float(cut.name)).kept == cut.kept == kept
        assert len(cut.name) <= 9
    assert name_cutoff(5.5, 5.5, 2) == "5.5"  # no cut-off parts equal scores
    assert name_cutoff(float(np.float32(6.4)), float(np.float32(6.4)), 2) == "6.4"  # and not 6.400000095367432


def test_one_text_is_a_score_a_share_a_number_or_refused(scores, index_of):
    view = index_of(scores).view(Filter())
    for typed, score, top in (
        ("5.42", 5.42, None),
        ("6", 6.0, None),
        ("9", None, Top(9)),  # no score reaches it
        ("6 images", None, Top(6)),
        ("top 6", None, Top(6)),
        ("1,000", None, Top(1000)),
        ("1.5k", None, Top(1500)),
        ("20 %", None, Top(share=0.2)),
    ):
        assert view.read_cut(typed) == (score, top), typed
    for typed in ("", "5,5", "nan", "0%", "101%", "0 images", "many", "-3"):
        with pytest.raises(ConfigurationError, match="share"):
            view.read_cut(typed)


def test_filters_by_condition_text_and_rating_are_combined(explorer):
    explorer.rate(Filter(), {3: {"stars": 4}, 5: {"rejected": True}})
    rows = lambda **chosen: sorted(explorer.index.view(Filter(**chosen)).rows.tolist())  # noqa: E731
    assert rows(where="width > height") == [0, 2, 4, 6, 8, 10]
    assert rows(text="PICTURE 1") == [1, 10, 11]
    assert rows(text="picture 1", where="width < height OR width = height") == [1, 11]
    assert rows(rated="rejected,4", text="picture") == [3, 5]
    assert rows(text="'); DROP TABLE rows; --") == []


def test_scores_far_apart_get_a_larger_step(tmp_path, index_of):
    view = index_of(write_large_table(tmp_path / "wild", [-4e6, 0.0, 5.5, 1e7])).view(Filter())
    assert len(view.chart.reaching) <= MAX_EDGES + 2
    assert view.chart.reaching[0] == 4
