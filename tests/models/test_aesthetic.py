import pickle
import re
import sys
from itertools import pairwise

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny import Trap, unit_vectors

from tastemaker.errors import ModelError
from tastemaker.models.aesthetic import AestheticPredictor
from tastemaker.models.hub import weights_path
from tastemaker.models.published.laion_v2 import AESTHETIC_PREDICTOR
from tastemaker.testing import random_predictor


@pytest.fixture(scope="module")
def weights(model_dir):
    return weights_path(AESTHETIC_PREDICTOR, model_dir)


@pytest.fixture(scope="module")
def predictor(weights):
    return AestheticPredictor.from_file(weights)


@pytest.fixture(scope="module")
def published(real_head):
    return AestheticPredictor.from_file(real_head)


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def state(torch, weights):
    """The random predictor as torch's state dict."""
    return {name: torch.from_numpy(tensor) for name, tensor in load_file(weights).items()}


# The published predictor


def test_the_published_predictor_has_the_stated_map(published):
    assert published.embedding_size == 768
    assert published.bias == pytest.approx(5.2366, abs=1e-4)
    assert np.linalg.norm(published.weight) == pytest.approx(17.996, abs=1e-3)


def test_the_published_predictor_scores_as_torch_does(torch, real_head, published):
    sizes = [768, 1024, 128, 64, 16, 1]
    layers = [torch.nn.Linear(inputs, outputs) for inputs, outputs in pairwise(sizes)]
    dropout = [torch.nn.Dropout(rate) for rate in (0.2, 0.2, 0.1)]
    chain = torch.nn.Sequential(
        layers[0], dropout[0], layers[1], dropout[1], layers[2], dropout[2], layers[3], layers[4]
    ).eval()
    chain.load_state_dict({n.removeprefix("layers."): torch.from_numpy(t) for n, t in load_file(real_head).items()})
    vectors = unit_vectors(500)
    with torch.inference_mode():
        expected = chain(torch.from_numpy(vectors))[:, 0].numpy()
    np.testing.assert_allclose(published.score(vectors), expected, atol=1e-5, rtol=0)


# Scores


@pytest.mark.parametrize("name", ["predictor", "published"])
def test_the_fold_agrees_with_the_chain_of_layers(request, name):
    predictor, vectors = request.getfixturevalue(name), unit_vectors(2000)
    x = vectors
    for weight, bias in predictor.layers:
        x = x @ weight.astype(np.float32).T + bias.astype(np.float32)
    np.testing.assert_allclose(predictor.score(vectors), x[:, 0], atol=1e-5, rtol=0)


def test_a_score_is_the_same_bit_for_bit_beside_any_others(predictor):
    vectors = unit_vectors(300)
    alone = np.concatenate([predictor.score(vector[None]) for vector in vectors])
    assert np.array_equal(predictor.score(vectors), alone)
    assert np.array_equal(predictor.score(np.asfortranarray(vectors)), alone)
    assert np.array_equal(predictor.score(vectors[::-1])[::-1], alone)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floating_point_embeddings_are_scored(predictor, dtype):
    vectors = unit_vectors(50)
    error = np.abs(predictor.score(vectors.astype(dtype)) - predictor.score(vectors)).max()
    assert error <= (0.01 if dtype is np.float16 else 1e-6)


# Embeddings that are refused


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 512), np.float32),
        np.zeros(768, np.float32),
        np.eye(2, 768, dtype=np.int8),
        [["a"] * 768],
    ],
    ids=lambda value: f"{np.asarray(value).dtype}{np.asarray(value).shape}",
)
def test_what_cannot_be_embeddings_is_refused(predictor, wrong):
    with pytest.raises(ModelError, match=re.escape("embeddings must be floating-point numbers of shape (n, 768), not")):
        predictor.score(wrong)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_embedding_with_a_nan_or_an_infinity_is_named(predictor, value):
    vectors = unit_vectors(5)
    vectors[3, 700] = value
    with pytest.raises(ModelError, match="embedding 3 holds a NaN or an infinity"):
        predictor.score(vectors)


@pytest.mark.parametrize("length", [0.97, 10.0, 0.0])
def test_an_embedding_that_was_not_normalised_is_named_with_what_to_do(predictor, length):
    vectors = unit_vectors(5)
    vectors[4] *= np.float32(length)
    with pytest.raises(ModelError, match=r"embedding 4 has length .* divide embeddings by their L2 norm"):
        predictor.score(vectors)


# Files


def test_a_pth_scores_as_the_safetensors_does(torch, state, predictor, tmp_path):
    vectors = unit_vectors(20)
    for name, content in {"a.pth": state, "b.pt": {"state_dict": state}, "C.PTH": state, "d.ckpt": state}.items():
        torch.save(content, tmp_path / name)
        assert np.array_equal(AestheticPredictor.from_file(tmp_path / name).score(vectors), predictor.score(vectors))


