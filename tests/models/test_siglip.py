"""The scorer on SigLIP, whose tower pools by attention: against transformers and torch, from the same files."""

from dataclasses import replace

import numpy as np
import pytest
from command import tastemaker
from conftest import encode, read_rows
from reference_siglip import reference_siglip
from safetensors.numpy import save_file

from tastemaker import ConfigurationError, ModelError, VitConfig, VitNames, find_scorer
from tastemaker.models.aesthetic import AestheticPredictor
from tastemaker.models.clip_openvino import OpenVinoClip
from tastemaker.models.hub import weights_path
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
from tastemaker.models.published.siglip import SIGLIP_SO400M, SIGLIP_V2_5
from tastemaker.models.vit import VitDimensions, read_dimensions
from tastemaker.testing import random_predictor, random_tower, tiny_dimensions, write_random_models

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import save_file as save_torch  # noqa: E402
from transformers import SiglipImageProcessorPil  # noqa: E402

from tastemaker.models.clip_torch import TorchClip  # noqa: E402

TOLERANCE = 1e-5  # of the unit vector, in f32
CONFIGS = {
    "two heads": VitDimensions(144, layers=2, heads=2, mlp=128, patch=16, image_size=64, dimension=144, class_tokens=0),
    "one head, one layer, no whole number of patches": VitDimensions(
        72, layers=1, heads=1, mlp=300, patch=14, image_size=50, dimension=72, class_tokens=0
    ),
}
REAL = VitDimensions(1152, layers=27, heads=16, mlp=4304, patch=14, image_size=384, dimension=1152, class_tokens=0)


def backbone_of(config):
    """The record for a tower of other dimensions."""
    how = replace(SIGLIP_SO400M.preprocess, size=config.image_size)
    return replace(SIGLIP_SO400M, preprocess=how, dimension=config.dimension)


def load(backend, weights, backbone):
    if backend == "openvino":
        return OpenVinoClip(weights, "f32", backbone=backbone)
    return TorchClip(weights, "cpu", "f32", batch_size=4, backbone=backbone)


def reference_embeddings(weights, config, pixels):
    values = torch.from_numpy((pixels.astype(np.float32) / 127.5 - 1).transpose(0, 3, 1, 2).copy())
    with torch.inference_mode():
        pooled = reference_siglip(weights, config)(pixel_values=values).pooler_output
    return torch.nn.functional.normalize(pooled, dim=-1).numpy()


def write_tower(folder, config):
    save_file(random_tower(config, np.random.default_rng(7), SIGLIP_SO400M), folder / "model.safetensors")
    return folder / "model.safetensors"


def noise(config, count):
    return np.random.default_rng(1).integers(0, 256, (count, config.image_size, config.image_size, 3), np.uint8)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_f32_is_what_transformers_computes(tmp_path, config, backend):
    weights, backbone, pixels = write_tower(tmp_path, config), backbone_of(config), noise(config, 9)
    assert read_dimensions(weights, backbone) == config
    found, expected = load(backend, weights, backbone).embed(pixels), reference_embeddings(weights, config, pixels)
    assert np.abs(expected[0] - expected[1]).max() > 100 * TOLERANCE  # the images are not all the same to it
    assert np.abs(found - expected).max() <= TOLERANCE


@pytest.mark.slow
def test_f32_at_the_real_dimensions_is_what_transformers_computes(tmp_path):
    weights, pixels = write_tower(tmp_path, REAL), noise(REAL, 2)
    assert REAL.tokens == 729
    expected = reference_embeddings(weights, REAL, pixels)
    for backend in ("openvino", "torch"):
        difference = np.abs(load(backend, weights, SIGLIP_SO400M).embed(pixels) - expected).max()
        print(f"{SIGLIP_SO400M.id} {backend}: {difference:.2g}")
        assert difference <= TOLERANCE
    weights.unlink()


@pytest.mark.parametrize("precision", ["f32", "int8"])
def test_an_embedding_does_not_depend_on_the_images_around_it(tmp_path, precision):
    config = CONFIGS["two heads"]
    weights, pixels = write_tower(tmp_path, config), noise(config, 9)
    tower = OpenVinoClip(weights, precision, backbone=backbone_of(config))
    embeddings = tower.embed(pixels)
    assert np.array_equal(embeddings, np.concatenate([tower.embed(pixels[n : n + 1]) for n in range(9)]))
    assert (embeddings * reference_embeddings(weights, config, pixels)).sum(axis=1).min() > 0.99


