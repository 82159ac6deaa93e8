"""Checkpoints of the real file format with random weights, for tests and benchmarks. Their scores mean nothing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tastemaker.errors import ConfigurationError
from tastemaker.models.aesthetic import LAYER_NUMBERS, SCORING_HEAD, SCORING_NUMBERS
from tastemaker.models.heads import RELU_NUMBERS
from tastemaker.models.hub import weights_path
from tastemaker.models.published import DEFAULT_SCORER, Scorers, find_scorers
from tastemaker.models.published.layers import load_detector, load_relu
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
from tastemaker.models.published.siglip import AESTHETIC_PREDICTOR_V2_5
from tastemaker.models.records import Backbone, Head, LayerNames, TextHead
from tastemaker.models.vit import VitDimensions

VIT_L14 = VitDimensions(
    width=1024,
    layers=24,
    heads=16,
    mlp=4096,
    patch=14,
    image_size=CLIP_VIT_L14.preprocess.size,
    dimension=CLIP_VIT_L14.dimension,
)
"""The real dimensions of CLIP ViT-L/14 (304 million weights, 1.2 GB)."""


def tiny_dimensions(backbone: Backbone) -> VitDimensions:
    """Return the smallest tower that still has every part: about 17 tokens, 2 layers, 1 ms an image.

    One without a projection is as wide as its embeddings, and has smaller patches instead: 64 tokens.
    """
    size, names = backbone.preprocess.size, backbone.vit.names
    heads = 2 if names.projection else backbone.dimension // backbone.vit.head_width
    return VitDimensions(
        width=heads * backbone.vit.head_width,
        layers=2,
        heads=heads,
        mlp=128,
        patch=size // (4 if names.projection else 8),
        image_size=size,
        dimension=backbone.dimension,
        class_tokens=1 if names.class_token else 0,
    )


TINY = tiny_dimensions(CLIP_VIT_L14)


def write_random_models(
    model_dir: Path,
    dimensions: VitDimensions | None = None,
    seed: int = 0,
    scorer: Scorers = DEFAULT_SCORER,
) -> Path:
    """Write random weights of a scorer's models where the program looks for them, and return ``model_dir``.

    A head that is published as a ``.pth`` is written with torch.

    Args:
        model_dir: As the stages take it.
        dimensions: Of the vision tower; None for `tiny_dimensions`.
        seed: The same seed gives the same bytes.
        scorer: Whose models: one scorer, or several with one backbone.
    """
    scorers, rng = find_scorers(scorer), np.random.default_rng(seed)
    backbone = scorers[0].backbone
    tensors = random_tower(dimensions or tiny_dimensions(backbone), rng, backbone)
    if backbone.text is not None:
        tensors |= random_text_tower(np.random.default_rng(seed), backbone)
        write_tokenizer(weights_path(backbone.text.tokenizer, model_dir))
    _write_tensors(tensors, weights_path(backbone, model_dir))
    for each in scorers:
        if isinstance(each.head, TextHead):  # it is the text half of the backbone, which is there
            continue
        _write_tensors(_random_head(each.head, rng), weights_path(each.head, model_dir))
    return Path(model_dir)


def _write_tensors(tensors: dict[str, npt.NDArray[np.float32]], path: Path) -> None:
    from safetensors.numpy import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        import torch

        torch.save({name: torch.from_numpy(tensor) for name, tensor in tensors.items()}, path)


def _random_head(head: Head, rng: np.random.Generator) -> dict[str, npt.NDArray[np.float32]]:
    """Return the tensors of a head whose layout its loader tells."""
    if head.load is load_detector:
        return random_detector(head.dimension, rng)
    if head.load is load_relu:
        return random_predictor(head.dimension, rng, RELU_NUMBERS)
    if head == AESTHETIC_PREDICTOR_V2_5:
        return random_predictor(head.dimension, rng, SCORING_NUMBERS, SCORING_HEAD)
    if head.filename.endswith(".safetensors"):
        return random_predictor(head.dimension, rng)
    return {"weight": _normal(rng, 1, head.dimension, std=1.0), "bias": np.full(1, 5.0, np.float32)}


def random_tower(
    dimensions: VitDimensions, rng: np.random.Generator, backbone: Backbone = CLIP_VIT_L14
) -> dict[str, npt.NDArray[np.float32]]:
    """Return the tensors of a vision tower.

    Args:
        dimensions: Of the tower.
        rng: Where the numbers come from.
        backbone: What it is to pass for.
    """
    config, names = dimensions, backbone.vit.names
    width = config.width
    tensors = {
        **({names.class_token: _normal(rng, width)} if names.class_token else {}),
        names.patches: _normal(rng, width, 3, config.patch, config.patch),
        **({names.patches_bias: _normal(rng, width)} if names.patches_bias else {}),
        names.positions: _normal(rng, config.tokens, width),
        **({names.projection: _normal(rng, config.dimension, width)} if names.projection else {}),
        **(_layer_norm(rng, names.first_norm, width) if names.first_norm else {}),
        **_layer_norm(rng, names.last_norm, width),
        **(_pool(rng, names.pool, width, config.mlp) if names.pool else {}),
    }
    return tensors | _layers(rng, names, config.layers, width, config.mlp)


def _pool(rng: np.random.Generator, pool: str, width: int, mlp: int) -> dict[str, npt.NDArray[np.float32]]:
    return {
        f"{pool}.probe": _normal(rng, 1, 1, width, std=1.0),
        f"{pool}.attention.in_proj_weight": _normal(rng, 3 * width, width, std=width**-0.5),
        f"{pool}.attention.in_proj_bias": _normal(rng, 3 * width),
        **_linear(rng, f"{pool}.attention.out_proj", width, width),
        **_layer_norm(rng, f"{pool}.layernorm", width),
        **_linear(rng, f"{pool}.mlp.fc1", mlp, width),
        **_linear(rng, f"{pool}.mlp.fc2", width, mlp),
    }


def random_text_tower(
    rng: np.random.Generator,
    backbone: Backbone = CLIP_VIT_L14,
    *,
    width: int = 128,
    layers: int = 2,
    mlp: int = 128,
    words: int = 520,
) -> dict[str, npt.NDArray[np.float32]]:
    """Return the tensors of a text tower that takes 77 tokens (of ViT-L/14: 768, 12, 3072, 49408).

    Raises:
        ConfigurationError: The backbone has none.
    """
    if backbone.text is None:
        raise ConfigurationError(f"{backbone.id} embeds images only, not text")
    names = backbone.text.names
    return {
        names.vocabulary: _normal(rng, words, width, std=0.3),
        names.positions: _normal(rng, 77, width),
        names.projection: _normal(rng, backbone.dimension, width),
        **_layer_norm(rng, names.last_norm, width),
        **_layers(rng, names, layers, width, mlp),
    }


def _layers(
    rng: np.random.Generator, names: LayerNames, count: int, width: int, mlp: int
) -> dict[str, npt.NDArray[np.float32]]:
    tensors: dict[str, npt.NDArray[np.float32]] = {}
    for number in range(count):
        layer = f"{names.layers}.{number}"
        tensors |= _layer_norm(rng, f"{layer}.{names.norm1}", width) | _layer_norm(rng, f"{layer}.{names.norm2}", width)
        *attention, fc1, fc2 = names.linears(number)
        for part in attention:
            tensors |= _linear(rng, part, width, width)
        tensors |= _linear(rng, fc1, mlp, width) | _linear(rng, fc2, width, mlp)
    return tensors


def write_tokenizer(path: Path, merges: Sequence[tuple[str, str]] = ()) -> None:
    """Write a tokenizer of CLIP's kind that knows single bytes, and the pairs in ``merges``.

    Source: `simple_tokenizer.py` in openai/CLIP: lower case, single spaces, words split, bytes merged in pairs.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    start, end = "<|startoftext|>", "<|endoftext|>"
    vocabulary = {piece: number for number, piece in enumerate([*pieces, start, end])}
    bpe = models.BPE(vocabulary, list(merges), end_of_word_suffix="</w>", unk_token=end)
    tokenizer = Tokenizer(bpe)
    tokenizer.add_special_tokens([start, end])
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = Regex(r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+""")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.post_processor = processors.RobertaProcessing(
        (end, vocabulary[end]), (start, vocabulary[start]), trim_offsets=False, add_prefix_space=False
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))


def random_predictor(
    embedding_size: int, rng: np.random.Generator, numbers: Sequence[int] = LAYER_NUMBERS, prefix: str = "layers"
) -> dict[str, npt.NDArray[np.float32]]:
    """Return the tensors of an aesthetic predictor whose scores spread around 5, with these numbers of its layers."""
    sizes = [embedding_size, 1024, 128, 64, 16, 1]
    tensors: dict[str, npt.NDArray[np.float32]] = {}
    for number, (inputs, outputs) in zip(numbers, pairwise(sizes), strict=True):
        tensors[f"{prefix}.{number}.weight"] = _normal(rng, outputs, inputs, std=2.2 * inputs**-0.5)
        tensors[f"{prefix}.{number}.bias"] = np.full(outputs, 5.0 if outputs == 1 else 0.0, np.float32)
    return tensors


def random_detector(embedding_size: int, rng: np.random.Generator) -> dict[str, npt.NDArray[np.float32]]:
    """Return the tensors of a detector like LAION's for what is not safe for work."""
    tensors = {
        "norm.mean": _normal(rng, embedding_size),
        "norm.variance": (0.0005 + 0.002 * rng.random(embedding_size)).astype(np.float32),
    }
    for number, (inputs, outputs) in enumerate(pairwise((embedding_size, 64, 512, 256, 1)), 1):
        tensors |= _linear(rng, f"linear_{number}", outputs, inputs)
    return tensors


def _normal(rng: np.random.Generator, *shape: int, std: float = 0.03) -> npt.NDArray[np.float32]:
    return rng.standard_normal(shape, np.float32) * np.float32(std)


def _layer_norm(rng: np.random.Generator, name: str, width: int) -> dict[str, npt.NDArray[np.float32]]:
    return {f"{name}.weight": 1 + _normal(rng, width), f"{name}.bias": _normal(rng, width)}


def _linear(rng: np.random.Generator, name: str, outputs: int, inputs: int) -> dict[str, npt.NDArray[np.float32]]:
    return {f"{name}.weight": _normal(rng, outputs, inputs, std=inputs**-0.5), f"{name}.bias": _normal(rng, outputs)}
