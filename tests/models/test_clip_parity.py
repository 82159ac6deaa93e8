"""Both towers against transformers' own, on the same pixels."""

from dataclasses import replace

import numpy as np
import pytest
from reference_towers import reference_embed
from safetensors.numpy import save_file

from tastemaker.imaging.decode import decode_image
from tastemaker.imaging.preprocess import preprocess
from tastemaker.models.aesthetic import AestheticPredictor
from tastemaker.models.clip_openvino import OpenVinoClip
from tastemaker.models.hub import weights_path
from tastemaker.models.published.openai_clip import CLIP_VIT_B16, CLIP_VIT_B32, CLIP_VIT_L14
from tastemaker.models.published.siglip import SIGLIP_SO400M
from tastemaker.models.vit import VitDimensions, read_dimensions
from tastemaker.testing import TINY, VIT_L14, random_tower, write_random_models

pytest.importorskip("torch")
pytest.importorskip("transformers")

from tastemaker.models.clip_torch import TorchClip

TOLERANCE = 1e-5  # of the unit vector, in f32
MEDIAN_SCORE_ERROR = 0.01  # of reduced precision against f32
MAX_SCORE_ERROR = 0.05

CLIP, SIGLIP, SIDE = CLIP_VIT_L14, SIGLIP_SO400M, 224
TOWERS = {
    "tiny": (CLIP, TINY, {}),
    "one layer, one head": (CLIP, VitDimensions(64, 1, 1, mlp=64, patch=112, image_size=SIDE, dimension=768), {}),
    "three heads, wide MLP": (CLIP, VitDimensions(96, 3, 3, mlp=768, patch=28, image_size=SIDE, dimension=768), {}),
    "no whole number of patches": (CLIP, VitDimensions(64, 2, 2, mlp=128, patch=14, image_size=64, dimension=10), {}),
    "gelu": (CLIP, TINY, {"activation": "gelu"}),
    "gelu of tanh, a large epsilon": (CLIP, TINY, {"activation": "gelu_tanh", "eps": 0.1}),
    "pooled": (SIGLIP, VitDimensions(144, 2, 2, 128, patch=16, image_size=64, dimension=144, class_tokens=0), {}),
    "pooled, one layer, no whole number of patches": (
        *(SIGLIP, VitDimensions(72, 1, 1, 300, patch=14, image_size=50, dimension=72, class_tokens=0), {}),
    ),
}
REAL = {
    CLIP_VIT_L14: VIT_L14,
    CLIP_VIT_B16: VitDimensions(768, layers=12, heads=12, mlp=3072, patch=16, image_size=SIDE, dimension=512),
    CLIP_VIT_B32: VitDimensions(768, layers=12, heads=12, mlp=3072, patch=32, image_size=SIDE, dimension=512),
    SIGLIP: VitDimensions(1152, 27, 16, mlp=4304, patch=14, image_size=384, dimension=1152, class_tokens=0),
}


@pytest.fixture
def make(tmp_path):
    """A function that writes a random tower of other dimensions; it returns the file, and the record for it."""

    def write(backbone, size, **vit):
        how, width = replace(backbone.preprocess, size=size.image_size), size.width // size.heads
        vit = replace(backbone.vit, head_width=width, **vit)
        weights = tmp_path / "model.safetensors"
        save_file(random_tower(size, np.random.default_rng(7), backbone), weights)
        return weights, replace(backbone, preprocess=how, dimension=size.dimension, vit=vit)

    return write


def photograph_inputs(full_photographs, how=CLIP_VIT_L14.preprocess):
    """uint8 (12, size, size, 3): full_photographs, and each mirrored."""
    inputs = np.stack([preprocess(decode_image(data).pixels, how) for data in full_photographs.values()])
    return np.concatenate([inputs, inputs[:, :, ::-1]])


def load(backend, weights, backbone):
    if backend == "openvino":
        return OpenVinoClip(weights, "f32", backbone=backbone)
    return TorchClip(weights, "cpu", "f32", batch_size=4, backbone=backbone)


@pytest.mark.parametrize("name", TOWERS)
def test_f32_is_what_transformers_computes(make, full_photographs, name):
    base, size, vit = TOWERS[name]
    weights, backbone = make(base, size, **vit)
    assert read_dimensions(weights, backbone) == size
    pixels = photograph_inputs(full_photographs, backbone.preprocess)
    expected = reference_embed(weights, backbone)(pixels)
    assert np.abs(expected[0] - expected[1]).max() > 100 * TOLERANCE  # the images are not all the same to it
    for backend in ("openvino", "torch"):
        assert np.abs(load(backend, weights, backbone).embed(pixels) - expected).max() <= TOLERANCE, backend


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
def test_f32_at_the_real_dimensions_is_what_transformers_computes(make, request, full_photographs, backbone):
    is_there = backbone is CLIP_VIT_L14
    weights = request.getfixturevalue("real_size") if is_there else make(backbone, REAL[backbone])[0]
    assert read_dimensions(weights, backbone) == REAL[backbone]
    pixels = photograph_inputs(full_photographs, backbone.preprocess)[:: 6 if backbone is SIGLIP else 1]
    expected = reference_embed(weights, backbone)(pixels)
    for backend in ("openvino", "torch"):
        difference = np.abs(load(backend, weights, backbone).embed(pixels) - expected).max()
        print(f"{backbone.id} {backend}: {difference:.2g}")
        assert difference <= TOLERANCE
    if not is_there:
        weights.unlink()


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
