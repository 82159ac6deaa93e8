"""The taste that the page learns: it is that of `tastemaker learn`, ranks like a column, and proposes what to rate."""

import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from explorer.table import write_liked_table, write_table
from explorer.test_exports import export
from tastemaker import ConfigurationError, ScoreTable, learn_taste, rescore
from tastemaker.errors import WeightsNotFoundError
from tastemaker.explorer.index import Filter
from tastemaker.explorer.learned import TASTE
from tastemaker.explorer.service import Explorer
from tastemaker.selections.proposals import propose

BY_TASTE = Filter(by=TASTE)
NEXT = Filter(rated="next")


@pytest.fixture
def liked(tmp_path):
    """A folder of rows, and how many stars a person gives each picture."""
    return write_liked_table(tmp_path, 60)


@pytest.fixture
def page(liked, tmp_path, model_dir):
    explorer = Explorer([str(liked[0])], originals=[str(tmp_path)], model_dir=str(model_dir))
    yield explorer
    explorer.close()


def rate(explorer, stars, rows):
    for row in rows:
        explorer.rate(Filter(), {int(row): {"stars": int(stars[row])}})


def test_the_page_learns_saves_and_ranks_what_the_commands_do(page, liked, model_dir, tmp_path):
    folder, stars = liked
    with pytest.raises(ConfigurationError, match="your taste"):
        page.view(BY_TASTE)
    rate(page, stars, range(40))
    told = page.taste.describe()
    assert (told["ratings"], told["needed"], told["learned"]) == (40, 30, None)
    learned = page.taste.learn()["learned"]
    assert (learned["examples"], learned["measure"]) == (40, "rank correlation")
    page.taste.save(str(tmp_path / "page.safetensors"))
    done = learn_taste(ScoreTable(folder), tmp_path / "mine.safetensors", model_dir=model_dir)
    assert (learned["verdict"], learned["gain"]["value"]) == (done.verdict, done.gain.value)
    ranked = page.rows(BY_TASTE, range(100))
    rescore(folder, str(tmp_path / "page.safetensors"))
    rescore(folder, str(tmp_path / "mine.safetensors"))
    columns = ScoreTable(folder)
    assert [item["score"] for item in ranked] == sorted(columns.values("page").tolist(), reverse=True)
    assert columns.values("page").tolist() == columns.values("mine").tolist()
    assert page.view(BY_TASTE)["by"] == TASTE


def test_a_cut_by_taste_exports_and_slices_those_pictures(page, liked, tmp_path):
    rate(page, liked[1], range(40))
    page.taste.learn()
    cut = page.cut(BY_TASTE, "25%")
    best = [item["name"] for item in page.rows(BY_TASTE, range(cut["place"]))]
    assert export(page, tmp_path / "kept", cut="25%", by=TASTE)["done"] == len(best) == 15
    assert {path.stem for path in (tmp_path / "kept").rglob("*.jpg")} == set(best)
    assert sum(each["kept"] for each in page.slices(BY_TASTE, "shape", "25%")["slices"]) == 15
    assert page.failures(TASTE) == page.failures("")


def test_what_was_learned_outlives_the_server_and_is_learned_again_with_more_ratings(page, liked, model_dir):
    rate(page, liked[1], range(40))
    page.taste.learn()
    before = page.rows(BY_TASTE, range(100))
    again = Explorer([str(liked[0])], model_dir=str(model_dir))
    assert [item["row"] for item in again.rows(BY_TASTE, range(100))] == [item["row"] for item in before]
    assert again.describe()["ranked_by"] == ["aesthetic_score", "technical_quality", TASTE]
    assert again.taste.describe()["needed"] == 48
    rate(again, liked[1], range(40, 60))
    assert again.taste.learn()["learned"]["examples"] == 60
    assert [item["score"] for item in page.rows(BY_TASTE, range(100))] != [item["score"] for item in before]
    again.close()


def test_what_is_proposed_is_of_many_and_never_twice_of_what_looks_alike():
    rng = np.random.default_rng(0)
    kinds = rng.standard_normal((6, 32))
    sizes = [300, 200, 100, 50, 3, 1]
    pictures = np.repeat(kinds, sizes, axis=0) + 0.05 * rng.standard_normal((sum(sizes), 32))
    pictures /= np.linalg.norm(pictures, axis=1, keepdims=True)
    kind = np.repeat(np.arange(6), sizes)
    is_rated = np.zeros(len(pictures), bool)
    is_rated[:3] = True
    chosen = kind[propose(pictures, pictures[:3], is_rated, 3)]
    assert sorted(chosen) == [1, 2, 3]
    assert len(propose(pictures[:5], pictures[:0], np.zeros(5, bool), 12)) == 5
    assert len(propose(pictures[:3], pictures[:3], is_rated[:3], 12)) == 0


def test_a_file_of_somebody_else_is_never_replaced(page, liked, tmp_path):
    rate(page, liked[1], range(40))
    with pytest.raises(ConfigurationError, match="nothing was learned"):
        page.taste.save(str(tmp_path / "mine.safetensors"))
    page.taste.learn()
    (tmp_path / "foreign.safetensors").write_bytes(b"my weights")
    for to, reason in (("foreign.safetensors", "did not write it"), ("mine.pth", "safetensors")):
        with pytest.raises(ConfigurationError, match=reason):
            page.taste.save(str(tmp_path / to))
    for to in ("", "s3://bucket/mine.safetensors"):
        with pytest.raises(ConfigurationError, match="this machine"):
            page.taste.save(to)
    assert (tmp_path / "foreign.safetensors").read_bytes() == b"my weights"
    shutil.rmtree(liked[0] / "_tastemaker" / "written")  # our records
    with pytest.raises(ConfigurationError, match="did not write it"):
        page.taste.learn()


def test_rows_without_embeddings_few_ratings_and_missing_weights_are_told(page, liked, model_dir, tmp_path):
    rate(page, liked[1], range(3))
    with pytest.raises(ConfigurationError, match="3 ratings are too few"):
        page.taste.learn()
    (tmp_path / "empty").mkdir()
    nothing = Explorer([str(liked[0])], model_dir=str(tmp_path / "empty"))
    with pytest.raises(WeightsNotFoundError, match="scorers pull --scorer laion-v2"):
        nothing.taste.learn()
    nothing.close()
    bare = write_table(tmp_path / "bare")
    (path,) = bare.glob("*.parquet")
    pq.write_table(pq.read_table(path).drop_columns(["embedding"]), path)
    (bare / "_tastemaker").mkdir()
    (bare / "_tastemaker" / "ratings.safetensors").write_bytes(b"of rows that had embeddings")
    explorer = Explorer([str(bare)], model_dir=str(model_dir))
    assert TASTE not in explorer.describe()["ranked_by"]
    assert "--no-embeddings" in explorer.taste.describe()["refusal"]
    for ask in (explorer.taste.learn, lambda: explorer.view(NEXT)):
        with pytest.raises(ConfigurationError, match="embeddings"):
            ask()
    explorer.close()
