"""The layers of heads, as files hold them.

Source of the names: the state dicts of C. Schuhmann, "Improved Aesthetic Predictor", 2022; of discus0434, "Aesthetic
Predictor V2.5", 2024; and of LAION-AI, "CLIP-based-NSFW-Detector", 2022. Dropout layers do nothing in evaluation, hence
gaps in the numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tastemaker.errors import ModelError
from tastemaker.models.pth import read_pth
from tastemaker.models.records import VitNames
from tastemaker.models.weights import WeightsFile

PICKLED_SUFFIXES = (".pth", ".pt", ".ckpt")
"""Files that torch wrote."""

LAYER_NUMBERS, RELU_NUMBERS, SCORING_NUMBERS = (0, 2, 4, 6, 7), (0, 3, 6, 9, 11), (0, 2, 4, 6, 8)
LAYOUTS = (
    ("linear", [f"layers.{number}." for number in LAYER_NUMBERS]),
    ("linear", [f"scoring_head.{number}." for number in SCORING_NUMBERS]),
    ("relu", [f"layers.{number}." for number in RELU_NUMBERS]),
    ("detector", [f"linear_{number}." for number in (1, 2, 3, 4)]),
)
"""What lies between the layers, and what stands before ``weight`` and ``bias`` of each. ReLUs have numbers, too."""

_NORM = ("norm.mean", "norm.variance")

Floats = npt.NDArray[np.float32]


class StoredLayers(NamedTuple):
    """What a file holds.

    Attributes:
        kind: ``linear``: there is nothing between the layers; ``relu``: a ReLU follows each but the last;
            ``detector``: so it is, an embedding is normalised first, and a sigmoid follows the last layer.
        layers: (weight (outputs, inputs), bias (outputs,)) of each, first to last.
        mean: Of a detector, what is taken from an embedding first.
        variance: Of a detector, the square of what it is divided by then.
    """

    kind: str
    layers: list[tuple[Floats, Floats]]
    mean: Floats | None = None
    variance: Floats | None = None


def read_layers(path: Path, kind: str | None = None) -> StoredLayers:
    """Return the layers in a ``.safetensors`` or ``.pth`` (``.pt``, ``.ckpt``) file.

    A vision tower beside them is passed over. No code in a ``.pth`` runs (see `tastemaker.models.pth`).

    Args:
        path: The file. Before the names of its layers may stand one prefix, as ``module.``.
        kind: What it must be, as `StoredLayers.kind`; None for any.

    Raises:
        ModelError: The file cannot be read, or holds something else.
    """
    tensors = _read_tensors(path)
    for found, names in (*LAYOUTS, ("linear", [""])):
        norm = _NORM if found == "detector" else ()
        wanted = [*norm, *(f"{name}{part}" for name in names for part in ("weight", "bias"))]
        prefix = next((name.removesuffix(wanted[-1]) for name in tensors if name.endswith(wanted[-1])), "")
        if kind in (None, found) and set(tensors) == {f"{prefix}{name}" for name in wanted}:
            pairs = [(tensors[f"{prefix}{name}weight"], tensors[f"{prefix}{name}bias"]) for name in names]
            return StoredLayers(found, pairs, *(tensors[f"{prefix}{name}"] for name in norm))
    raise ModelError(
        f"{path}: not a known predictor{f' ({kind})' if kind else ''}; it must hold layers.{{0,2,4,6,7}}, "
        "scoring_head.{0,2,4,6,8} or one layer (linear), layers.{0,3,6,9,11} (relu), or norm.{mean,variance} and "
        f"linear_{{1,2,3,4}} (detector). It holds {', '.join(sorted(tensors)[:12]) or 'nothing'}"
    )


def _read_tensors(path: Path) -> dict[str, Floats]:
    if path.suffix.lower() in PICKLED_SUFFIXES:
        return {name: tensor for name, tensor in read_pth(path).items() if not VitNames().owns(name)}
    file = WeightsFile(path)
    return {name: file.tensor(name) for name in file.shapes if not VitNames().owns(name)}
