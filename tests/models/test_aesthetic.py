import io
import pickle
import re
import subprocess
import sys
import warnings
from itertools import pairwise

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tastemaker.errors import ModelError
from tastemaker.models.aesthetic import AestheticPredictor
from tastemaker.models.hub import weights_path
from tastemaker.models.published.laion_v2 import AESTHETIC_PREDICTOR
from tastemaker.testing import random_predictor


def unit_vectors(count, seed=0, size=768):
    vectors = np.random.default_rng(seed).standard_normal((count, size))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


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


def score_by_layers(predictor, embeddings):
    """The same scores by the layers one after the other in float32, as the reference computes them."""
    x = embeddings
    for weight, bias in predictor.layers:
        x = x @ weight.astype(np.float32).T + bias.astype(np.float32)
    return x[:, 0]


def test_the_published_predictor_scores_its_own_direction_highest(published):
    direction = (published.weight / np.linalg.norm(published.weight)).astype(np.float32)
    best, worst = published.score(np.stack([direction, -direction]))
    assert best == pytest.approx(23.232, abs=1e-3)
    assert worst == pytest.approx(2 * 5.23665 - 23.232, abs=1e-3)


def test_the_published_predictor_folds_to_the_chain_of_its_layers(published):
    vectors = unit_vectors(2000)
    np.testing.assert_allclose(published.score(vectors), score_by_layers(published, vectors), atol=1e-5, rtol=0)


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


def test_the_zero_vector_is_no_embedding(published):
    with pytest.raises(ModelError, match="embedding 0 has length 0 instead of 1"):
        published.score(np.zeros((1, 768), np.float32))


# Scores


def test_the_fold_agrees_with_the_chain_of_layers(predictor):
    vectors = unit_vectors(2000)
    np.testing.assert_allclose(predictor.score(vectors), score_by_layers(predictor, vectors), atol=1e-5, rtol=0)


def test_scores_are_float32_one_for_each_embedding(predictor):
    scores = predictor.score(unit_vectors(3))
    assert scores.dtype == np.float32
    assert scores.shape == (3,)


def test_no_embeddings_have_no_scores(predictor):
    scores = predictor.score(unit_vectors(0))
    assert (scores.shape, scores.dtype) == ((0,), np.float32)


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


def test_embeddings_in_a_list_are_scored(predictor):
    vectors = unit_vectors(2)
    assert np.array_equal(predictor.score(vectors.tolist()), predictor.score(vectors))


# Embeddings that are refused


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 512), np.float32),
        np.zeros(768, np.float32),
        np.zeros((1, 1, 768), np.float32),
        np.eye(2, 768, dtype=np.int8),
        np.eye(2, 768, dtype=np.complex64),
        np.zeros((2, 768), bool),
        np.array(1.0),
        [],
        [["a"] * 768],
    ],
    ids=lambda value: f"{np.asarray(value).dtype}{np.asarray(value).shape}",
)
def test_what_cannot_be_embeddings_is_refused(predictor, wrong):
    with pytest.raises(ModelError, match=re.escape("embeddings must be floating-point numbers of shape (n, 768), not")):
        predictor.score(wrong)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_embedding_with_a_nan_or_an_infinity_is_named(predictor, value):
    vectors = unit_vectors(5)
    vectors[3, 700] = value
    with pytest.raises(ModelError, match="embedding 3 holds a NaN or an infinity"):
        predictor.score(vectors)


@pytest.mark.parametrize("length", [0.97, 1.03, 10.0, 0.0, 1e30])
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


def test_a_pth_of_parameters_in_half_precision_is_read(torch, state, predictor, tmp_path):
    torch.save({name: torch.nn.Parameter(tensor.half()) for name, tensor in state.items()}, tmp_path / "half.pth")
    vectors = unit_vectors(20)
    half = AestheticPredictor.from_file(tmp_path / "half.pth")
    np.testing.assert_allclose(half.score(vectors), predictor.score(vectors), atol=0.02)


