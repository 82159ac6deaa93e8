"""Both towers against transformers' own, on the same pixels."""

from dataclasses import replace

import numpy as np
import pytest
from reference_clip import reference_tower
from safetensors.numpy import save_file

from tastemaker.imaging.decode import decode_image
from tastemaker.imaging.preprocess import preprocess
from tastemaker.models.aesthetic import AestheticPredictor
from tastemaker.models.clip_openvino import OpenVinoClip
from tastemaker.models.hub import weights_path
from tastemaker.models.published.openai_clip import CLIP_VIT_B16, CLIP_VIT_B32, CLIP_VIT_L14
from tastemaker.models.records import VitConfig
from tastemaker.models.vit import VitDimensions
from tastemaker.testing import TINY, VIT_L14, random_tower, write_random_models

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD  # noqa: E402

from tastemaker.models.clip_torch import TorchClip  # noqa: E402

TOLERANCE = 1e-5  # of the unit vector, in f32
MEDIAN_SCORE_ERROR = 0.01  # of reduced precision against f32
MAX_SCORE_ERROR = 0.05

SIDE = 224
CONFIGS = {
    "tiny": TINY,
    "one layer, one head": VitDimensions(64, layers=1, heads=1, mlp=64, patch=112, image_size=SIDE, dimension=768),
    "three heads, wide MLP": VitDimensions(96, layers=3, heads=3, mlp=768, patch=28, image_size=SIDE, dimension=768),
    "no whole number of patches": VitDimensions(64, layers=2, heads=2, mlp=128, patch=14, image_size=64, dimension=10),
}
REAL = {
    CLIP_VIT_L14: VIT_L14,
    CLIP_VIT_B16: VitDimensions(768, layers=12, heads=12, mlp=3072, patch=16, image_size=SIDE, dimension=512),
    CLIP_VIT_B32: VitDimensions(768, layers=12, heads=12, mlp=3072, patch=32, image_size=SIDE, dimension=512),
}


def backbone_of(config, **vit):
    """A record for a tower of any dimensions."""
    how = replace(CLIP_VIT_L14.preprocess, size=config.image_size)
    head_width = config.width // config.heads
    return replace(
        CLIP_VIT_L14, preprocess=how, dimension=config.dimension, vit=VitConfig(head_width=head_width, **vit)
    )


@pytest.fixture(scope="module")
def reference_embeddings():
    """A function: (weights, config, pixels) -> what transformers makes of them, eager, float32."""

    def embed(weights, config, pixels, activation="quick_gelu", eps=1e-5):
        tower = reference_tower(weights, config, activation, eps)
        mean, std = np.array(OPENAI_CLIP_MEAN, np.float32), np.array(OPENAI_CLIP_STD, np.float32)
        values = torch.from_numpy(((pixels.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2).copy())
        with torch.inference_mode():
            embeddings = torch.cat([tower(pixel_values=part).image_embeds for part in values.split(4)])
        return torch.nn.functional.normalize(embeddings, dim=-1).numpy()

    return embed


def photograph_inputs(full_photographs, size=224):
    """uint8 (12, size, size, 3): full_photographs, and each mirrored."""
    how = replace(CLIP_VIT_L14.preprocess, size=size)
    inputs = np.stack([preprocess(decode_image(data).pixels, how) for data in full_photographs.values()])
    return np.concatenate([inputs, inputs[:, :, ::-1]])


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_f32_is_what_transformers_computes(tmp_path, full_photographs, reference_embeddings, config, backend):
    weights, backbone = tmp_path / "model.safetensors", backbone_of(config)
    save_file(random_tower(config, np.random.default_rng(7)), weights)
    pixels = photograph_inputs(full_photographs, config.image_size)
    tower = load(backend, weights, backbone)
    assert np.abs(tower.embed(pixels) - reference_embeddings(weights, config, pixels)).max() <= TOLERANCE


@pytest.mark.parametrize(("ours", "theirs", "eps"), [("gelu", "gelu", 1e-5), ("gelu_tanh", "gelu_pytorch_tanh", 0.1)])
@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_other_activations_and_epsilons_are_what_transformers_computes(
    tmp_path, full_photographs, reference_embeddings, backend, ours, theirs, eps
):
    weights, backbone = tmp_path / "model.safetensors", backbone_of(TINY, activation=ours, eps=eps)
    save_file(random_tower(TINY, np.random.default_rng(7)), weights)
    pixels = photograph_inputs(full_photographs)
    expected = reference_embeddings(weights, TINY, pixels, theirs, eps)
    assert np.abs(load(backend, weights, backbone).embed(pixels) - expected).max() <= TOLERANCE


def load(backend, weights, backbone):
    if backend == "openvino":
        return OpenVinoClip(weights, "f32", backbone=backbone)
    return TorchClip(weights, "cpu", "f32", batch_size=4, backbone=backbone)


# The real dimensions. One after the other, so that one tower at a time is in memory.


@pytest.fixture(scope="module")
def real_size(tmp_path_factory):
    """A checkpoint of the real dimensions (1.2 GB), deleted at the end."""
    folder = tmp_path_factory.mktemp("real_size")
    weights = weights_path(CLIP_VIT_L14, write_random_models(folder, VIT_L14))
    yield weights
    weights.unlink()


@pytest.fixture(scope="module")
def real_size_f32(real_size, full_photographs):
    return OpenVinoClip(real_size, "f32").embed(photograph_inputs(full_photographs))


@pytest.mark.slow
@pytest.mark.parametrize("backbone", REAL, ids=lambda backbone: backbone.id)
def test_f32_at_the_real_dimensions_is_what_transformers_computes(
    tmp_path, request, full_photographs, reference_embeddings, backbone
):
    if backbone is CLIP_VIT_L14:
        weights = request.getfixturevalue("real_size")
    else:
        weights = tmp_path / "model.safetensors"
        save_file(random_tower(REAL[backbone], np.random.default_rng(7), backbone), weights)
    pixels = photograph_inputs(full_photographs)
    expected = reference_embeddings(weights, REAL[backbone], pixels)
    for backend in ("openvino", "torch"):
        difference = np.abs(load(backend, weights, backbone).embed(pixels) - expected).max()
        print(f"{backbone.id} {backend}: {difference:.2g}")
        assert difference <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_bf16_at_the_real_dimensions_keeps_the_score(real_size, real_size_f32, full_photographs, real_head, backend):
    if backend == "torch":
        tower = TorchClip(real_size, "cpu", "bf16", batch_size=4)
    else:
        tower = OpenVinoClip(real_size)
        if tower.precision != "bf16":
            pytest.skip("this processor does not multiply bf16 in hardware")
    predictor = AestheticPredictor.from_file(real_head)  # the tolerance is in its units
    scores = predictor.score(tower.embed(photograph_inputs(full_photographs)))
    errors = np.abs(scores - predictor.score(real_size_f32))
    print(f"{backend} bf16: score error median {np.median(errors):.4f}, maximum {errors.max():.4f}")
    assert np.median(errors) <= MEDIAN_SCORE_ERROR
    assert errors.max() <= MAX_SCORE_ERROR
