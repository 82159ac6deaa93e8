"""What a model is: one record that the reader, the towers, the rows, the pages and the command line read.

`tastemaker.models.published` has those that Tastemaker knows; docs/add-a-model.md shows how to add one. This module
imports no array library, so that the command line may read records at no cost.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from tastemaker.errors import ConfigurationError, ModelError
from tastemaker.imaging.model_input import Preprocess

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import tokenizers

    Predictor = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
    """Embeddings (n, d) of unit length in, scores (n,) out."""

TensorShapes = dict[str, tuple[int | str, ...]]
"""Tensor name to shape. A word stands for a size that the file chooses, the same wherever the word occurs."""

ACTIVATIONS = ("quick_gelu", "gelu", "gelu_tanh")


@dataclass(frozen=True, kw_only=True)
class WeightsRecord:
    """A published file of weights.

    Attributes:
        id: The model's repository, ``owner/name``: on the Hugging Face hub, unless there is a ``url``. The file lies in
            a folder of that name in the directory of models.
        description: What it is, for people.
        filename: Name of the file in the repository.
        revision: Commit that is downloaded, whole or shortened; None for the newest.
        sha256: Digest of that file at that revision; None where the hub's own word has to do.
        size_bytes: Size of that file, about.
        url: Where the file is, if it is not on the hub. A ``.zip`` has it among its members.
        licence: Of the file, by its SPDX name; empty where it is not known.
        path: Path or URL of the file, where it is one of the user's own. It is taken as it is, from there.
    """

    id: str
    description: str
    filename: str = "model.safetensors"
    revision: str | None = None
    sha256: str | None = None
    size_bytes: int | None = None
    url: str | None = None
    licence: str = ""
    path: str | None = None


@dataclass(frozen=True)
class LayerNames:
    """What a file calls the tensors of a transformer; the defaults are those of Hugging Face transformers.

    Attributes:
        layers: What stands before a layer's number and the seven names that follow here.
        positions: (tokens, width).
        last_norm: The norm after the last layer.
        projection: (dimension, width); None where the tokens' width is the embedding's.
        norm1: The norm before the attention.
        query, key, value, out: Linear layers of the attention.
        norm2: The norm before the MLP.
        fc1, fc2: Linear layers of the MLP.
    """

    layers: str
    positions: str
    last_norm: str
    projection: str | None
    norm1: str = "layer_norm1"
    query: str = "self_attn.q_proj"
    key: str = "self_attn.k_proj"
    value: str = "self_attn.v_proj"
    out: str = "self_attn.out_proj"
    norm2: str = "layer_norm2"
    fc1: str = "mlp.fc1"
    fc2: str = "mlp.fc2"

    def linears(self, layer: int) -> list[str]:
        """Return the names of a layer's matrices, without ``.weight`` and ``.bias``."""
        parts = (self.query, self.key, self.value, self.out, self.fc1, self.fc2)
        return [f"{self.layers}.{layer}.{part}" for part in parts]

    def count_layers(self, names: Collection[str]) -> int:
        """Return how many layers these tensors are of: one more than the last number."""
        start = f"{self.layers}."
        numbers = [name.removeprefix(start).partition(".")[0] for name in names if name.startswith(start)]
        return max((int(number) for number in numbers if number.isdecimal()), default=0) + 1

    def owns(self, name: str) -> bool:
        """Return whether a tensor is of this tower: files hold others beside it, such as a text half."""
        return name.partition(".")[0] in {
            part.partition(".")[0] for part in (self.layers, self.projection or self.layers)
        }

    def required_tensors(self, names: Collection[str], dimension: int) -> TensorShapes:
        """Return the tensors that a file with these names must have."""
        shapes = self._tensors_around_layers(dimension)
        for layer in range(self.count_layers(names)):
            *attention, fc1, fc2 = self.linears(layer)
            shapes |= _layer_norm(f"{self.layers}.{layer}.{self.norm1}")
            shapes |= _layer_norm(f"{self.layers}.{layer}.{self.norm2}")
            for name in attention:
                shapes |= _linear(name, "width", "width")
            shapes |= _linear(fc1, "mlp", "width") | _linear(fc2, "width", "mlp")
        return shapes

    def _tensors_around_layers(self, dimension: int) -> TensorShapes:
        return {
            self.positions: ("tokens", "width"),
            **({self.projection: (dimension, "width")} if self.projection else {}),
            **_layer_norm(self.last_norm),
        }


