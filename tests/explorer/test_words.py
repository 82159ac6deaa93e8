"""Pictures ranked by words: order, cut and export are those of `TextSearch`; what cannot be ranked is told."""

import shutil

import numpy as np
import pytest

from explorer.test_exports import export
from tastemaker import CLIP_VIT_L14, RunOptions, ScoreTable, run_scoring
from tastemaker.errors import TastemakerError
from tastemaker.explorer.index import Filter
from tastemaker.explorer.service import Explorer
from tastemaker.models.hub import weights_path
from tastemaker.scores.search import TextSearch

BOATS = Filter(like="boats at sunset")


@pytest.fixture(scope="module")
def searched(tmp_path_factory, photographs, model_dir):
    """A folder with photos/, one of them broken, and their rows in scores/."""
    folder = tmp_path_factory.mktemp("words")
    (folder / "photos").mkdir()
    for name, data in photographs.items():
        (folder / "photos" / name).write_bytes(data)
    (folder / "photos" / "broken.jpg").write_bytes(b"no picture")
    run_scoring(folder / "photos", folder / "scores", RunOptions(model_dir=str(model_dir)))
    return folder


@pytest.fixture
def words(searched, model_dir, tmp_path):
    explorer = Explorer([str(searched / "scores")], originals=[str(searched)], model_dir=str(model_dir))
    yield explorer
    explorer.close()


@pytest.fixture
def found(searched, model_dir):
    """Rows and cosines of all pictures, the most alike first."""
    return TextSearch(ScoreTable(searched / "scores"), model_dir).find(BOATS.like, k=1000)


def test_words_rank_as_a_search_does_and_without_them_the_score_ranks(words, found):
    rows, cosines = found
    for like in (BOATS.like, f"  {BOATS.like} "):
        shown = words.rows(Filter(like=like), range(1000))
        assert [item["row"] for item in shown] == rows.tolist()
        assert [item["score"] for item in shown] == cosines.tolist()
    told = words.view(BOATS)
    assert (told["like"], told["images"], told["step"]) == (BOATS.like, len(rows), 0.001)
    assert words.picture(BOATS, int(rows[1]))["rank"] == 2
    assert {item["row"]: item["score"] for item in words.neighbours(BOATS, int(rows[1]))}[rows[0]] == cosines[0]
    plain = words.rows(Filter(), range(1000))
    assert [item["score"] for item in plain] == sorted(words.table.values()[rows].tolist(), reverse=True)


def test_a_cut_by_likeness_counts_and_exports_those_pictures(words, found, tmp_path):
    rows, cosines = found
    middle = float(cosines[len(cosines) // 2])
    cut = words.cut(BOATS, f"{middle:.9f}")  # below zero, or not
    assert cut["kept"] == np.count_nonzero(cosines >= np.float32(f"{middle:.9f}")) > 1
    words.rate(BOATS, {int(rows[0]): {"rejected": True}})
    assert export(words, tmp_path / "kept", cut=cut["name"], like=BOATS.like)["state"] == "done"
    kept = words.table.take(rows[1 : cut["place"]], ["image_path"]).column(0).to_pylist()
    written = {path.name for path in (tmp_path / "kept").iterdir() if path.is_file()}
    assert written == {path.rpartition("/")[2] for path in kept}


def test_a_condition_and_words_go_together(words, found):
    wide = set(words.table.present_rows("width > height").tolist())
    shown = [item["row"] for item in words.rows(Filter(like=BOATS.like, where="width > height"), range(1000))]
    assert shown == [row for row in found[0].tolist() if row in wide]


def test_weights_that_are_not_here_are_named_and_not_downloaded(searched, model_dir, tmp_path):
    models = tmp_path / "models"
    shutil.copytree(model_dir, models)
    tokenizer = weights_path(CLIP_VIT_L14.text.tokenizer, models)
    moved = tokenizer.rename(tmp_path / "tokenizer.json")
    explorer = Explorer([str(searched / "scores")], model_dir=str(models))
    with pytest.raises(TastemakerError, match=r"tokenizer\.json .*scorers pull"):
        explorer.view(BOATS)
    assert not tokenizer.exists()
    moved.rename(tokenizer)
    assert explorer.view(BOATS)["images"]  # the next search goes on
    explorer.close()
