"""Scores by text, in a run and for rows that are there: the likeness to a caption, and the choice between prompts."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import tastemaker
from conftest import make_tar
from rows import make_image, write_rows

from tastemaker import CLIP_VIT_L14, ConfigurationError, RunOptions, ScoreTable, TextTower, run_scoring
from tastemaker.models.hub import weights_path
from tastemaker.models.published import find_scorer
from tastemaker.models.words import CaptionLikeness
from tastemaker.parity import verify_parity
from tastemaker.runs.rescore import rescore

CAPTIONS = {"coffee": "a cup of coffee", "rocket": "a cup of coffee", "chelsea": " \n", "astronaut": "カメラ 👩‍🚀" * 50}


@pytest.fixture(scope="module")
def tower(model_dir):
    return TextTower(weights_path(CLIP_VIT_L14, model_dir), weights_path(CLIP_VIT_L14.text.tokenizer, model_dir))


@pytest.fixture(scope="module")
def made(tmp_path_factory, photographs, model_dir):
    """A shard of pictures, some with captions, and its rows with both scores."""
    folder = tmp_path_factory.mktemp("captions")
    members = [(f"{name.partition('.')[0]}.{name.partition('.')[2]}", data) for name, data in photographs.items()]
    members += [(f"{name}.txt", text.encode()) for name, text in CAPTIONS.items()]
    members += [("broken.jpg", b"no picture"), ("broken.txt", b"a caption")]
    make_tar(folder / "a.tar", members)
    options = RunOptions(model_dir=str(model_dir), scorer=("laion-v2", "clip-score"))
    run_scoring(folder / "a.tar", folder / "scores", options)
    return folder


def by_name(folder, columns=("clip_score", "embedding", "caption", "status")):
    rows = ScoreTable(folder).to_arrow(["image_id", *columns]).to_pylist()
    return {row.pop("image_id"): row for row in rows}


def test_a_run_fills_the_cosine_of_picture_and_caption(made, tower):
    rows = by_name(made / "scores")
    for name in ("coffee", "rocket", "astronaut"):
        vector = np.array(rows[name]["embedding"], np.float64)
        cosine = vector @ tower.embed([CAPTIONS[name]])[0] / np.linalg.norm(vector)
        assert rows[name]["clip_score"] == pytest.approx(cosine, abs=1e-3)
    assert {name for name, row in rows.items() if row["clip_score"] is None} == rows.keys() - {
        "coffee",
        "rocket",
        "astronaut",
    }
    assert rows["chelsea"]["status"] == "kept"  # without a caption, not without a row
    [made_by] = ScoreTable(made / "scores").provenance
    assert made_by.entries["scores"]["clip_score"]["backbone"] == CLIP_VIT_L14.id


def test_rows_that_are_there_get_the_column_from_their_captions(made, model_dir, tmp_path):
    run_scoring(made / "a.tar", tmp_path / "scores", RunOptions(model_dir=str(model_dir)))
    done = rescore(tmp_path / "scores", "clip-score", model_dir=model_dir)
    assert (done.scored, done.rounding) == ({"clip_score": 3}, {"clip_score": 2**-11})
    expected, found = by_name(made / "scores"), by_name(tmp_path / "scores")
    for name, row in expected.items():
        score = row["clip_score"]
        assert found[name]["clip_score"] == (None if score is None else pytest.approx(score, abs=2**-11))
    assert rescore(tmp_path / "scores", "clip-score", model_dir=model_dir).finished_before == 1


def test_filter_cuts_by_it_and_leaves_out_what_has_no_caption(made, model_dir, tmp_path):
    options = ["--scorer", "clip-score", "--top", "2", "--as", "folder", "--model-dir", model_dir, "--output"]
    result = tastemaker("filter", made / "a.tar", *options, tmp_path / "out")
    assert result.returncode == 0, result.stderr
    scores = {
        name: row["clip_score"] for name, row in by_name(made / "scores").items() if row["clip_score"] is not None
    }
    best = sorted(scores, key=scores.get, reverse=True)[:2]
    assert {path.stem for path in (tmp_path / "out" / "kept").glob("*.*g")} == set(best)


def test_scores_are_those_of_single_pairs_whatever_the_lengths_and_repeats(tower):
    rng = np.random.default_rng(0)
    images = rng.standard_normal((6, 768)).astype(np.float32)
    images[4], images[5, 0] = 0, np.nan
    captions = ["a cat", None, "a dog", "a cat", "a cat", "a cat"]
    likeness = CaptionLikeness(tower)
    scores = likeness(images, captions)
    assert scores.dtype == np.float32
    assert np.isnan(scores).tolist() == [False, True, False, False, True, True]
    single = [likeness(7 * images[n : n + 1], captions[n : n + 1])[0] for n in (0, 2, 3)]
    np.testing.assert_allclose(scores[[0, 2, 3]], single, atol=1e-6)
    unit = images[0] / np.linalg.norm(images[0])
    assert scores[0] == pytest.approx(float(unit @ tower.embed(["a cat"])[0]), abs=1e-6)
    assert likeness(images[:0], []).shape == (0,)


def test_without_a_text_the_caption_is_that_of_the_json(tmp_path):
    records = [b'{"Text": "t", "caption": "a cat \\ud800"}', b'{"TEXT": "t"}', b'{"caption": 3}', b"[" * 9999, b"[1]"]
    images = [make_image(n, 5.0, sidecars={"json": record}) for n, record in enumerate(records)]
    images.append(make_image(5, 5.0, sidecars={"json": records[0], "txt": b"a dog"}))
    found = pq.read_table(write_rows(tmp_path / "rows.parquet", images))["caption"].to_pylist()
    assert found == ["a cat \\ud800", "t", None, None, None, "a dog"]


def test_embeddings_are_scored_by_the_captions_that_come_with_them(model_dir, tower, tmp_path):
    vectors = np.random.default_rng(1).standard_normal((3, 768)).astype(np.float32)
    texts = {"caption": ["a cat", None, "a dog"], "by blip": ["one", "two", None], "number": [1, 2, 3]}
    pq.write_table(pa.table({"embedding": list(vectors), **texts}), tmp_path / "e.parquet")
    for chosen, name in ((None, "caption"), ("by blip", "by blip")):
        options = RunOptions(model_dir=str(model_dir), scorer="clip-score", caption_column=chosen)
        run_scoring(tmp_path / "e.parquet", tmp_path / name, options)
        table = ScoreTable(tmp_path / name)
        assert table.to_arrow(["caption"])["caption"].to_pylist() == texts[name]
        expected = CaptionLikeness(tower)(vectors, texts[name])
        np.testing.assert_allclose(table.values("clip_score"), expected, atol=1e-6)  # NaN is equal to NaN
    assert "given_caption" in table.columns
    with pytest.raises(ConfigurationError, match="has no column 'number' of texts for captions; it has caption, by b"):
        run_scoring(tmp_path / "e.parquet", tmp_path / "no", RunOptions(caption_column="number"))
    with pytest.raises(ConfigurationError, match=r"made otherwise.*caption_column"):
        run_scoring(tmp_path / "e.parquet", tmp_path / "caption", options)


def test_what_has_no_captions_asks_for_another_scorer(model_dir):
    with pytest.raises(ConfigurationError, match="name another scorer"):
        verify_parity([], 4, model_dir=str(model_dir), scorer="clip-score")


PROMPTS = "Looks sharp: a sharp photo | a blurry photo | text"


def test_prompts_fill_a_column_with_the_share_of_the_first(made, model_dir, tower, tmp_path):
    options = RunOptions(model_dir=str(model_dir), scorer=("laion-v2", PROMPTS))
    run_scoring(made / "a.tar", tmp_path / "scores", options)
    words = tower.embed(["a sharp photo", "a blurry photo", "text"]).astype(np.float64)
    rows = by_name(tmp_path / "scores", ("looks_sharp", "embedding"))
    for row in (row for row in rows.values() if row["embedding"] is not None):
        vector = np.array(row["embedding"], np.float64)
        shares = np.exp(100 * (words @ vector) / np.linalg.norm(vector))
        assert row["looks_sharp"] == pytest.approx(shares[0] / shares.sum(), abs=0.03)
    [made_by] = ScoreTable(tmp_path / "scores").provenance
    assert made_by.entries["scores"]["looks_sharp"]["prompts"] == "a sharp photo | a blurry photo | text"


def test_other_prompts_of_a_name_renew_its_column(made, model_dir, tmp_path):
    run_scoring(made / "a.tar", tmp_path / "scores", RunOptions(model_dir=str(model_dir)))
    first = rescore(tmp_path / "scores", PROMPTS, model_dir=model_dir)
    assert first.scored == {"looks_sharp": 6}
    before = by_name(tmp_path / "scores", ("looks_sharp",))
    assert rescore(tmp_path / "scores", PROMPTS, model_dir=model_dir).finished_before == 1
    assert rescore(tmp_path / "scores", "Looks sharp: a cat | a dog", model_dir=model_dir).finished_before == 0
    assert by_name(tmp_path / "scores", ("looks_sharp",)) != before


@pytest.mark.parametrize(
    "text", ["sharp | blurry", "sharp: one |", "sharp: one", "sharp: | two", ": a | b", "!: a | b"]
)
def test_what_are_no_prompts_is_refused(text):
    with pytest.raises(ConfigurationError, match="two or more, are written as"):
        find_scorer(text)
