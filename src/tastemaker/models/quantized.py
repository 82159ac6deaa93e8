"""The vision tower's weights in 8 bits: made once from the published file, and kept.

Each row of a linear layer's weight (one output) is stored as whole numbers from -127 to 127 and a float32 scale.
Activations are quantised while the model runs, in groups of 256 of one token (OpenVINO's dynamic quantisation), so
nothing has to be calibrated, and an image's result does not depend on others. Everything that is no layer of the
transformer stays as it is.
"""

from __future__ import annotations

import logging
from pathlib import Path

import filelock
import numpy as np
import numpy.typing as npt
from safetensors.numpy import save, save_file

from tastemaker.models.hub import cache_dir, file_sha256
from tastemaker.models.records import VitNames
from tastemaker.models.weights import WeightsFile
from tastemaker.storage.place import Place

SCALE_SUFFIX = "_scale"
"""The scales of ``NAME.weight`` are in ``NAME.weight_scale``, float32 (outputs, 1)."""

_SCHEME = "int8-1"
"""Begins the file's name; changes with the way of quantising, so that no older file is taken for it."""

logger = logging.getLogger(__name__)


def open_quantized(weights: Path, names: VitNames) -> WeightsFile:
    """Return a tower's weights in 8 bits, made now unless they were made before.

    They are kept in the user's cache directory. Several processes may ask at the same time. Where nothing can be
    written there, they are made in memory, and a warning says so.

    Args:
        weights: ``model.safetensors``.
        names: Of its tensors.
    """
    path = cache_dir() / "quantized" / f"{_SCHEME}-{file_sha256(weights)}.safetensors"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{path}.lock"):
            if not path.is_file():
                Place.at(str(path.parent)).remove_drafts()  # what a killed process left is large
                with Place.at(str(path)).draft() as draft:
                    save_file(_quantize(WeightsFile(weights), names), draft.path)
    except OSError as error:
        logger.warning("the weights in int8 cannot be kept (%s: %s); each run makes them anew", path, error.strerror)
        return WeightsFile(path, bytearray(save(_quantize(WeightsFile(weights), names))))
    return WeightsFile(path)


def quantize_rows(weight: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Return a matrix in 8 bits, and the scale of each row: ``weight`` is about ``quantized * scale``.

    Args:
        weight: float32 (outputs, inputs).

    Returns:
        int8 (outputs, inputs), -127 to 127, and float32 (outputs, 1). Off by half a scale at most.

    Example:
        >>> quantize_rows(np.array([[1.0, -2.0], [0.0, 0.0]], np.float32))[0].tolist()
        [[64, -127], [0, 0]]
    """
    largest = np.abs(weight).max(axis=1, keepdims=True)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.rint(weight / scale).astype(np.int8), scale


def _quantize(source: WeightsFile, names: VitNames) -> dict[str, npt.NDArray[np.generic]]:
    layers = range(names.count_layers(source.shapes))
    linears = {f"{linear}.weight" for layer in layers for linear in names.linears(layer)}
    tensors: dict[str, npt.NDArray[np.generic]] = {}
    for name in source.shapes:
        if name in linears:
            tensors[name], tensors[name + SCALE_SUFFIX] = quantize_rows(source.tensor(name))
        elif names.owns(name) and not name.endswith("position_ids"):
            tensors[name] = source.tensor(name)
    return tensors
