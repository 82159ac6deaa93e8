"""Both towers against transformers' own, on the same pixels."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tastemaker.imaging.decode import decode_image
from tastemaker.imaging.preprocess import preprocess
from tastemaker.models.aesthetic import AestheticPredictor
from tastemaker.models.clip import ClipConfig
from tastemaker.models.clip_openvino import OpenVinoClip
from tastemaker.models.hub import CLIP_VIT_L14, weights_path
from tastemaker.testing import TINY, VIT_L14, random_clip, write_random_models

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD  # noqa: E402

from tastemaker.models.clip_torch import TorchClip  # noqa: E402

TOLERANCE = 1e-5  # of the unit vector, in f32
MEDIAN_SCORE_ERROR = 0.01  # of reduced precision against f32
MAX_SCORE_ERROR = 0.05

CONFIGS = {
    "tiny": TINY,
    "one layer, one head": ClipConfig(width=64, layers=1, heads=1, mlp=64, patch=112, image_size=224, projection=768),
    "many heads": ClipConfig(width=128, layers=2, heads=8, mlp=512, patch=32, image_size=224, projection=768),
    "three heads, wide MLP": ClipConfig(width=96, layers=3, heads=3, mlp=768, patch=28, image_size=224, projection=768),
    "small image, 257 tokens": ClipConfig(width=64, layers=2, heads=2, mlp=128, patch=4, image_size=64, projection=768),
    "deep": ClipConfig(width=64, layers=12, heads=4, mlp=256, patch=56, image_size=224, projection=768),
}


@pytest.fixture(scope="module")
def reference_embeddings():
    """A function: (weights, config, pixels) -> what transformers makes of them, eager, float32."""

    def embed(weights, config, pixels):
        tower = reference_tower(weights, config)
        mean, std = np.array(OPENAI_CLIP_MEAN, np.float32), np.array(OPENAI_CLIP_STD, np.float32)
        values = torch.from_numpy(((pixels.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2).copy())
        with torch.inference_mode():
            embeddings = torch.cat([tower(pixel_values=part).image_embeds for part in values.split(4)])
        return torch.nn.functional.normalize(embeddings, dim=-1).numpy()

    return embed


def reference_tower(weights, config):
    vision = transformers.CLIPVisionConfig(
        hidden_size=config.width,
        intermediate_size=config.mlp,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        image_size=config.image_size,
        patch_size=config.patch,
        projection_dim=config.projection,
        attn_implementation="eager",
    )
    with torch.device("meta"):
        tower = transformers.CLIPVisionModelWithProjection(vision)
    tensors = {n: torch.from_numpy(t) for n, t in load_file(weights).items() if not n.startswith("text_model.")}
    position_ids = torch.arange(config.tokens)[None]
    missing, unexpected = tower.load_state_dict(tensors, assign=True, strict=False)
    assert not unexpected
    assert not [name for name in missing if not name.endswith("position_ids")]
    tower.vision_model.embeddings.position_ids = position_ids
    return tower.eval()


def photograph_inputs(photographs, size=224):
    """uint8 (12, size, size, 3): photographs, and each mirrored."""
    inputs = np.stack([preprocess(decode_image(data).pixels, size=size) for data in photographs.values()])
    return np.concatenate([inputs, inputs[:, :, ::-1]])


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_f32_is_what_transformers_computes(tmp_path, full_photographs, reference_embeddings, config, backend):
    weights = tmp_path / "model.safetensors"
    save_file(random_clip(config, np.random.default_rng(7)), weights)
    (tmp_path / "config.json").write_text(json.dumps({"vision_config": {"num_attention_heads": config.heads}}))
    pixels = photograph_inputs(full_photographs, config.image_size)
    tower = OpenVinoClip(weights, "f32") if backend == "openvino" else TorchClip(weights, "cpu", "f32")
    assert np.abs(tower.embed(pixels) - reference_embeddings(weights, config, pixels)).max() <= TOLERANCE


def test_the_config_that_transformers_writes_is_understood(tmp_path):
    """The same heads and activation as in the file that `save_pretrained` leaves beside the weights."""
    vision = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128, "num_hidden_layers": 2}
    transformers.CLIPConfig(vision_config={**vision, "patch_size": 56}).save_pretrained(tmp_path)
    save_file(random_clip(TINY, np.random.default_rng(0)), tmp_path / "model.safetensors")
    assert OpenVinoClip(tmp_path / "model.safetensors", "f32").config.heads == 4


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
def test_f32_at_the_real_dimensions_is_what_transformers_computes(
    real_size, real_size_f32, full_photographs, reference_embeddings
):
    pixels = photograph_inputs(full_photographs)
    expected = reference_embeddings(real_size, VIT_L14, pixels)
    assert np.abs(real_size_f32 - expected).max() <= TOLERANCE
    assert np.abs(TorchClip(real_size, "cpu", "f32", batch_size=4).embed(pixels) - expected).max() <= TOLERANCE


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
