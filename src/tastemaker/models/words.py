"""Scores by text: how well a caption fits its image, and which of several prompts describes it.

Source of the first, which is called CLIP score: J. Hessel et al., "CLIPScore: A Reference-free Evaluation Metric for
Image Captioning", 2021, without the factor of 2.5 that the paper puts before the cosine, as LAION and DataComp use it.
Of the second, zero-shot classification: A. Radford et al., "Learning Transferable Visual Models From Natural Language
Supervision", 2021.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tastemaker.errors import ConfigurationError
from tastemaker.models.hub import ensure_weights
from tastemaker.models.records import Scorer, TextHead
from tastemaker.models.text import TextTower
from tastemaker.storage import Options

LOGIT_SCALE = 100.0
"""What CLIP multiplies cosines by before a softmax. It was learned, up to this limit, which OpenAI's models reached."""


class CaptionLikeness:
    """Scores embeddings of images by their captions. Threads may share one.

    Args:
        tower: Of the backbone that made the embeddings.
    """

    def __init__(self, tower: TextTower) -> None:
        self.embedding_size = tower.backbone.dimension
        self._tower = tower

    def __call__(self, embeddings: npt.NDArray[np.floating], captions: Sequence[str | None]) -> npt.NDArray[np.float32]:
        """Return the cosine of each embedding with that of its caption.

        A text that occurs several times is embedded once. What is beyond 77 tokens of a text is not read.

        Args:
            embeddings: float16 or float32 (n, d), of any length.
            captions: n texts; None where there is none.

        Returns:
            float32 (n,), -1 to 1; NaN without a caption (None, or nothing but white space), and where an embedding is
            zero or holds a NaN or an infinity.
        """
        scores = np.full(len(captions), np.nan, np.float32)
        texts = {text: number for number, text in enumerate({text for text in captions if text and text.strip()})}
        rows = [row for row, text in enumerate(captions) if text in texts]
        if rows:
            images = embeddings[rows].astype(np.float32)
            with np.errstate(divide="ignore", invalid="ignore"):
                images /= np.linalg.norm(images, axis=1, keepdims=True)
            words = self._tower.embed(list(texts))[[texts[captions[row] or ""] for row in rows]]
            scores[rows] = np.einsum("nd,nd->n", images, words)
        return scores


class PromptChoice:
    """The probability of the first of several prompts: a softmax of cosines. Threads may share one.

    Args:
        tower: Of the backbone that made the embeddings.
        prompts: Two or more texts.
    """

    def __init__(self, tower: TextTower, prompts: Sequence[str]) -> None:
        self._words = tower.embed(prompts)  # (p, d)

    def __call__(self, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the probability that the first prompt describes each image, float32 (n,), 0 to 1.

        Args:
            embeddings: float32 (n, d), each row of unit length.
        """
        logits = np.float32(LOGIT_SCALE) * (embeddings @ self._words.T)  # (n, p)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        first: npt.NDArray[np.float32] = shares[:, 0] / shares.sum(axis=1)
        return first


def fetch_head(
    scorer: Scorer, model_dir: str | os.PathLike[str] | None = None, options: Options | None = None
) -> list[Path]:
    """Return the files that a scorer's head needs, its weights first. They are fetched if they are not there.

    Args:
        scorer: The scorer.
        model_dir: Directory of models.
        options: Settings of the store of models at a URL.

    Raises:
        ConfigurationError: It needs text, and its backbone embeds images only.
    """
    files = [ensure_weights(scorer.head, model_dir, options)]
    if isinstance(scorer.head, TextHead):
        text = scorer.head.backbone.text
        if text is None:
            raise ConfigurationError(f"{scorer.name}: {scorer.head.backbone.id} embeds images only, not text")
        files.append(ensure_weights(text.tokenizer, model_dir, options))
    return files


def load_head(
    scorer: Scorer, model_dir: str | os.PathLike[str] | None = None, options: Options | None = None
) -> tuple[Any, Path]:
    """Return what computes a scorer's scores, and the file of its weights. The arguments are those of `fetch_head`.

    One that reads captions has a `CaptionLikeness`, every other a function of embeddings alone.
    """
    files = fetch_head(scorer, model_dir, options)
    if not isinstance(scorer.head, TextHead):
        return scorer.head.load(files[0]), files[0]
    tower, prompts = TextTower(files[0], files[1], scorer.head.backbone), scorer.head.prompts
    return PromptChoice(tower, prompts) if prompts else CaptionLikeness(tower), files[0]


def refuse_captions(scorers: Sequence[Scorer], why: str) -> None:
    """Raise `ConfigurationError` for a scorer that reads captions, where there are embeddings alone."""
    found = next((scorer for scorer in scorers if scorer.reads_captions), None)
    if found is not None:
        raise ConfigurationError(f"{found.name} scores images by their captions, {why}")
