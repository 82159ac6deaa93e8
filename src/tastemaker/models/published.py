"""The published models that Tastemaker uses: where they come from, and the tensors that they must have."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import pairwise

TensorShapes = dict[str, tuple[int | str, ...]]
"""Tensor name to shape. A word stands for a size that the file chooses, the same wherever the word occurs."""

EMBEDDING_SIZE = 768
"""Length of a CLIP ViT-L/14 embedding: what the tower gives and the predictor takes."""

_LAYER = re.compile(r"vision_model\.encoder\.layers\.(\d+)\.")


@dataclass(frozen=True)
class ModelFile:
    """One weights file on the Hugging Face hub.

    Attributes:
        repo_id: Repository, ``owner/name``.
        revision: Commit that is downloaded, whole or shortened.
        filename: Name of the file in the repository.
        description: What it is, for people.
        sha256: Digest of that file at that revision; None where the hub's own word has to do.
        size_bytes: Size of that file, about.
        required_tensors: Names and shapes of the tensors that must be in a file which has these tensor names.
        has_config: Whether the repository's ``config.json`` is wanted beside the weights.
    """

    repo_id: str
    revision: str
    filename: str
    description: str
    sha256: str | None
    size_bytes: int | None
    required_tensors: Callable[[Collection[str]], TensorShapes] = field(repr=False)
    has_config: bool = False


def _linear(name: str, outputs: int | str, inputs: int | str) -> TensorShapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _layer_norm(name: str) -> TensorShapes:
    return {f"{name}.weight": ("width",), f"{name}.bias": ("width",)}


def _clip_tensors(names: Collection[str]) -> TensorShapes:
    """Return what a CLIP vision tower needs, with as many layers as the names show (text tensors are not looked at)."""
    shapes: TensorShapes = {
        "vision_model.embeddings.class_embedding": ("width",),
        "vision_model.embeddings.patch_embedding.weight": ("width", 3, "patch", "patch"),
        "vision_model.embeddings.position_embedding.weight": ("tokens", "width"),
        "visual_projection.weight": (EMBEDDING_SIZE, "width"),
    }
    shapes |= _layer_norm("vision_model.pre_layrnorm") | _layer_norm("vision_model.post_layernorm")
    last = max((int(match[1]) for name in names if (match := _LAYER.match(name))), default=0)
    for layer in (f"vision_model.encoder.layers.{i}" for i in range(last + 1)):
        shapes |= _layer_norm(f"{layer}.layer_norm1") | _layer_norm(f"{layer}.layer_norm2")
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _linear(f"{layer}.self_attn.{projection}", "width", "width")
        shapes |= _linear(f"{layer}.mlp.fc1", "mlp", "width") | _linear(f"{layer}.mlp.fc2", "width", "mlp")
    return shapes


def _predictor_tensors(names: Collection[str]) -> TensorShapes:
    """Return what an aesthetic predictor needs: LAION's v1 is one linear layer, v2 a chain of five."""
    if len(names) == 2:
        prefix = min(names).removesuffix("bias")  # "" or "linear."
        return {f"{prefix}weight": (1, EMBEDDING_SIZE), f"{prefix}bias": (1,)}
    shapes: TensorShapes = {}
    sizes: tuple[int | str, ...] = (EMBEDDING_SIZE, "hidden1", "hidden2", "hidden3", "hidden4", 1)
    for index, (inputs, outputs) in zip((0, 2, 4, 6, 7), pairwise(sizes), strict=True):  # dropout has the others
        shapes |= _linear(f"layers.{index}", outputs, inputs)
    return shapes


CLIP_VIT_L14 = ModelFile(
    repo_id="openai/clip-vit-large-patch14",
    revision="32bd642",
    filename="model.safetensors",
    description="CLIP ViT-L/14, images to embeddings",
    sha256="a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
    size_bytes=1_710_540_580,
    required_tensors=_clip_tensors,
    has_config=True,
)
AESTHETIC_PREDICTOR = ModelFile(
    repo_id="ttj/sac-logos-ava1-l14-linearMSE",
    revision="1e77fa0",
    filename="model.safetensors",
    description="LAION aesthetic predictor v2, embeddings to scores",
    sha256="83dabcfc852cf0d6919c398d4f9891ec8be231e29f41d300f820ab21b5e40027",
    size_bytes=3_700_000,
    required_tensors=_predictor_tensors,
)
MODELS = (CLIP_VIT_L14, AESTHETIC_PREDICTOR)
