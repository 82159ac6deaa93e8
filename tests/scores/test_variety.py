"""The best pictures that are unlike each other."""

import numpy as np
import pytest
from rows import make_image, write_rows

from tastemaker import ConfigurationError, ScoreTable, Selection
from tastemaker.scores.variety import choose_varied
from tastemaker.selections.selection import choose_rows


@pytest.fixture
def table(tmp_path):
    """Five sunsets, the best of all, and three other scenes; one picture without a score, two without an embedding."""
    scenes = [0, 0, 0, 0, 0, 1, 2, 3, 4, None, None]
    images = [make_image(number, None if scene == 4 else 9.0 - number / 10) for number, scene in enumerate(scenes)]
    for image, scene in zip(images, scenes, strict=True):
        if scene is not None:
            image.embedding = np.eye(1, 768, scene, dtype=np.float32)[0]
        else:
            image.embedding = np.full(768, 0 if image is images[9] else np.nan, np.float32)
    return ScoreTable(write_rows(tmp_path / "rows.parquet", images, embeddings=True))


def test_of_pictures_that_are_alike_only_the_best_is_among_the_varied(table):
    assert choose_rows(table, Selection(varied=4)).rows.tolist() == [0, 5, 6, 7]
    assert choose_rows(table, Selection(varied=4, variety=0)).rows.tolist() == [0, 1, 2, 3]
    assert choose_rows(table, Selection(varied=2, where="row_id > 4")).rows.tolist() == [5, 6]
    recipe = choose_rows(table, Selection(recipe=("row_id > 0", "varied 3")))
    assert recipe.rows.tolist() == [1, 5, 6]
    assert recipe.funnel[1].step == "aesthetic_score varied 3"


def test_exactly_so_many_are_chosen_while_there_are_so_many(table):
    assert [len(choose_rows(table, Selection(varied=count))) for count in (1, 6, 8, 100)] == [1, 6, 8, 8]


def test_it_is_maximal_marginal_relevance_written_out():
    rng = np.random.default_rng(0)
    units = rng.standard_normal((300, 8)).astype(np.float32)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    scores = rng.permutation(300)
    chosen = [int(scores.argmax())]
    while len(chosen) < 50:
        value = 0.7 * scores / 299 - 0.3 * (units @ units[chosen].T).max(axis=1)
        value[chosen] = -np.inf
        chosen.append(int(value.argmax()))
    assert choose_varied(scores, lambda rows: (units[rows], np.ones(300, bool)), 50, 0.3).tolist() == chosen


def test_what_makes_no_sense_is_refused(table):
    for wrong in ({"varied": 0}, {"varied": 3, "variety": 1.5}):
        with pytest.raises(ConfigurationError):
            choose_rows(table, Selection(**wrong))
