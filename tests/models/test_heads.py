"""Heads that are more than one affine map, against the same layers in torch; and files that are none."""

from itertools import pairwise

import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny import unit_vectors

from tastemaker import ConfigurationError, ModelError, find_scorer
from tastemaker.models.heads import read_head
from tastemaker.models.hub import weights_path
from tastemaker.testing import random_detector, random_predictor, write_random_models

torch = pytest.importorskip("torch")


@pytest.fixture
def embeddings():
    return unit_vectors(50, seed=1)


def test_laions_head_with_relus_scores_as_torchs_layers_do(tmp_path, embeddings):
    scorer = find_scorer("laion-v2-ava-relu")
    write_random_models(tmp_path, scorer=scorer)
    path = weights_path(scorer.head, tmp_path)
    layers = []
    for inputs, outputs in pairwise((768, 1024, 128, 64, 16)):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU(), torch.nn.Dropout()]
    del layers[-1]  # no dropout stands before the last layer
    model = torch.nn.Sequential(*layers, torch.nn.Linear(16, 1)).eval()
    state = torch.load(path, weights_only=True)
    model.load_state_dict({name.removeprefix("layers."): tensor for name, tensor in state.items()})
    with torch.no_grad():
        expected = model(torch.from_numpy(embeddings))[:, 0].numpy()
    np.testing.assert_allclose(scorer.head.load(path)(embeddings), expected, atol=1e-5)


def test_a_score_does_not_depend_on_the_rows_around_it(tmp_path, embeddings):
    save_file(random_predictor(768, np.random.default_rng(0), (0, 3, 6, 9, 11)), tmp_path / "relu.safetensors")
    head = read_head(tmp_path / "relu.safetensors")
    assert np.array_equal(head(embeddings), np.concatenate([head(embeddings[n : n + 1]) for n in range(50)]))
    many = np.tile(embeddings, (400, 1))  # enough for float32
    np.testing.assert_allclose(head(many)[-50:], head(embeddings), atol=1e-4)


def test_the_file_of_one_layout_is_refused_where_another_is_wanted(tmp_path):
    rng = np.random.default_rng(0)
    save_file(random_predictor(768, rng, (0, 3, 6, 9, 11)), tmp_path / "relu.safetensors")
    save_file(random_predictor(768, rng), tmp_path / "linear.safetensors")
    save_file(random_detector(768, rng), tmp_path / "detector.safetensors")
    for scorer, own in {"laion-v2-ava-relu": "relu", "laion-v2-ava-linear": "linear", "nsfw": "detector"}.items():
        load = find_scorer(scorer).head.load
        assert load(tmp_path / f"{own}.safetensors") is not None
        for other in {"relu", "linear", "detector"} - {own}:
            with pytest.raises(ModelError, match="not a known predictor"):
                load(tmp_path / f"{other}.safetensors")


def test_one_prefix_may_stand_before_the_names_of_the_layers(tmp_path, embeddings):
    rng = np.random.default_rng(0)
    heads = (random_predictor(768, rng), random_detector(768, rng), {"weight": np.ones((1, 768)), "bias": np.ones(1)})
    for tensors in heads:
        tensors = {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
        save_file(tensors, tmp_path / "plain.safetensors")
        save_file({f"module.{name}": tensor for name, tensor in tensors.items()}, tmp_path / "prefixed.safetensors")
        scores = [read_head(tmp_path / f"{name}.safetensors")(embeddings) for name in ("plain", "prefixed")]
        np.testing.assert_array_equal(*scores)
    save_file(tensors | {"weight": np.full((1, 768), np.nan, np.float32)}, tmp_path / "nan.safetensors")
    with pytest.raises(ModelError, match=r"nan\.safetensors: the predictor's weights hold a NaN"):
        read_head(tmp_path / "nan.safetensors")


def test_a_detector_with_a_normalisation_of_another_size_is_refused(tmp_path):
    tensors = random_detector(768, np.random.default_rng(0)) | {"norm.mean": np.zeros(5, np.float32)}
    save_file(tensors, tmp_path / "odd.safetensors")
    with pytest.raises(ModelError, match="must hold 768 numbers each"):
        read_head(tmp_path / "odd.safetensors")


def test_the_head_of_another_backbone_says_so(tmp_path):
    save_file(random_predictor(512, np.random.default_rng(0)), tmp_path / "small.safetensors")
    with pytest.raises(
        ModelError, match="takes embeddings of 512 numbers, and openai/clip-vit-large-patch14 gives 768"
    ):
        find_scorer(tmp_path / "small.safetensors").head.load(tmp_path / "small.safetensors")
    (tmp_path / "small.safetensors").rename(tmp_path / "日本.safetensors")
    with pytest.raises(ConfigurationError, match=r"letters from a to z: call it mine\.safetensors"):
        find_scorer(tmp_path / "日本.safetensors")
