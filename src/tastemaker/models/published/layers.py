"""The way to load heads of plain layers, which imports an array library only when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tastemaker.models.records import Predictor


def load_layers(path: Path, kind: str) -> Predictor:
    """Return the head in a file; see `tastemaker.models.heads.read_head`."""
    from tastemaker.models.heads import read_head

    return read_head(path, kind)