def test_the_command_scores_as_transformers_and_torchs_layers_do(tmp_path, photographs):
    folder, models = tmp_path / "photos", write_random_models(tmp_path / "models", scorer="siglip-v2.5")
    folder.mkdir()
    (folder / "wide.png").write_bytes(
        encode(np.zeros((20, 90, 3), np.uint8) + np.arange(90, dtype=np.uint8)[:, None], "PNG")
    )
    for name, data in photographs.items():
        (folder / name).write_bytes(data)
    arguments = ["--scorer", "siglip-v2.5", "--model-dir", models, "--device", "cpu", "--precision", "f32"]
    result = tastemaker("score", folder, "--output", tmp_path / "out", *arguments)
    assert result.returncode == 0, result.stderr
    rows = read_rows(tmp_path / "out")
    expected = expected_scores(models, [folder / row["image_path"].rpartition("/")[2] for row in rows])
    assert [row["siglip_v2_5"] for row in rows] == pytest.approx(expected, abs=1e-3)
    assert np.std(expected) > 0.1


def expected_scores(models, paths):
    """Score files as the author of the head describes it: in the layers' own order, none folded into another."""
    from PIL import Image

    processor = SiglipImageProcessorPil(size={"height": 384, "width": 384})
    values = processor([Image.open(path).convert("RGB") for path in paths], return_tensors="pt").pixel_values
    tower = reference_siglip(weights_path(SIGLIP_SO400M, models), tiny_dimensions(SIGLIP_SO400M))
    state = torch.load(weights_path(SIGLIP_V2_5.head, models), weights_only=True)
    with torch.inference_mode():
        x = torch.nn.functional.normalize(tower(pixel_values=values).pooler_output, dim=-1)
        for number in (0, 2, 4, 6, 8):
            x = torch.nn.functional.linear(x, *(state[f"scoring_head.{number}.{kind}"] for kind in ("weight", "bias")))
    return x[:, 0].tolist()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_head_in_bf16_is_read_as_the_numbers_that_it_holds(tmp_path, suffix):
    tensors = random_predictor(1152, np.random.default_rng(0), (0, 2, 4, 6, 8), "scoring_head")
    short = {name: torch.from_numpy(tensor).bfloat16() for name, tensor in tensors.items()}
    path = tmp_path / f"head{suffix}"
    (save_torch if suffix == ".safetensors" else torch.save)(short, path)
    layers = SIGLIP_V2_5.head.load(path).layers
    for number, (weight, bias) in zip((0, 2, 4, 6, 8), layers, strict=True):
        assert np.array_equal(weight, short[f"scoring_head.{number}.weight"].float().numpy())
        assert np.array_equal(bias, short[f"scoring_head.{number}.bias"].float().numpy())


def test_the_layers_under_another_name_are_no_head(tmp_path):
    save_file(
        random_predictor(8, np.random.default_rng(0), (0, 2, 4, 6, 9), "scoring_head"), tmp_path / "a.safetensors"
    )
    with pytest.raises(ModelError, match=r"scoring_head.\{0,2,4,6,8\}"):
        AestheticPredictor.from_file(tmp_path / "a.safetensors")


def test_a_tower_that_gives_other_embeddings_than_its_record_says_is_refused(tmp_path):
    weights = write_tower(tmp_path, CONFIGS["two heads"])
    with pytest.raises(ModelError, match=r"\(144\,\), not \(1152\)|\(144, 3, 16, 16\), not \(1152"):
        read_dimensions(weights, SIGLIP_SO400M)


@pytest.mark.parametrize("names", [{"class_token": None}, {"pool": "head"}, {"class_token": None, "pool": "head"}])
def test_a_tower_of_both_poolings_or_none_is_refused(names):
    with pytest.raises(ConfigurationError, match="either a class token, or a pooling and no projection"):
        VitConfig(names=VitNames(**names))


def test_a_clip_tower_is_no_siglip_tower(tmp_path):
    save_file(random_tower(tiny_dimensions(CLIP_VIT_L14), np.random.default_rng(0)), tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="no vision tower of google/siglip-so400m-patch14-384"):
        OpenVinoClip(tmp_path / "model.safetensors", "f32", backbone=find_scorer("siglip-v2.5").backbone)