@pytest.mark.parametrize("prefix", ["", "linear."])
def test_the_first_version_is_one_linear_layer(tmp_path, prefix):
    weight = np.random.default_rng(0).standard_normal((1, 768), np.float32)
    tensors = {f"{prefix}weight": weight, f"{prefix}bias": np.array([5.0], np.float32)}
    path = tmp_path / "head.safetensors"
    save_file(tensors, path)
    vectors = unit_vectors(4)
    np.testing.assert_allclose(AestheticPredictor.from_file(path).score(vectors), vectors @ weight[0] + 5, atol=1e-5)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_predictor_in_one_file_with_a_vision_tower_is_found(weights, predictor, tmp_path, suffix):
    tower = {"vision_model.embeddings.class_embedding": np.ones(8, np.float32), "visual_projection.weight": np.eye(8)}
    tensors = {**tower, **load_file(weights)}
    path = tmp_path / f"model{suffix}"
    if suffix == ".pth":
        torch = pytest.importorskip("torch")
        torch.save({name: torch.from_numpy(tensor.copy()) for name, tensor in tensors.items()}, path)
    else:
        save_file(tensors, path)
    vectors = unit_vectors(4)
    assert np.array_equal(AestheticPredictor.from_file(path).score(vectors), predictor.score(vectors))


@pytest.mark.parametrize("is_zip", [False, True])
def test_a_pth_with_code_in_it_is_refused_and_the_code_does_not_run(torch, state, tmp_path, is_zip):
    path, trap = tmp_path / "hostile.pth", Trap(tmp_path / "harm")
    if is_zip:
        torch.save({**state, "layers.0.weight": trap}, path)
    else:
        path.write_bytes(pickle.dumps(trap, protocol=2))
    with pytest.raises(ModelError, match=r"hostile\.pth cannot be read as plain weights") as raised:
        AestheticPredictor.from_file(path)
    assert not (tmp_path / "harm").exists()
    assert len(str(raised.value).splitlines()) == 1


def test_a_pth_needs_no_torch(torch, state, predictor, tmp_path, monkeypatch):
    torch.save(state, tmp_path / "head.pth")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert AestheticPredictor.from_file(tmp_path / "head.pth").bias == predictor.bias


@pytest.mark.parametrize("name", ["garbage.safetensors", "garbage.pth"])
@pytest.mark.parametrize("content", [None, b"", b"<html>404</html>"])
def test_a_file_that_is_missing_or_of_another_kind_is_named(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=re.escape(name)):
        AestheticPredictor.from_file(tmp_path / name)


# Predictors that are refused


def refusal(tensors, tmp_path):
    save_file(tensors, tmp_path / "head.safetensors")
    with pytest.raises(ModelError) as caught:
        AestheticPredictor.from_file(tmp_path / "head.safetensors")
    return str(caught.value)


def test_more_or_fewer_tensors_are_refused(tmp_path):
    tensors = random_predictor(768, np.random.default_rng(0))
    extra = {**tensors, "layers.1.weight": np.ones(3, np.float32)}
    fewer = {name: tensor for name, tensor in tensors.items() if name != "layers.7.bias"}
    scoring = random_predictor(8, np.random.default_rng(0), (0, 2, 4, 6, 9), "scoring_head")
    with_relus = random_predictor(768, np.random.default_rng(0), (0, 3, 6, 9, 11))  # folded, its scores were wrong
    for wrong in (extra, fewer, scoring, with_relus, {}):
        assert "not a known predictor" in refusal(wrong, tmp_path)


def test_layers_that_do_not_fit_each_other_are_refused(tmp_path):
    tensors = random_predictor(768, np.random.default_rng(0))
    for name, shape in {
        "layers.2.weight": (128, 1000),
        "layers.7.weight": (2, 16),
        "layers.0.weight": (1024,),
    }.items():
        wrong = {**tensors, name: np.ones(shape, np.float32)}
        assert "do not fit each other, or do not end in one number" in refusal(wrong, tmp_path), name


def test_weights_with_a_nan_are_refused(tmp_path):
    tensors = random_predictor(768, np.random.default_rng(0))
    tensors["layers.4.weight"][3, 3] = np.nan
    assert "NaN or an infinity" in refusal(tensors, tmp_path)


# Many at once


@pytest.fixture(scope="module")
def many():
    return unit_vectors(16_500)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_many_embeddings_get_the_scores_that_few_get(predictor, many, dtype):
    embeddings = many.astype(dtype)
    together = predictor.score(embeddings)
    parts = np.concatenate([predictor.score(part) for part in np.array_split(embeddings, 7)])
    assert together.dtype == np.float32
    assert np.abs(together - parts).max() < 2e-6 * np.abs(predictor.weight).max() * 768**0.5
    assert np.array_equal(together[::-1], predictor.score(embeddings[::-1]))


@pytest.mark.parametrize(("value", "message"), [(np.nan, "embedding 16499 holds a NaN"), (9, "16499 has length 9")])
def test_one_wrong_embedding_among_many_is_found(predictor, many, value, message):
    embeddings = many.copy()
    embeddings[16_499, 0] = value
    with pytest.raises(ModelError, match=message):
        predictor.score(embeddings)
