"""A model is one record: published ones by name, and a made-up one from end to end, through public names only."""

import re
from dataclasses import replace

import numpy as np
import pytest
from conftest import read_rows
from PIL import Image
from safetensors.numpy import save_file
from typer.testing import CliRunner

import tastemaker as tm
from tastemaker.cli import app
from tastemaker.testing import random_tower, tiny_dimensions, write_random_models

V1 = ["laion-v1-l14", "laion-v1-b16", "laion-v1-b32"]


def load_head(path):
    weight = np.load(path)
    return lambda embeddings: 50 + embeddings @ weight


OWN = tm.Scorer(
    name="own",
    column="own_score",
    backbone=tm.Backbone(
        id="somebody/small-vit",
        description="A tower of other sizes, names and arithmetic",
        preprocess=tm.Preprocess(75, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), fit="squash", interpolation="bilinear"),
        dimension=20,
        vit=tm.VitConfig(
            activation="gelu_tanh",
            eps=1e-6,
            head_width=16,
            names=tm.VitNames(class_token="vit.cls", layers="vit.blocks", norm1="ln_1", projection="vit.proj"),
        ),
    ),
    head=tm.Head(id="somebody/head", description="", filename="head.npy", dimension=20, load=load_head),
    score_range=(0.0, 100.0),
    customary_cutoffs=(50.0,),
)