@dataclass(frozen=True)
class VitNames(LayerNames):
    """What a file calls the tensors of a vision transformer; the defaults are those of Hugging Face transformers.

    Attributes:
        class_token: (width,); its last state is the embedding, projected. None where ``pool`` makes the embedding.
        patches: (width, 3, patch, patch).
        patches_bias: (width,); None where there is none.
        first_norm: The norm before the first layer; None where there is none.
        pool: What stands before the tensors of an attention pooling: a learned token, the ``probe``, takes from all
            others, and an MLP follows. None where there is a class token.

    Raises:
        ConfigurationError: There are both a class token and a pooling, or neither; or a projection after a pooling.
    """

    layers: str = "vision_model.encoder.layers"
    positions: str = "vision_model.embeddings.position_embedding.weight"
    last_norm: str = "vision_model.post_layernorm"
    projection: str | None = "visual_projection.weight"
    class_token: str | None = "vision_model.embeddings.class_embedding"
    patches: str = "vision_model.embeddings.patch_embedding.weight"
    patches_bias: str | None = None
    first_norm: str | None = "vision_model.pre_layrnorm"
    pool: str | None = None

    def __post_init__(self) -> None:
        if bool(self.pool) == bool(self.class_token) or (self.pool and self.projection):
            raise ConfigurationError(
                f"class_token={self.class_token!r}, pool={self.pool!r}, projection={self.projection!r}: a tower has "
                "either a class token, or a pooling and no projection"
            )

    def required_tensors(self, names: Collection[str], dimension: int) -> TensorShapes:
        """Return the tensors that a file with these names must have."""
        shapes = super().required_tensors(names, dimension)
        if self.projection:
            return shapes
        known: dict[int | str, int] = {"width": dimension, "3 width": 3 * dimension}
        return {name: tuple(known.get(size, size) for size in shape) for name, shape in shapes.items()}

    def _tensors_around_layers(self, dimension: int) -> TensorShapes:
        return {
            **({self.class_token: ("width",)} if self.class_token else {}),
            self.patches: ("width", 3, "patch", "patch"),
            **({self.patches_bias: ("width",)} if self.patches_bias else {}),
            self.positions: ("tokens", "width"),
            **({self.projection: (dimension, "width")} if self.projection else {}),
            **(_layer_norm(self.first_norm) if self.first_norm else {}),
            **_layer_norm(self.last_norm),
            **(_pool_tensors(self.pool) if self.pool else {}),
        }


@dataclass(frozen=True)
class TextNames(LayerNames):
    """What a file calls the tensors of a text transformer; the defaults are those of Hugging Face transformers.

    Attributes:
        vocabulary: (words, width).
    """

    layers: str = "text_model.encoder.layers"
    positions: str = "text_model.embeddings.position_embedding.weight"
    last_norm: str = "text_model.final_layer_norm"
    projection: str = "text_projection.weight"
    vocabulary: str = "text_model.embeddings.token_embedding.weight"

    def _tensors_around_layers(self, dimension: int) -> TensorShapes:
        return {self.vocabulary: ("words", "width"), **super()._tensors_around_layers(dimension)}


@dataclass(frozen=True)
class TransformerConfig:
    """How a transformer computes. Its width, its layers and their number are read from the file.

    Attributes:
        names: Of its tensors.
        activation: Of the MLPs: ``quick_gelu`` (x * sigmoid(1.702 x), OpenAI's), ``gelu`` or ``gelu_tanh``.
        eps: Of every layer norm.
        head_width: Numbers of a token in one attention head.
    """

    names: LayerNames
    activation: str = "quick_gelu"
    eps: float = 1e-5
    head_width: int = 64

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ConfigurationError(f"activation={self.activation!r} is not one of {', '.join(ACTIVATIONS)}")


@dataclass(frozen=True)
class VitConfig(TransformerConfig):
    """How a vision transformer computes: pixels in, one vector out. ``names.pool`` says where that comes from."""

    names: VitNames = VitNames()


@dataclass(frozen=True, kw_only=True)
class Tokenizer(WeightsRecord):
    """Text to tokens: a file of the library ``tokenizers``."""

    filename: str = "tokenizer.json"

    def load(self, path: Path) -> tokenizers.Tokenizer:
        """Return the tokenizer in a file.

        Raises:
            ModelError: The file cannot be read, or holds something else.
        """
        import tokenizers

        try:
            return tokenizers.Tokenizer.from_str(path.read_text("utf-8"))
        except Exception as error:  # the library raises plain Exception
            raise ModelError(f"{path} cannot be read as a tokenizer: {error}") from error


@dataclass(frozen=True, kw_only=True)
class TextConfig(TransformerConfig):
    """How a text transformer computes: each token sees those before it, and the one that ends the text is taken.

    Attributes:
        tokenizer: What makes tokens of text.
    """

    names: TextNames = TextNames()
    tokenizer: Tokenizer


