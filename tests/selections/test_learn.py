"""A taste from the ratings of a table, as a user learns it."""

import csv
import json
import re
import shlex

import numpy as np
import pyarrow as pa
import pytest
from command import tastemaker
from safetensors import safe_open

from tastemaker import AestheticPredictor, ConfigurationError, RunOptions, ScoreTable, run_scoring
from tastemaker.models.own import NOTES_KEY
from tastemaker.scores.files import RowsFile
from tastemaker.scores.marks import Marks
from tastemaker.scores.schema import rows_schema
from tastemaker.selections.learn import learn_taste
from tastemaker.testing import write_random_models

COUNT = 120


@pytest.fixture(scope="module")
def world(tmp_path_factory, model_dir):
    """Rows of made pictures in a folder, and how much a person likes each."""
    rng = np.random.default_rng(2)
    embeddings = rng.standard_normal((COUNT, 768)) * np.arange(1, 769) ** -0.8
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    liking = embeddings[:, :10] @ rng.standard_normal(10)
    folder = tmp_path_factory.mktemp("learned") / "scores"
    (folder / "_tastemaker").mkdir(parents=True)
    schema = rows_schema(with_embeddings=True, with_signals=False, provenance={"tastemaker": "0"})
    columns = {
        "image_id": [f"{n:03d}" for n in range(COUNT)],
        "image_path": [f"/photos/{n:03d}.jpg" for n in range(COUNT)],
        "xxh3": [f"{n:016x}" for n in range(COUNT)],
        "status": ["kept"] * COUNT,
        "aesthetic_score": [5.0] * COUNT,
        "embedding": list(embeddings.astype(np.float16)),
    }
    arrays = [pa.array(columns.get(f.name, [None] * COUNT), f.type) for f in schema]
    rows = RowsFile(folder / "rows" / "photos.parquet", schema)
    rows.add_rows(pa.table(arrays, schema=schema))
    rows.commit()
    return folder, (liking - liking.mean()) / liking.std()


def stars_of(liking):
    return np.clip(np.round(3 + 1.3 * liking), 1, 5).astype(int)


def write_csv(path, heads, lines):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([heads, *lines])
    return path


def test_stars_and_rejections_of_the_explorer_teach(world, model_dir, tmp_path):
    folder, liking = world
    table = ScoreTable(folder)
    marks = Marks(table, tmp_path / "ratings.sqlite")
    for row, stars in enumerate(stars_of(liking)[:80]):
        marks.change({row: {"rejected": True} if stars == 1 else {"stars": int(stars)}})
    marks.close()
    (tmp_path / "ratings.sqlite").rename(folder / "_tastemaker" / "ratings.sqlite")
    done = learn_taste(table, tmp_path / "mine.safetensors", model_dir=model_dir)
    (folder / "_tastemaker" / "ratings.sqlite").unlink()
    assert (done.kind, done.examples, done.unmatched, done.source) == ("ratings", 80, 0, "stars and rejections")
    assert done.own.value > 0.5
    predictor = AestheticPredictor.from_file(tmp_path / "mine.safetensors")
    embeddings = np.stack(table.to_arrow(["embedding"]).column(0).to_pylist()).astype(np.float32)
    unseen = predictor.score(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True))[80:]
    assert np.corrcoef(unseen, liking[80:])[0, 1] > 0.7


def test_rows_of_another_backbone_teach_beside_its_own_published_score(tmp_path):
    write_random_models(tmp_path / "models", scorer="laion-v1-b32")
    vectors = np.random.default_rng(0).standard_normal((60, 512)).astype(np.float32)
    np.save(tmp_path / "given.npy", vectors)
    options = RunOptions(model_dir=str(tmp_path / "models"), scorer="laion-v1-b32", copy_embeddings=True)
    run_scoring(tmp_path / "given.npy", tmp_path / "scores", options)
    ratings = 1 + (np.arange(60) % 5).astype(np.int8)
    table = ScoreTable(tmp_path / "scores")
    done = learn_taste(table, tmp_path / "mine.safetensors", ratings, model_dir=tmp_path / "models")
    assert (done.scorer, done.examples) == ("laion-v1-b32", 60)


