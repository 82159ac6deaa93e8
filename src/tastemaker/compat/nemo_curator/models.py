"""NeMo Curator's models, which scripts use without a pipeline: images to embeddings, embeddings to scores.

They return torch tensors where torch is installed, because scripts call ``.cpu().numpy()``, and arrays where it is not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from tastemaker.errors import ModelError
from tastemaker.imaging.preprocess import preprocess
from tastemaker.models.clip import load_clip
from tastemaker.models.device import choose_device
from tastemaker.models.hub import ensure_weights, weights_path
from tastemaker.models.published.laion_v2 import AESTHETIC_PREDICTOR
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
from tastemaker.models.records import Head, Model
from tastemaker.models.text import TextTower
from tastemaker.models.vit import VisionTower

if TYPE_CHECKING:
    from tastemaker.models.records import Predictor

PRECISION = "f32"
"""What NeMo Curator computes in, on processors and GPUs alike. Reduced precision moves a score by up to 0.05."""

Pixels = npt.NDArray[np.uint8]


class ModelInterface(ABC):
    """The base class of models of your own."""

    @property
    @abstractmethod
    def model_id_names(self) -> list[str]:
        """The model's names on the Hugging Face hub."""

    @abstractmethod
    def setup(self) -> None:
        """Load it."""


class PublishedModel(ModelInterface):
    """A model whose weights lie below ``model_dir``. It is loaded when it is first called.

    Args:
        model_dir: Directory of models; None for ``$TASTEMAKER_MODEL_DIR`` or the user's cache directory.
    """

    weights: ClassVar[Model]
    device = "cpu"

    def __init__(self, model_dir: str | None = None) -> None:
        self.model_dir = model_dir
        self._loaded: Any = None

    @property
    def model_id_names(self) -> list[str]:
        """The model's name on the Hugging Face hub."""
        return [self.weights.id]

    @classmethod
    def download_weights_on_node(cls, model_dir: str | None = None) -> None:
        """Download the weights, if they are not there.

        Raises:
            WeightsNotFoundError: They cannot be downloaded.
        """
        ensure_weights(cls.weights, model_dir)

    def setup(self) -> None:
        """Load the model."""
        self._loaded = self.load(ensure_weights(self.weights, self.model_dir))

    @abstractmethod
    def load(self, path: Path) -> Any:  # noqa: ANN401 - each its own
        """Return what is in a file of weights."""

    @property
    def loaded(self) -> Any:  # noqa: ANN401
        """What `load` returned."""
        if self._loaded is None:
            self.setup()
        return self._loaded


class CLIPImageEmbeddings(PublishedModel):
    """Images to CLIP embeddings of unit length. See `PublishedModel` for the argument."""

    weights = CLIP_VIT_L14

    def __init__(self, model_dir: str | None = None) -> None:
        super().__init__(model_dir)
        self.device = choose_device("auto")

    def load(self, path: Path) -> VisionTower:
        """Return the vision tower."""
        return load_clip(path, "auto", PRECISION)

    def __call__(self, images: Any) -> Any:  # noqa: ANN401 - torch may not be there to name its type
        """Return the embedding of each image.

        The centre crop is NeMo Curator's in each case: that of torchvision (as OpenAI's) for one array of images of
        the same size, that of transformers for a list.

        Args:
            images: uint8 (n, H, W, 3), a list of uint8 (H, W, 3), or a tensor, uint8 (n, 3, H, W).

        Returns:
            float32 (n, d), each row of unit length, in main memory.

        Raises:
            ModelError: Something else.
        """
        how = CLIP_VIT_L14.preprocess.with_rounding("openai" if isinstance(images, np.ndarray) else "transformers")
        inputs = [preprocess(_check_image(image, row), how) for row, image in enumerate(_split(images))]
        empty = np.empty((0, how.size, how.size, 3), np.uint8)
        return to_tensor(self.loaded.embed(np.stack(inputs) if inputs else empty))

    def encode_text(self, texts: Sequence[str]) -> Any:  # noqa: ANN401
        """Return the embedding of each text, float32 (n, d), each row of unit length, in main memory.

        Args:
            texts: n texts; what is beyond 77 tokens of one is not read.
        """
        return to_tensor(self._words.embed(list(texts)))

    @cached_property
    def _words(self) -> TextTower:
        assert CLIP_VIT_L14.text is not None
        tokenizer = ensure_weights(CLIP_VIT_L14.text.tokenizer, self.model_dir)
        return TextTower(ensure_weights(CLIP_VIT_L14, self.model_dir), tokenizer)


class HeadModel(PublishedModel):
    """Embeddings to scores. See `PublishedModel` for the argument."""

    weights: ClassVar[Head]

    def load(self, path: Path) -> Predictor:
        """Return the head."""
        return self.weights.load(path)

    def __call__(self, embeddings: Any) -> Any:  # noqa: ANN401 - torch may not be there to name its type
        """Return the score of each embedding, float32 (n,).

        Args:
            embeddings: float (n, d), each row of unit length: an array or a tensor.

        Raises:
            ModelError: Another dimension, a NaN, or a length far from 1.
        """
        return to_tensor(self.loaded(to_array(embeddings)))


class AestheticScorer(HeadModel):
    """Embeddings to aesthetic scores, roughly 1 to 10, by the LAION predictor."""

    weights = AESTHETIC_PREDICTOR

    def get_weights_path(self) -> str:
        """Return where the weights lie, whether they are there or not."""
        return str(weights_path(AESTHETIC_PREDICTOR, self.model_dir))


class CLIPAestheticScorer(CLIPImageEmbeddings):
    """Images to aesthetic scores: the two models above, one after the other. See `PublishedModel` for the argument."""

    def __init__(self, model_dir: str | None = None) -> None:
        super().__init__(model_dir)
        self._scorer = AestheticScorer(model_dir)

    @classmethod
    def download_weights_on_node(cls, model_dir: str | None = None) -> None:
        """Download the weights of both, if they are not there."""
        super().download_weights_on_node(model_dir)
        AestheticScorer.download_weights_on_node(model_dir)

    def setup(self) -> None:
        """Load both models."""
        super().setup()
        self._scorer.setup()

    def __call__(self, images: Any) -> Any:  # noqa: ANN401 - torch may not be there to name its type
        """Return the score of each image, float32 (n,); takes what `CLIPImageEmbeddings` takes."""
        return self._scorer(super().__call__(images))


def _split(images: Any) -> Iterable[Any]:  # noqa: ANN401
    """Return the images one by one, each (H, W, C)."""
    if not hasattr(images, "detach"):
        return list(images)
    stack = to_array(images)  # (n, 3, H, W), as models take tensors
    return list(np.moveaxis(stack, 1, -1) if stack.ndim == 4 and stack.shape[1] == 3 else stack)


def _check_image(image: Any, row: int) -> Pixels:  # noqa: ANN401
    pixels = np.asarray(image.convert("RGB")) if hasattr(image, "convert") else to_array(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ModelError(f"image {row} must be uint8 of shape (H, W, 3), RGB, not {pixels.dtype} {pixels.shape}")
    return pixels


def to_array(values: Any) -> npt.NDArray[Any]:  # noqa: ANN401
    """Return a tensor, or whatever NumPy takes, as an array in main memory."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def to_tensor(values: npt.NDArray[np.float32]) -> Any:  # noqa: ANN401
    """Return an array as a tensor, or as it is where there is no torch."""
    try:
        import torch
    except ImportError:
        return values
    return torch.from_numpy(np.ascontiguousarray(values))
