"""The way to load heads of linear layers, which imports an array library only when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tastemaker.models.aesthetic import AestheticPredictor


def load_linear(path: Path) -> AestheticPredictor:
    """Return the predictor in a file; see `AestheticPredictor.from_file`."""
    from tastemaker.models.aesthetic import AestheticPredictor

    return AestheticPredictor.from_file(path)
