"""Weights in 8 bits, and the tower that runs on them."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tastemaker.models.clip_openvino import OpenVinoClip
from tastemaker.models.hub import weights_path
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
from tastemaker.models.quantized import SCALE_SUFFIX, open_quantized, quantize_rows
from tastemaker.models.records import VitNames
from tastemaker.models.weights import WeightsFile


def quantize(weights):
    return open_quantized(weights, VitNames())


LAYER = "vision_model.encoder.layers.0.mlp.fc1.weight"


@pytest.fixture
def weights(model_dir, tmp_path, monkeypatch):
    """A copy of the tiny checkpoint, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return shutil.copytree(weights_path(CLIP_VIT_L14, model_dir).parent, tmp_path / "model") / "model.safetensors"


@pytest.fixture
def pixels():
    return np.random.default_rng(3).integers(0, 256, (21, 224, 224, 3), np.uint8)


def test_each_row_has_its_own_scale_and_is_off_by_half_of_it_at_most():
    weight = np.random.default_rng(0).normal(size=(40, 300)).astype(np.float32) * np.logspace(-6, 6, 40)[:, None]
    weight = weight.astype(np.float32)
    quantized, scale = quantize_rows(weight)
    assert quantized.dtype == np.int8
    assert np.abs(quantized).max(axis=1).tolist() == [127] * 40
    assert (np.abs(quantized * scale - weight) <= scale * 0.5001).all()


def test_a_row_of_zeros_stays_one():
    quantized, scale = quantize_rows(np.zeros((2, 8), np.float32))
    assert not quantized.any()
    assert np.isfinite(scale).all()


def test_the_layers_are_quantized_and_the_rest_is_as_it_was(weights):
    source, quantized = WeightsFile(weights), quantize(weights)
    expected, scale = quantize_rows(source.tensor(LAYER))
    assert np.array_equal(quantized.integers(LAYER), expected)
    assert np.array_equal(quantized.tensor(LAYER + SCALE_SUFFIX), scale)
    for name in ("visual_projection.weight", "vision_model.encoder.layers.1.layer_norm1.weight"):
        assert np.array_equal(quantized.tensor(name), source.tensor(name))


def test_weights_are_quantized_once_by_many_at_a_time(weights):
    with ThreadPoolExecutor(8) as pool:
        paths = {file.path for file in pool.map(quantize, [weights] * 8)}
    (path,) = paths
    written = path.stat().st_mtime_ns
    assert quantize(weights).path == path
    assert path.stat().st_mtime_ns == written
    assert sorted(file.name for file in path.parent.glob("*.safetensors*")) in (
        [path.name],
        [path.name, f"{path.name}.lock"],
    )


def test_what_a_killed_process_left_is_replaced(weights):
    path = quantize(weights).path
    path.write_bytes(path.read_bytes()[:100])
    path.rename(path.with_name(f".tastemaker-tmp-0123-{path.name}"))  # as a draft is called
    assert quantize(weights).path == path
    assert {file.name for file in path.parent.iterdir()} <= {path.name, f"{path.name}.lock"}


def test_in_a_home_that_is_read_only_the_weights_are_made_in_memory_and_that_is_said(
    weights, pixels, tmp_path, monkeypatch, caplog
):
    expected = OpenVinoClip(weights, "int8").embed(pixels[:3])
    (tmp_path / "no folder").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no folder"))
    assert np.array_equal(OpenVinoClip(weights, "int8").embed(pixels[:3]), expected)
    [record] = caplog.records
    assert "cannot be kept" in record.getMessage()


def test_other_weights_are_quantized_again(weights):
    first = quantize(weights).path
    data = bytearray(weights.read_bytes())
    data[-4:] = b"\0\0\0\0"
    weights.write_bytes(data)
    assert quantize(weights).path != first


def test_an_embedding_in_int8_is_close_and_does_not_depend_on_its_batch(weights, pixels):
    exact, quantized = OpenVinoClip(weights, "f32"), OpenVinoClip(weights, "int8")
    expected = quantized.embed(pixels)
    assert quantized.describe()["precision"] == "int8"
    assert 0 < np.abs(expected - exact.embed(pixels)).max() < 0.02
    assert np.array_equal(expected[::-1], quantized.embed(pixels[::-1]))
    assert np.array_equal(expected[:1], quantized.embed(pixels[:1]))
    assert np.array_equal(expected, np.concatenate([quantized.embed(part) for part in np.split(pixels, [1, 8])]))
