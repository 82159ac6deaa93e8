"""Only the best of each group: the same as `select --best-of-group` has it, in counts, grid and export."""

import numpy as np
import pyarrow as pa
import pytest

from explorer.table import set_column, write_large_table, write_table
from explorer.test_exports import export
from tastemaker.errors import ConfigurationError
from tastemaker.explorer.index import Filter
from tastemaker.explorer.service import Explorer
from tastemaker.selections.selection import Selection, choose_rows

BEST = Filter(group="best")


def embeddings(groups):
    """Return embeddings of which those of one group are near to each other; None has none."""
    rng = np.random.default_rng(0)
    bases = rng.standard_normal((10, 768))
    vectors = [None if g is None else bases[g] + 0.05 * rng.standard_normal(768) for g in groups]
    return pa.array([None if v is None else v.astype(np.float16).tolist() for v in vectors], pa.list_(pa.float16()))


@pytest.fixture
def grouped(tmp_path):
    """Twelve pictures in groups of their embeddings, and two failures without; their scores decide."""
    folder = write_table(tmp_path)
    for name in ("subject_sharpness", "exposure"):
        set_column(folder, name, pa.nulls(14, pa.float32()))
    set_column(folder, "embedding", embeddings([0, 0, 0, 1, 1, 2, 3, 3, None, None, 4, 0, None, None]))
    explorer = Explorer([str(folder)], originals=[str(tmp_path)])
    yield explorer
    explorer.close()


def test_the_best_of_each_group_are_those_that_select_chooses(grouped):
    chosen = choose_rows(
        grouped.table, Selection(where="aesthetic_score IS NOT NULL", best_of_group=True)
    ).rows.tolist()
    view = grouped.index.view(BEST)
    assert sorted(view.rows.tolist()) == chosen == [0, 3, 5, 6, 8, 9, 10]
    assert view.scores.tolist() == sorted(view.scores.tolist(), reverse=True)
    assert grouped.view(BEST)["images"] == 7
    assert grouped.cut(BEST, "3 images")["kept"] == 3


def test_the_next_best_of_a_group_stands_for_one_that_is_rejected_or_filtered_out(grouped):
    filtered = grouped.index.view(Filter(where="row_id <> 0", group="best")).rows
    grouped.rate(BEST, {0: {"rejected": True}})
    for rows in (filtered, grouped.index.view(Filter(group="best", asked="later")).rows):
        assert (11 in rows, 0 in rows) == (True, False)
    chosen = choose_rows(grouped.table, Selection(where="aesthetic_score IS NOT NULL", best_of_group=True)).rows
    assert 11 in chosen
    assert 0 not in chosen


def test_a_stack_says_how_many_it_has_and_opens(grouped):
    assert [item["stack"] for item in grouped.rows(BEST, range(20))] == [1, 4, 1, 2, 2, 1, 1]
    assert all("stack" not in item for item in grouped.rows(Filter(), range(20)))
    opened = Filter(group="1")
    assert sorted(grouped.index.view(opened).rows.tolist()) == [0, 1, 2, 11]
    grouped.rate(opened, {0: {"rejected": True}})
    assert len(grouped.rows(opened, range(20))) == 4


def test_a_picture_shows_the_others_of_its_group_once_groups_are_known(grouped):
    assert grouped.picture(Filter(), 1)["group"] is None
    grouped.index.view(BEST)
    found = grouped.picture(Filter(), 1)["group"]
    assert (found["images"], [item["row"] for item in found["others"]]) == (4, [0, 11, 2])
    assert (found["why"], found["is_best"]) == ("highest score of 4", False)
    assert grouped.picture(Filter(), 0)["group"]["is_best"]
    assert grouped.picture(Filter(), 5)["group"] == {"images": 1, "why": "", "is_best": True, "others": []}


def test_groups_that_the_table_has_are_taken_as_they_are(tmp_path):
    path = write_large_table(tmp_path / "g", [5.0, 6.0, 4.0, 7.0, 3.0])
    set_column(path.parent, "group", [["x", "x", None, "y", None]])
    explorer = Explorer([str(path)])
    assert explorer.describe()["groups"]
    assert explorer.index.view(BEST).rows.tolist() == [3, 1, 2, 4]
    assert [item["row"] for item in explorer.picture(Filter(), 0)["group"]["others"]] == [1]
    explorer.close()


def test_without_groups_and_embeddings_nothing_is_offered(tmp_path):
    explorer = Explorer([str(write_large_table(tmp_path / "g", [5.0]))])
    assert not explorer.describe()["groups"]
    for chosen in (BEST, Filter(group="worst")):
        with pytest.raises(ConfigurationError, match="group"):
            explorer.index.view(chosen)
    assert explorer.picture(Filter(), 0)["group"] is None
    explorer.close()


def test_pictures_that_are_unlike_each_other_are_those_that_select_chooses(grouped, tmp_path):
    grouped.rate(Filter(), {5: {"rejected": True}})
    for count in (40, 5, 1):
        cut, view = grouped.cut(Filter(), f"varied {count}"), grouped.index.view(Filter())
        chosen = choose_rows(grouped.table, Selection(varied=count)).rows.tolist()
        assert sorted(view.rows[cut["places"]].tolist()) == chosen
        assert cut["kept"] == len(chosen) == min(count, 9)
    assert sum(part["kept"] for part in grouped.slices(Filter(), "shape", "varied 5")["slices"]) == 5
    assert export(grouped, tmp_path / "out", cut="varied 5")["done"] == 5
    chosen = choose_rows(grouped.table, Selection(varied=5)).rows
    assert {path.stem for path in (tmp_path / "out").glob("*.jpg")} == {f"p{row:05d}" for row in chosen}
    for text, said in (("varied 100000", "up to"), ("varied 0", "1 or more")):
        with pytest.raises(ConfigurationError, match=said):
            grouped.cut(Filter(), text)