@dataclass(frozen=True, kw_only=True)
class Backbone(WeightsRecord):
    """Pixels, and for some models text too, to embeddings of unit length.

    Attributes:
        preprocess: What its input must be.
        dimension: Numbers in an embedding.
        vit: How it computes those of pixels.
        text: How it computes those of text, by tensors in the same file; None where it does not.
    """

    preprocess: Preprocess
    dimension: int
    vit: VitConfig = VitConfig()
    text: TextConfig | None = None

    def required_tensors(self, names: Collection[str]) -> TensorShapes:
        """Return the tensors that a file with these names must have; others, as of a text half, are not looked at."""
        return self.vit.names.required_tensors(names, self.dimension)

    def required_text_tensors(self, names: Collection[str]) -> TensorShapes:
        """Return the tensors of the text half that a file with these names must have."""
        return self.text.names.required_tensors(names, self.dimension) if self.text else {}


@dataclass(frozen=True, kw_only=True)
class Head(WeightsRecord):
    """Embeddings to scores.

    Attributes:
        dimension: Numbers in the embeddings that it takes.
        load: Takes the path of the file and returns a function from embeddings, float32 (n, d) of unit length, to
            scores, float32 (n,). It raises `ModelError` for a file that holds something else. A function of a module,
            so that workers in other processes find it.
    """

    dimension: int
    load: Callable[[Path], Predictor] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class TextHead(WeightsRecord):
    """Embeddings to scores by texts that the backbone's own text half embeds. Its file is the backbone's.

    Attributes:
        backbone: What embeds the images and the texts.
        prompts: A score is how much sooner the first describes the image than the others, 0 to 1. Empty where it is the
            likeness of an image to its own caption.
    """

    backbone: Backbone
    prompts: tuple[str, ...] = ()

    @classmethod
    def of(cls, backbone: Backbone, *prompts: str) -> TextHead:
        """Return the head that a backbone is itself."""
        same = {each.name: getattr(backbone, each.name) for each in fields(WeightsRecord)}
        return cls(**same, backbone=backbone, prompts=prompts)

    @property
    def dimension(self) -> int:
        """Numbers in the embeddings that it takes."""
        return self.backbone.dimension


Model = Backbone | Head | TextHead | Tokenizer


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A backbone and a head, and what their score means.

    Attributes:
        name: What ``--scorer`` takes, and what the rows say.
        column: Of the rows that it fills: small letters, digits and underscores. No other scorer has it.
        backbone: Pixels to embeddings.
        head: Embeddings to scores, some with the captions of the images.
        score_range: Where scores lie, roughly.
        customary_cutoffs: Scores at which others have cut; pages mark them.

    Raises:
        ConfigurationError: The head takes other embeddings than the backbone gives, or the column is no such name.
    """

    name: str
    column: str
    backbone: Backbone
    head: Head | TextHead
    score_range: tuple[float, float]
    customary_cutoffs: tuple[float, ...] = ()

    @property
    def files(self) -> tuple[Model, ...]:
        """All files that it can make use of: the backbone's, its tokenizer where it reads text, and the head's."""
        text = self.backbone.text
        own = [] if isinstance(self.head, TextHead) else [self.head]
        return (self.backbone, *([text.tokenizer] if text else []), *own)

    @property
    def reads_captions(self) -> bool:
        """Whether a score takes an image's caption beside its embedding; images without one then have no score."""
        return isinstance(self.head, TextHead) and not self.head.prompts

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z_][a-z0-9_]*", self.column):
            raise ConfigurationError(
                f"scorer {self.name}: column={self.column!r} is no name of small letters, digits and underscores"
            )
        if self.head.dimension != self.backbone.dimension:
            raise ConfigurationError(
                f"scorer {self.name}: {self.backbone.id} gives {self.backbone.dimension} numbers, and {self.head.id} "
                f"takes {self.head.dimension}"
            )


def _pool_tensors(pool: str) -> TensorShapes:
    return {
        f"{pool}.probe": (1, 1, "width"),
        f"{pool}.attention.in_proj_weight": ("3 width", "width"),
        f"{pool}.attention.in_proj_bias": ("3 width",),
        **_linear(f"{pool}.attention.out_proj", "width", "width"),
        **_layer_norm(f"{pool}.layernorm"),
        **_linear(f"{pool}.mlp.fc1", "mlp", "width"),
        **_linear(f"{pool}.mlp.fc2", "width", "mlp"),
    }


def _linear(name: str, outputs: str, inputs: str) -> TensorShapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _layer_norm(name: str) -> TensorShapes:
    return {f"{name}.weight": ("width",), f"{name}.bias": ("width",)}
