"""Checkpoints of the real file format with random weights, for tests and benchmarks. Their scores mean nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tastemaker.errors import ConfigurationError
from tastemaker.models.hub import weights_path
from tastemaker.models.layers import LAYER_NUMBERS, RELU_NUMBERS, SCORING_NUMBERS
from tastemaker.models.published import DEFAULT_SCORER, Scorers, find_scorers
from tastemaker.models.published.laion_nsfw import NSFW_DETECTOR
from tastemaker.models.published.laion_v2 import LAION_V2_AVA_RELU
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
from tastemaker.models.published.siglip import AESTHETIC_PREDICTOR_V2_5
from tastemaker.models.records import Backbone, Head, LayerNames, TensorShapes, TextHead
from tastemaker.models.vit import VitDimensions

Tensors = dict[str, npt.NDArray[np.float32]]

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


def _write_tensors(tensors: Tensors, path: Path) -> None:
    from safetensors.numpy import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        import torch

        torch.save({name: torch.from_numpy(tensor) for name, tensor in tensors.items()}, path)


def _random_head(head: Head, rng: np.random.Generator) -> Tensors:
    """Return the tensors of a published head."""
    if head == NSFW_DETECTOR:
        return random_detector(head.dimension, rng)
    if head == LAION_V2_AVA_RELU.head:
        return random_predictor(head.dimension, rng, RELU_NUMBERS)
    if head == AESTHETIC_PREDICTOR_V2_5:
        return random_predictor(head.dimension, rng, SCORING_NUMBERS, "scoring_head")
    if head.filename.endswith(".safetensors"):
        return random_predictor(head.dimension, rng)
    return {"weight": _normal(rng, 1, head.dimension, std=1.0), "bias": np.full(1, 5.0, np.float32)}


def random_tower(dimensions: VitDimensions, rng: np.random.Generator, backbone: Backbone = CLIP_VIT_L14) -> Tensors:
    """Return the tensors of a vision tower.

    Args:
        dimensions: Of the tower.
        rng: Where the numbers come from.
        backbone: What it is to pass for.
    """
    names = backbone.vit.names
    shapes = names.required_tensors([f"{names.layers}.{dimensions.layers - 1}."], dimensions.dimension)
    sizes = {"width": dimensions.width, "3 width": 3 * dimensions.width, "tokens": dimensions.tokens}
    sizes |= {"patch": dimensions.patch, "mlp": dimensions.mlp}
    return _draw(shapes, sizes, names, rng, {f"{names.pool}.probe": 1.0})


def random_text_tower(
    rng: np.random.Generator,
    backbone: Backbone = CLIP_VIT_L14,
    *,
    width: int = 128,
    layers: int = 2,
    mlp: int = 128,
    words: int = 520,
) -> Tensors:
    """Return the tensors of a text tower that takes 77 tokens (of ViT-L/14: 768, 12, 3072, 49408).

    Raises:
        ConfigurationError: The backbone has none.
    """
    if backbone.text is None:
        raise ConfigurationError(f"{backbone.id} embeds images only, not text")
    names = backbone.text.names
    shapes = names.required_tensors([f"{names.layers}.{layers - 1}."], backbone.dimension)
    sizes = {"width": width, "tokens": 77, "mlp": mlp, "words": words}
    return _draw(shapes, sizes, names, rng, {names.vocabulary: 0.3})


def _draw(
    shapes: TensorShapes,
    sizes: Mapping[str, int],
    names: LayerNames,
    rng: np.random.Generator,
    spreads: Mapping[str, float],
) -> Tensors:
    """Return tensors of these shapes: norms near 1, matrices that keep the size of what they multiply, small others."""
    spreads = {names.positions: 0.03, names.projection or "": 0.03, **spreads}
    tensors: Tensors = {}
    for name, words in shapes.items():
        shape = [sizes[word] if isinstance(word, str) else word for word in words]
        spread = spreads.get(name, shape[-1] ** -0.5 if len(shape) == 2 else 0.03)
        tensors[name] = _normal(rng, *shape, std=spread)
        if len(shape) == 1 and name.endswith(".weight"):
            tensors[name] += 1
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
) -> Tensors:
    """Return the tensors of an aesthetic predictor whose scores spread around 5, with these numbers of its layers."""
    tensors: Tensors = {}
    for number, (inputs, outputs) in zip(numbers, pairwise((embedding_size, 1024, 128, 64, 16, 1)), strict=True):
        tensors[f"{prefix}.{number}.weight"] = _normal(rng, outputs, inputs, std=2.2 * inputs**-0.5)
        tensors[f"{prefix}.{number}.bias"] = np.full(outputs, 5.0 if outputs == 1 else 0.0, np.float32)
    return tensors


def random_detector(embedding_size: int, rng: np.random.Generator) -> Tensors:
    """Return the tensors of a detector like LAION's for what is not safe for work."""
    tensors = {
        "norm.mean": _normal(rng, embedding_size),
        "norm.variance": (0.0005 + 0.002 * rng.random(embedding_size)).astype(np.float32),
    }
    for number, (inputs, outputs) in enumerate(pairwise((embedding_size, 64, 512, 256, 1)), 1):
        tensors[f"linear_{number}.weight"] = _normal(rng, outputs, inputs, std=inputs**-0.5)
        tensors[f"linear_{number}.bias"] = _normal(rng, outputs)
    return tensors


def _normal(rng: np.random.Generator, *shape: int, std: float = 0.03) -> npt.NDArray[np.float32]:
    return rng.standard_normal(shape, np.float32) * np.float32(std)