@pytest.mark.parametrize("prefix", ["", "linear.", "0."])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_first_version_is_one_linear_layer(tmp_path, prefix, suffix):
    weight = np.random.default_rng(0).standard_normal((1, 768), np.float32)
    tensors = {f"{prefix}weight": weight, f"{prefix}bias": np.array([5.0], np.float32)}
    path = tmp_path / f"sa_0_4_vit_l_14_linear{suffix}"
    if suffix == ".pth":
        torch = pytest.importorskip("torch")
        torch.save({name: torch.from_numpy(tensor) for name, tensor in tensors.items()}, path)
    else:
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


def test_weights_in_half_precision_are_read(weights, predictor, tmp_path):
    save_file({n: t.astype(np.float16) for n, t in load_file(weights).items()}, tmp_path / "half.safetensors")
    vectors = unit_vectors(20)
    half = AestheticPredictor.from_file(tmp_path / "half.safetensors")
    np.testing.assert_allclose(half.score(vectors), predictor.score(vectors), atol=0.02)


class Payload:
    """Unpickled, it calls open(path, "w")."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_the_payload_does_harm_where_it_is_unpickled(tmp_path):
    pickle.load(io.BytesIO(pickle.dumps(Payload(tmp_path / "harm")))).close()
    assert (tmp_path / "harm").exists()


@pytest.mark.parametrize("legacy", [False, True, None], ids=["zip", "legacy", "plain pickle"])
def test_a_pth_with_code_in_it_is_refused_and_the_code_does_not_run(torch, state, tmp_path, legacy):
    content = {**state, "layers.0.weight": Payload(tmp_path / "harm")}
    path = tmp_path / "hostile.pth"
    if legacy is None:
        path.write_bytes(pickle.dumps(content["layers.0.weight"], protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ModelError, match=r"hostile\.pth cannot be read as plain weights") as raised:
        AestheticPredictor.from_file(path)
    assert not (tmp_path / "harm").exists()
    assert len(str(raised.value).splitlines()) == 1
    assert "weights_only" not in str(raised.value)


def test_a_plain_pickle_is_refused_in_our_words_only(torch, tmp_path):
    path = tmp_path / "plain.pth"
    path.write_bytes(pickle.dumps({"layers.0.weight": torch.zeros(1, 768)}))
    expected = pytest.raises(ModelError, match="cannot be read as plain weights")
    with warnings.catch_warnings(record=True) as caught, expected:
        AestheticPredictor.from_file(path)
    assert caught == []


def test_a_whole_pickled_module_is_refused(torch, tmp_path):
    torch.save(torch.nn.Linear(768, 1), tmp_path / "module.pth")
    with pytest.raises(ModelError, match="cannot be read as plain weights"):
        AestheticPredictor.from_file(tmp_path / "module.pth")


@pytest.mark.parametrize("content", [[1, 2], 3, {"epoch": 7}, {"state_dict": 7}])
def test_a_pth_of_other_things_is_refused(torch, tmp_path, content):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ModelError, match=r"other\.pth"):
        AestheticPredictor.from_file(tmp_path / "other.pth")


def test_a_pth_needs_no_torch(torch, state, predictor, tmp_path):
    torch.save(state, tmp_path / "head.pth")
    code = (
        "import sys; sys.modules['torch'] = None; from pathlib import Path; "
        "from tastemaker.models.aesthetic import AestheticPredictor; "
        "print(AestheticPredictor.from_file(Path(sys.argv[1])).bias)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "head.pth"], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) == predictor.bias


@pytest.mark.parametrize("name", ["none.safetensors", "none.pth"])
def test_a_file_that_is_not_there_is_named(tmp_path, name):
    with pytest.raises(ModelError, match=re.escape(name)):
        AestheticPredictor.from_file(tmp_path / name)


@pytest.mark.parametrize("name", ["garbage.safetensors", "garbage.pth"])
@pytest.mark.parametrize("content", [b"", b"<html>404</html>", bytes(1000)])
def test_a_file_of_another_kind_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=re.escape(name)):
        AestheticPredictor.from_file(tmp_path / name)


# Predictors that are refused


def rename(tensors, numbers):
    """The same layers under other numbers."""
    known = dict(zip((0, 2, 4, 6, 7), numbers, strict=True))
    return {re.sub(r"\d+", lambda match: str(known[int(match[0])]), name): t for name, t in tensors.items()}


def refusal(tensors, tmp_path):
    save_file(tensors, tmp_path / "head.safetensors")
    with pytest.raises(ModelError) as caught:
        AestheticPredictor.from_file(tmp_path / "head.safetensors")
    return str(caught.value)


def test_a_head_with_activations_between_its_layers_is_refused(tmp_path):
    """ReLU takes numbers in the state dict: folding such a head into one map would give wrong scores."""
    tensors = random_predictor(768, np.random.default_rng(0))
    message = refusal(rename(tensors, (0, 3, 6, 9, 11)), tmp_path)
    assert "not a known predictor" in message
    assert "layers.11.bias" in message


def test_more_or_fewer_tensors_are_refused(tmp_path):
    tensors = random_predictor(768, np.random.default_rng(0))
    extra = {**tensors, "layers.1.weight": np.ones(3, np.float32)}
    fewer = {name: tensor for name, tensor in tensors.items() if name != "layers.7.bias"}
    for wrong in (extra, fewer, {}):
        assert "not a known predictor" in refusal(wrong, tmp_path)


def test_layers_that_do_not_fit_each_other_are_refused(tmp_path):
    tensors = random_predictor(768, np.random.default_rng(0))
    for name, shape in {
        "layers.2.weight": (128, 1000),
        "layers.4.bias": (63,),
        "layers.7.weight": (2, 16),
        "layers.0.weight": (1024,),
        "layers.6.weight": (),
    }.items():
        wrong = {**tensors, name: np.ones(shape, np.float32)}
        assert "do not fit each other, or do not end in one number" in refusal(wrong, tmp_path), name


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_with_a_nan_or_an_infinity_are_refused(tmp_path, value):
    tensors = random_predictor(768, np.random.default_rng(0))
    tensors["layers.4.weight"][3, 3] = value
    assert "NaN or an infinity" in refusal(tensors, tmp_path)


def test_a_predictor_has_at_least_one_layer():
    with pytest.raises(ModelError, match="at least one layer"):
        AestheticPredictor([])


def test_a_clip_tower_is_no_predictor(model_dir):
    with pytest.raises(ModelError, match="not a known predictor"):
        AestheticPredictor.from_file(model_dir / "openai" / "clip-vit-large-patch14" / "model.safetensors")


# Many at once


def many(dtype=np.float16, rows=20_001):
    embeddings = np.random.default_rng(5).standard_normal((rows, 768)).astype(np.float32)
    return (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_many_embeddings_get_the_scores_that_few_get(predictor, dtype):
    embeddings = many(dtype)
    together = predictor.score(embeddings)
    parts = np.concatenate([predictor.score(part) for part in np.array_split(embeddings, 7)])
    assert together.dtype == np.float32
    assert np.abs(together - parts).max() < 2e-6 * np.abs(predictor.weight).max() * 768**0.5
    assert np.array_equal(together[::-1], predictor.score(embeddings[::-1]))


def test_many_embeddings_may_lie_in_a_file(predictor, tmp_path):
    embeddings = many()
    np.save(tmp_path / "e.npy", embeddings)
    assert np.array_equal(predictor.score(np.load(tmp_path / "e.npy", mmap_mode="r")), predictor.score(embeddings))


@pytest.mark.parametrize(("value", "message"), [(np.nan, "embedding 19999 holds a NaN"), (9, "19999 has length 9")])
def test_one_wrong_embedding_among_many_is_found(predictor, value, message):
    embeddings = many()
    embeddings[19_999, 0] = value
    with pytest.raises(ModelError, match=message):
        predictor.score(embeddings)