@pytest.fixture(scope="module")
def own_models(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("own"), np.random.default_rng(0)
    for model in (OWN.backbone, OWN.head):
        (folder / model.id).mkdir(parents=True)
    tensors = random_tower(tiny_dimensions(OWN.backbone), rng, OWN.backbone)
    save_file(tensors, folder / OWN.backbone.id / OWN.backbone.filename)
    np.save(folder / OWN.head.id / OWN.head.filename, 10 * rng.standard_normal(20).astype(np.float32))
    return folder


def expected_scores(folder, model_dir, tower):
    """File name -> score, by Pillow's own resize and the parts one after the other."""
    head = OWN.head.load(model_dir / OWN.head.id / OWN.head.filename)
    scores = {}
    for path in folder.rglob("*.*"):
        if path.suffix in (".jpg", ".png"):
            picture = Image.open(path).convert("RGB").resize((75, 75), Image.Resampling.BILINEAR)
            scores[path.name] = float(head(tower.embed(np.asarray(picture)[None]))[0])
    return scores


def test_a_made_up_model_scores_pictures_from_end_to_end(own_models, photo_folder, tmp_path):
    options = tm.RunOptions(model_dir=str(own_models), scorer=OWN, precision="f32")
    summary = tm.run_scoring(photo_folder, tmp_path / "out", options)
    rows = read_rows(tmp_path / "out")
    weights = own_models / OWN.backbone.id / OWN.backbone.filename
    expected = expected_scores(photo_folder, own_models, tm.OpenVinoClip(weights, "f32", backbone=OWN.backbone))
    found = {row["image_path"].rpartition("/")[2]: row["own_score"] for row in rows}
    assert found == pytest.approx(expected, abs=1e-3)
    assert {len(row["embedding"]) for row in rows} == {20}
    assert len({round(score) for score in found.values()}) > 3
    made_by = {key: summary.provenance[key] for key in ("preprocess", "input_size")}
    assert made_by == {"preprocess": "squash", "input_size": "75"}
    assert summary.provenance["scores"]["own_score"]["scorer"] == "own"
    assert "aesthetic_score" not in rows[0]


def test_a_made_up_model_runs_on_torch_too(own_models):
    pytest.importorskip("torch")
    weights = own_models / OWN.backbone.id / OWN.backbone.filename
    pixels = np.random.default_rng(0).integers(0, 256, (5, 75, 75, 3), np.uint8)
    ours = tm.load_clip(weights, "cpu", "f32", backbone=OWN.backbone).embed(pixels)
    theirs = tm.TorchClip(weights, "cpu", "f32", backbone=OWN.backbone).embed(pixels)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_embeddings_that_others_computed_are_scored_by_the_record_they_fit(own_models, tmp_path):
    vectors = np.random.default_rng(0).standard_normal((9, 20)).astype(np.float32)
    np.save(tmp_path / "vectors.npy", vectors)
    options = tm.RunOptions(model_dir=str(own_models), scorer=OWN)
    tm.run_scoring(tmp_path / "vectors.npy", tmp_path / "out", options)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = OWN.head.load(own_models / OWN.head.id / OWN.head.filename)(unit)
    found = [row["own_score"] for row in read_rows(tmp_path / "out")]
    assert found == pytest.approx(expected.tolist(), abs=1e-4)


def test_the_command_line_takes_a_record_of_the_users_own(own_models, photo_folder, tmp_path):
    arguments = ["score", photo_folder, "--output", tmp_path / "out", "--model-dir", own_models]
    result = CliRunner().invoke(app, [*map(str, arguments), "--scorer", f"{__name__}:OWN"])
    assert result.exit_code == 0, result.output
    assert len(read_rows(tmp_path / "out")) == 7


def test_a_reader_and_an_embedder_of_different_models_are_an_error(own_models, photo_folder):
    reader = tm.ImageReaderStage(batch_size=1)
    [task, *_] = tm.FilePartitioningStage([str(photo_folder)]).process(tm.EmptyTask())
    [batch, *_] = reader.process(task)
    with pytest.raises(tm.ModelError, match=r"another model than somebody/small-vit; give .* the same scorer"):
        tm.ImageEmbeddingStage(model_dir=str(own_models), device="cpu", scorer=OWN).process(batch)


def test_a_head_of_another_dimension_than_its_backbone_is_refused():
    with pytest.raises(tm.ConfigurationError, match="clip-vit-base-patch32 gives 512 numbers, and somebody/head takes"):
        replace(OWN, backbone=tm.CLIP_VIT_B32)


@pytest.mark.parametrize("name", ["laion", "own", "tastemaker.nowhere:OWN", "tastemaker:nothing", "tastemaker:Scorer"])
def test_a_scorer_that_is_none_is_refused(name):
    with pytest.raises(tm.ConfigurationError, match=re.escape(repr(name))):
        tm.RunOptions(scorer=name)


def test_the_default_is_the_first_of_the_published_scorers():
    assert next(iter(tm.published_scorers())) == "laion-v2"
    assert {*V1, "laion-v2-ava-linear", "laion-v2-ava-relu", "nsfw"} < set(tm.published_scorers())
    assert tm.RunOptions().scorer == "laion-v2"


def test_weights_whose_digest_no_record_knows_are_fetched_for_the_fingerprint(tmp_path):
    """Else the same run would have another fingerprint once they are there."""
    stage = tm.ImageEmbeddingStage(model_dir=str(tmp_path), device="cpu")
    assert stage.fingerprint()["clip_sha256"] == tm.CLIP_VIT_L14.sha256
    with pytest.raises(tm.WeightsNotFoundError, match="clip-vit-base-patch16"):
        stage.with_(scorer="laion-v1-b16").fingerprint()


@pytest.mark.parametrize("name", V1)
def test_laions_first_predictors_score_as_torchs_linear_layer(tmp_path, name):
    torch = pytest.importorskip("torch")
    scorer = tm.find_scorer(name)
    write_random_models(tmp_path, scorer=name)
    path = tm.ensure_weights(scorer.head, tmp_path)
    layer = torch.nn.Linear(scorer.head.dimension, 1)
    layer.load_state_dict(torch.load(path, weights_only=True))
    embeddings = np.random.default_rng(0).standard_normal((50, scorer.backbone.dimension)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    with torch.no_grad():
        expected = layer(torch.from_numpy(embeddings))[:, 0].numpy()
    np.testing.assert_allclose(scorer.head.load(path)(embeddings), expected, atol=1e-5)


def test_laions_first_predictor_for_vit_b32_runs_by_its_name(photo_folder, tmp_path):
    pytest.importorskip("torch")
    models = write_random_models(tmp_path / "models", scorer="laion-v1-b32")
    arguments = ["filter", photo_folder, "--min-score", 5, "--output", tmp_path / "out", "--model-dir", models]
    result = CliRunner().invoke(app, [*map(str, arguments), "--scorer", "laion-v1-b32", "--json"])
    assert result.exit_code == 0, result.output
    rows = read_rows(tmp_path / "out" / "rows")
    assert {len(row["embedding"]) for row in rows} == {512}
    assert '"scorer": "laion-v1-b32"' in result.output
