"""The scorer on SigLIP, whose tower pools by attention: against transformers and torch, from the same files."""

from dataclasses import replace

import numpy as np
import pytest
from command import tastemaker
from conftest import encode, read_rows
from reference_towers import reference_embed, reference_model
from safetensors.numpy import save_file

from tastemaker import ConfigurationError, ModelError, VitConfig, VitNames
from tastemaker.models.clip_openvino import OpenVinoClip
from tastemaker.models.hub import weights_path
from tastemaker.models.published.siglip import SIGLIP_SO400M, SIGLIP_V2_5
from tastemaker.models.vit import VitDimensions, read_dimensions
from tastemaker.testing import random_predictor, random_tower, write_random_models

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import save_file as save_torch  # noqa: E402
from transformers import SiglipImageProcessorPil  # noqa: E402

SMALL = VitDimensions(144, layers=2, heads=2, mlp=128, patch=16, image_size=64, dimension=144, class_tokens=0)
BACKBONE = replace(SIGLIP_SO400M, preprocess=replace(SIGLIP_SO400M.preprocess, size=64), dimension=144)


@pytest.fixture
def weights(tmp_path):
    save_file(random_tower(SMALL, np.random.default_rng(7), SIGLIP_SO400M), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("precision", ["f32", "int8"])
def test_an_embedding_does_not_depend_on_the_images_around_it(weights, precision):
    pixels = np.random.default_rng(1).integers(0, 256, (9, 64, 64, 3), np.uint8)
    tower = OpenVinoClip(weights, precision, backbone=BACKBONE)
    embeddings = tower.embed(pixels)
    assert np.array_equal(embeddings, np.concatenate([tower.embed(pixels[n : n + 1]) for n in range(9)]))
    assert (embeddings * reference_embed(weights, BACKBONE)(pixels)).sum(axis=1).min() > 0.99


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
    tower = reference_model(weights_path(SIGLIP_SO400M, models), SIGLIP_SO400M)
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


def test_a_tower_that_gives_other_embeddings_than_its_record_says_is_refused(weights):
    with pytest.raises(ModelError, match=r"\(144\,\), not \(1152\)|\(144, 3, 16, 16\), not \(1152"):
        read_dimensions(weights, SIGLIP_SO400M)


@pytest.mark.parametrize("names", [{"class_token": None}, {"pool": "head"}, {"class_token": None, "pool": "head"}])
def test_a_tower_of_both_poolings_or_none_is_refused(names):
    with pytest.raises(ConfigurationError, match="either a class token, or a pooling and no projection"):
        VitConfig(names=VitNames(**names))
