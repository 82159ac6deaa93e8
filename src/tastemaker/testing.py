"""Checkpoints of the real file format with random weights, for tests and benchmarks. Their scores mean nothing."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tastemaker.models.aesthetic import LAYER_NUMBERS
from tastemaker.models.clip import ClipConfig
from tastemaker.models.hub import AESTHETIC_PREDICTOR, CLIP_VIT_L14, weights_path

VIT_L14 = ClipConfig(width=1024, layers=24, heads=16, mlp=4096, patch=14, image_size=224, projection=768)
"""The real dimensions of CLIP ViT-L/14 (304 million weights, 1.2 GB)."""

TINY = ClipConfig(width=64, layers=2, heads=2, mlp=128, patch=56, image_size=224, projection=768)
"""The smallest tower that still has every part: 17 tokens, 2 layers, 1 ms an image."""


def write_random_models(model_dir: Path, config: ClipConfig = TINY, seed: int = 0) -> Path:
    """Write random weights of both models where the program looks for them, and return ``model_dir``.

    Args:
        model_dir: As the stages take it.
        config: Dimensions of the vision tower.
        seed: The same seed gives the same bytes.
    """
    from safetensors.numpy import save_file

    rng = np.random.default_rng(seed)
    clip = weights_path(CLIP_VIT_L14, model_dir)
    clip.parent.mkdir(parents=True, exist_ok=True)
    save_file(random_clip(config, rng), clip)
    vision = {"num_attention_heads": config.heads, "hidden_act": "quick_gelu"}
    clip.with_name("config.json").write_text(json.dumps({"vision_config": vision}))
    predictor = weights_path(AESTHETIC_PREDICTOR, model_dir)
    predictor.parent.mkdir(parents=True, exist_ok=True)
    save_file(random_predictor(config.projection, rng), predictor)
    return Path(model_dir)


def random_clip(config: ClipConfig, rng: np.random.Generator) -> dict[str, npt.NDArray[np.float32]]:
    """Return the tensors of a CLIP checkpoint: a whole vision half, and one tensor of a text half to be left alone."""
    width = config.width
    tensors = {
        "text_model.embeddings.token_embedding.weight": _normal(rng, 10, 8),
        "vision_model.embeddings.class_embedding": _normal(rng, width),
        "vision_model.embeddings.patch_embedding.weight": _normal(rng, width, 3, config.patch, config.patch),
        "vision_model.embeddings.position_embedding.weight": _normal(rng, config.tokens, width),
        "visual_projection.weight": _normal(rng, config.projection, width),
        **_layer_norm(rng, "vision_model.pre_layrnorm", width),
        **_layer_norm(rng, "vision_model.post_layernorm", width),
    }
    for number in range(config.layers):
        layer = f"vision_model.encoder.layers.{number}"
        tensors |= _layer_norm(rng, f"{layer}.layer_norm1", width) | _layer_norm(rng, f"{layer}.layer_norm2", width)
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            tensors |= _linear(rng, f"{layer}.self_attn.{part}", width, width)
        tensors |= _linear(rng, f"{layer}.mlp.fc1", config.mlp, width) | _linear(
            rng, f"{layer}.mlp.fc2", width, config.mlp
        )
    return tensors


def random_predictor(embedding_size: int, rng: np.random.Generator) -> dict[str, npt.NDArray[np.float32]]:
    """Return the tensors of an aesthetic predictor whose scores spread around 5."""
    sizes = [embedding_size, 1024, 128, 64, 16, 1]
    tensors: dict[str, npt.NDArray[np.float32]] = {}
    for number, (inputs, outputs) in zip(LAYER_NUMBERS, pairwise(sizes), strict=True):
        tensors[f"layers.{number}.weight"] = _normal(rng, outputs, inputs, std=2.2 * inputs**-0.5)
        tensors[f"layers.{number}.bias"] = np.full(outputs, 5.0 if outputs == 1 else 0.0, np.float32)
    return tensors


def _normal(rng: np.random.Generator, *shape: int, std: float = 0.03) -> npt.NDArray[np.float32]:
    return rng.standard_normal(shape, np.float32) * np.float32(std)


def _layer_norm(rng: np.random.Generator, name: str, width: int) -> dict[str, npt.NDArray[np.float32]]:
    return {f"{name}.weight": 1 + _normal(rng, width), f"{name}.bias": _normal(rng, width)}


def _linear(rng: np.random.Generator, name: str, outputs: int, inputs: int) -> dict[str, npt.NDArray[np.float32]]:
    return {f"{name}.weight": _normal(rng, outputs, inputs, std=inputs**-0.5), f"{name}.bias": _normal(rng, outputs)}
