"""The ways to load heads of layers, which import an array library only when they are called."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tastemaker.models.aesthetic import AestheticPredictor
    from tastemaker.models.heads import Network


def load_linear(path: Path) -> AestheticPredictor:
    """Return the head of linear layers in a file; see `AestheticPredictor.from_file`."""
    from tastemaker.models.aesthetic import AestheticPredictor

    return AestheticPredictor.from_file(path)


def load_relu(path: Path) -> Network:
    """Return the head of linear layers with ReLUs in a file; see `tastemaker.models.heads.read_relu`."""
    from tastemaker.models.heads import read_relu

    return read_relu(path)


def load_detector(path: Path) -> Network:
    """Return the detector in a file; see `tastemaker.models.heads.read_detector`."""
    from tastemaker.models.heads import read_detector

    return read_detector(path)
