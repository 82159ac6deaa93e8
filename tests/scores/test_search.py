"""Pictures that words describe: the order that transformers' cosines give."""

import json
import shutil

import numpy as np
import pytest
from command import tastemaker
from rows import write_scores

from tastemaker import (
    CLIP_VIT_L14,
    ConfigurationError,
    RunOptions,
    ScoreTable,
    Selection,
    TextTower,
    learn_taste,
    nearest_rows,
    rescore,
    run_scoring,
    select_images,
)
from tastemaker.errors import WeightsNotFoundError
from tastemaker.models.hub import weights_path
from tastemaker.scores.search import TextSearch
from tastemaker.testing import write_random_models


@pytest.fixture(scope="module")
def scores(tmp_path_factory, photographs, model_dir):
    folder = tmp_path_factory.mktemp("searched")
    (folder / "photos").mkdir()
    for name, data in photographs.items():
        (folder / "photos" / name).write_bytes(data)
    (folder / "photos" / "broken.jpg").write_bytes(b"no picture")
    run_scoring(folder / "photos", folder / "scores", RunOptions(model_dir=str(model_dir)))
    return folder / "scores"


def test_the_order_is_that_of_the_cosines_with_the_text(scores, model_dir):
    table = ScoreTable(scores)
    found, cosines = TextSearch(table, model_dir).find("boats at sunset", k=100)
    tokenizer = weights_path(CLIP_VIT_L14.text.tokenizer, model_dir)
    text = TextTower(weights_path(CLIP_VIT_L14, model_dir), tokenizer).embed(["boats at sunset"])[0]
    rows = table.to_arrow(["row_id", "embedding"], "embedding IS NOT NULL").to_pylist()
    expected = {row["row_id"]: float(np.dot(np.array(row["embedding"], np.float64), text)) for row in rows}
    assert found.tolist() == sorted(expected, key=expected.get, reverse=True)
    np.testing.assert_allclose(cosines, [expected[row] for row in found], atol=1e-3)
    assert len(found) == len(table) - 1  # the broken one has no embedding


def test_the_command_prints_rank_likeness_score_and_name(scores, model_dir):
    result = tastemaker("search", scores, "a cat", "--top", "3", "--model-dir", model_dir)
    assert result.returncode == 0, result.stderr
    head, *lines = (line.split() for line in result.stdout.splitlines())
    assert head == ["rank", "likeness", "score", "image"]
    assert [line[0] for line in lines] == ["1", "2", "3"]
    rows = json.loads(tastemaker("search", scores, "a cat", "-n", "3", "--model-dir", model_dir, "--json").stdout)
    assert [row["image_path"] for row in rows] == [line[3] for line in lines]
    assert [f"{row['likeness']:.3f}" for row in rows] == [line[1] for line in lines]


def test_embeddings_of_another_model_are_not_compared(scores, model_dir, tmp_path):
    others = write_random_models(tmp_path / "others", seed=1)
    with pytest.raises(ConfigurationError, match=r"another model than openai/clip-vit-large-patch14 made .*--scorer"):
        TextSearch(ScoreTable(scores), others)


@pytest.mark.parametrize(
    "ask",
    [
        lambda table, _: TextSearch(table),
        lambda table, _: nearest_rows(table, 0),
        lambda table, _: select_images(table, "no", Selection(best_of_group=True)),
        lambda table, _: select_images(table, "no", Selection(varied=3)),
        lambda table, folder: learn_taste(table, folder / "no.safetensors"),
        lambda _, folder: rescore(folder),
    ],
)
def test_what_needs_embeddings_says_so_of_rows_without(tmp_path, ask):
    write_scores(tmp_path / "rows" / "a.parquet", [5.0, 9.0])
    with pytest.raises(ConfigurationError, match=r"the rows have no embeddings: .* --no-embeddings"):
        ask(ScoreTable(tmp_path), tmp_path)


def test_a_tokenizer_that_is_not_there_is_named(scores, model_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    copied = tmp_path / "models"
    shutil.copytree(model_dir, copied)
    weights_path(CLIP_VIT_L14.text.tokenizer, copied).unlink()
    with pytest.raises(WeightsNotFoundError, match=r"(?s)tokenizer\.json .*scorers pull"):
        TextSearch(ScoreTable(scores), copied)
