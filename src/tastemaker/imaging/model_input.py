"""How pixels of any size become a model's square input: the arithmetic, whatever resizes them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from tastemaker.errors import ConfigurationError

FITS = ("crop", "squash")
ROUNDINGS = ("openai", "transformers")
INTERPOLATIONS = ("bicubic", "bilinear")

_MAX_ASPECT = 32
"""Beyond this ratio of the sides only the crop is resized: the whole resized picture could fill the memory."""

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Preprocess:
    """What a model wants its input to be.

    Two references differ in where the centre of a crop is. OpenAI's own rounds the crop's offset, ties to even;
    Hugging Face transformers' rounds it down. For a quarter of all sizes, and on about 8% of photographs, whose sides
    are seldom in an odd ratio, that is one pixel. It moves an embedding more than bf16 arithmetic does.

    Attributes:
        size: Side of the square, in pixels.
        mean: Mean of each RGB channel of the model's training pixels, in [0, 1].
        std: Standard deviation of each.
        fit: ``crop`` resizes the short side to ``size`` and takes the centre; ``squash`` resizes both sides to it.
        rounding: ``openai`` or ``transformers``: how the offset of a crop is rounded.
        interpolation: ``bicubic`` or ``bilinear``, both antialiased.

    Raises:
        ConfigurationError: A word is none of these, or the size is less than 1.
    """

    size: int
    mean: Colour
    std: Colour
    fit: str = "crop"
    rounding: str = "openai"
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        allowed = {"fit": FITS, "rounding": ROUNDINGS, "interpolation": INTERPOLATIONS}
        for name, words in allowed.items():
            if getattr(self, name) not in words:
                raise ConfigurationError(f"{name}={getattr(self, name)!r} is not one of {', '.join(words)}")
        if self.size < 1:
            raise ConfigurationError(f"size={self.size} is less than 1")

    def with_rounding(self, rounding: str | None) -> Preprocess:
        """Return the same with another rounding; None changes nothing."""
        return replace(self, rounding=rounding) if rounding else self

    def fingerprint(self) -> dict[str, Any]:
        """Return what of it decides results, for the fingerprint of a stage."""
        return {"preprocess": self.kind, "input": [self.size, self.interpolation, *self.mean, *self.std]}

    @property
    def kind(self) -> str:
        """One word for provenance: how a crop is rounded, or ``squash``."""
        return self.rounding if self.fit == "crop" else self.fit


class ResizePlan(NamedTuple):
    """What an image is resized to and where it is cropped.

    Attributes:
        width: Of the resized image, in pixels.
        height: The same.
        left: First column of the crop.
        top: First row of the crop.
        is_extreme: The resized image could fill the memory: only its crop must be made.
    """

    width: int
    height: int
    left: int
    top: int
    is_extreme: bool


def plan_resize(height: int, width: int, how: Preprocess) -> ResizePlan:
    """Return how an image of a height and width becomes the model's input.

    Example:
        >>> how = Preprocess(224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        >>> plan_resize(480, 640, how)
        ResizePlan(width=298, height=224, left=37, top=0, is_extreme=False)
    """
    size = how.size
    if how.fit == "squash":
        return ResizePlan(size, size, 0, 0, is_extreme=False)
    short = min(height, width)
    new_width, new_height = int(size * width / short), int(size * height / short)
    left, top = _crop_offset(new_width - size, how.rounding), _crop_offset(new_height - size, how.rounding)
    return ResizePlan(new_width, new_height, left, top, max(new_width, new_height) > _MAX_ASPECT * size)


def _crop_offset(excess: int, rounding: str) -> int:
    """Return the first row or column of the crop; ``round`` takes ties to even."""
    return round(excess / 2) if rounding == "openai" else excess // 2
