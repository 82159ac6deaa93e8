"""What images are ranked by: a column, or an expression over several, in every command that ranks."""

import json

import numpy as np
import pytest
from command import tastemaker
from rows import make_image, write_rows

from tastemaker import ConfigurationError, ScoreTable, Selection
from tastemaker.scores.cutoff import parse_top
from tastemaker.selections.selection import choose_rows

PROVENANCE = {"scores": {"first": {"scorer": "a"}, "second": {"scorer": "b"}}}
BOTH = "0.5 * first + 10 * second"


@pytest.fixture
def scores(tmp_path):
    """Twelve pictures whose two scores disagree, and one that could not be read."""
    images = [make_image(n, None, scores={"first": float(n), "second": (n * 5 % 12) / 10}) for n in range(12)]
    images.append(make_image(12, None, reason="unreadable: damaged", failed=True))
    return str(write_rows(tmp_path / "rows.parquet", images, provenance=PROVENANCE))


def expected(scores):
    rows = ScoreTable(scores).to_arrow(["first", "second"]).to_pydict()
    first, second = (np.array(rows[name], float) for name in ("first", "second"))
    return 0.5 * first + 10 * second


def test_the_first_scorer_counts_unless_another_is_named(scores):
    table = ScoreTable(scores)
    assert (table.rankings, table.ranking) == (["first", "second"], "first")
    assert np.nanargmax(table.values()) == 11
    assert table.summary().column == "first"


def test_an_expression_ranks_as_its_values_do(scores):
    table = ScoreTable(scores)
    np.testing.assert_allclose(table.values(BOTH), expected(scores))
    best = np.argsort(-np.nan_to_num(expected(scores), nan=-1), kind="stable")[:4]
    chosen = choose_rows(table, Selection(top=parse_top("4"), rank_by=BOTH))
    assert chosen.rows.tolist() == sorted(best.tolist())
    cut = table.cutoff(keep=4, column=BOTH)
    assert cut.score == pytest.approx(expected(scores)[best[-1]])


def test_the_average_of_ranks_counts_only_pictures_with_both_scores(scores):
    values = ScoreTable(scores).values("rank_average(first, second)")
    rows = ScoreTable(scores).to_arrow(["first", "second"]).to_pydict()
    ranks = [np.argsort(np.argsort(rows[name][:12])) / 11 for name in ("first", "second")]
    np.testing.assert_allclose(values[:12], np.mean(ranks, axis=0))
    assert np.isnan(values[12])


@pytest.mark.parametrize(
    ("ranking", "message"),
    [
        ("third", "there is no column 'third'"),
        ("caption", "has no numbers"),
        ("first + third", "third"),
        ("first; DROP TABLE rows", "more than one"),
        ("(SELECT max(first) FROM rows)", "another query"),
        ("read_text('x')", "may not use"),
        ("first || 'x'", "may not use"),
    ],
)
def test_a_ranking_that_is_none_is_refused_in_words(scores, ranking, message):
    with pytest.raises(ConfigurationError, match=message):
        ScoreTable(scores).values(ranking)


def test_the_commands_take_expressions(scores, tmp_path):
    order = np.argsort(-expected(scores)[:12], kind="stable")
    top = json.loads(tastemaker("top", scores, "-n", 2, "--rank-by", BOTH, "--json").stdout)
    assert [row["image_id"] for row in top[:2]] == [f"{n:05d}" for n in order[:2]]
    assert top[0][BOTH] == pytest.approx(expected(scores)[order[0]])
    cut = json.loads(tastemaker("cutoff", scores, "--top", 3, "--rank-by", BOTH, "--json").stdout)
    assert cut[0]["score"] == pytest.approx(expected(scores)[order[2]])
    listed = tmp_path / "list.csv"
    command = ("select", scores, "--top", 3, "--rank-by", BOTH, "--as", "manifest", "--to", listed)
    result = tastemaker(*command)
    assert result.returncode == 0, result.stderr
    assert BOTH in result.stdout
    report = json.loads(tastemaker("report", scores, "--rank-by", BOTH, "-o", tmp_path / "r.html", "--json").stdout)
    assert report["column"] == BOTH
    assert "rank-by" in (tmp_path / "r.html").read_text()