def test_the_file_says_what_it_was_learned_from(world, model_dir, tmp_path):
    folder, liking = world
    lines = [(f"{n:03d}.jpg", stars) for n, stars in enumerate(stars_of(liking)[:60])]
    examples = tmp_path / "ratings.csv"  # as a spreadsheet may write it
    examples.write_text(
        "\ufeff" + "".join(f"{a};{b};\n" for a, b in [("Image", " Rating"), *lines, ("nobody.jpg", 3), ("099", "")])
    )
    done = learn_taste(ScoreTable(folder), tmp_path / "mine.safetensors", examples, model_dir=model_dir)
    with safe_open(tmp_path / "mine.safetensors", "np") as file:
        notes = json.loads(file.metadata()[NOTES_KEY])
    assert (notes["examples"], notes["unmatched"], notes["verdict"]) == (60, 1, done.verdict)
    assert notes["constant"] == 0
    assert notes["own"] == {"value": done.own.value, "low": done.own.low, "high": done.own.high}


@pytest.mark.parametrize("name", ["/photos/{:03d}.jpg", "{:03d}", "{:03d}.jpg"])
def test_pairs_from_a_csv_teach_whatever_the_pictures_are_called_by(world, model_dir, tmp_path, name):
    folder, liking = world
    rng = np.random.default_rng(0)
    pairs = [(a, b) if liking[a] > liking[b] else (b, a) for a, b in rng.integers(0, COUNT, (250, 2)) if a != b]
    lines = [(name.format(a), name.format(b)) for a, b in pairs]
    examples = write_csv(tmp_path / "pairs.csv", ("winner", "loser"), lines)
    done = learn_taste(ScoreTable(folder), tmp_path / "mine.safetensors", examples, model_dir=model_dir)
    assert (done.kind, done.examples) == ("pairs", len(pairs))
    assert done.own.low > 0.5


def test_the_command_prints_figures_a_verdict_and_what_to_do_next(world, model_dir, tmp_path):
    folder, liking = world
    lines = [(f"{n:03d}", stars) for n, stars in enumerate(stars_of(liking))]
    examples = write_csv(tmp_path / "ratings.csv", ("image", "rating"), lines)
    output = tmp_path / "my taste.safetensors"
    command = ("learn", folder, "--from", examples, "--output", output, "--model-dir", model_dir)
    result = tastemaker(*command)
    assert result.returncode == 0, result.stderr
    assert "the rank correlation with 95% interval" in result.stdout
    assert re.search(r"laion-v2 +-?0\.\d\d \(.*\n  a constant +0\.00\n", result.stdout)
    (next_,) = re.findall("See its scores: tastemaker (.*)", result.stdout)
    assert tastemaker(*command).returncode == 0
    assert tastemaker(*shlex.split(next_), "--model-dir", model_dir).returncode == 0
    assert np.corrcoef(ScoreTable(folder).values("my_taste"), liking)[0, 1] > 0.8
    (made_by,) = {entry.entries["scores"]["my_taste"]["learned"] for entry in ScoreTable(folder).provenance}
    assert re.fullmatch(rf"{COUNT} ratings, 20..-..-..T\S+, rank correlation 0\.\d\d \(.*\)", made_by)


def test_other_files_are_never_replaced(world, model_dir, tmp_path):
    folder, _ = world
    for content in (b"my weights", (8).to_bytes(8, "little") + b'{"a": 1}'):
        (tmp_path / "mine.safetensors").write_bytes(content)
        with pytest.raises(ConfigurationError, match="Tastemaker did not write it"):
            learn_taste(ScoreTable(folder), tmp_path / "mine.safetensors", model_dir=model_dir)
        assert (tmp_path / "mine.safetensors").read_bytes() == content


@pytest.mark.parametrize(
    ("heads", "lines", "message"),
    [
        (("a", "b"), [(1, 2)], "neither the columns image and rating, nor winner and loser"),
        (("image", "rating"), [], "neither"),
        (("image", "rating"), [("x.jpg", 3)], "no line .* names a picture .*x.jpg"),
        (("image", "rating"), [("000", "good")], "'good' is no rating"),
        (("image", "rating"), [("000", "1e308")], "'1e308' is no rating"),
        (("winner", "loser"), [("000", "000")] * 30, "no line"),
        (("image", "rating"), [("000", 1), ("001", 2)], "2 ratings are too few"),
    ],
)
def test_a_csv_that_cannot_teach_is_refused_in_words(world, model_dir, tmp_path, heads, lines, message):
    examples = write_csv(tmp_path / "bad.csv", heads, lines)
    with pytest.raises(ConfigurationError, match=message):
        learn_taste(ScoreTable(world[0]), tmp_path / "mine.safetensors", examples, model_dir=model_dir)
    assert not (tmp_path / "mine.safetensors").exists()


def test_without_ratings_it_says_how_to_give_some(world, model_dir, tmp_path):
    with pytest.raises(ConfigurationError, match="rate some in `tastemaker explore`, or name a CSV with --from"):
        learn_taste(ScoreTable(world[0]), tmp_path / "mine.safetensors", model_dir=model_dir)
