"""Tensors of a safetensors file as views of the file itself.

The library's own reader copies each tensor (1.2 GB for the vision tower). A view costs nothing: OpenVINO reads
the pages that it needs, and the system may drop them again. Measured in docs/decisions/0002-mapped-weights.md.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from tastemaker.errors import ModelError

_DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}


class WeightsFile:
    """A memory-mapped safetensors file.

    Args:
        path: The file. The safetensors library checks its header first, so that every view lies inside the file.

    Attributes:
        shapes: Tensor name -> shape.

    Raises:
        ModelError: The file is not there, or is not safetensors.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with safe_open(path, framework="np"):
                pass
            self._bytes = np.memmap(path, np.uint8, mode="c")
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelError(f"{path} cannot be read as safetensors: {error}") from error
        header_size = int(self._bytes[:8].view("<u8")[0])
        header = json.loads(self._bytes[8 : 8 + header_size].tobytes())
        self._data = self._bytes[8 + header_size :]
        self._entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        self.shapes: dict[str, tuple[int, ...]] = {name: tuple(e["shape"]) for name, e in self._entries.items()}

    def tensor(self, name: str) -> npt.NDArray[np.float32]:
        """Return a tensor as float32: a view of the file where it is stored so, else a converted copy.

        Raises:
            ModelError: There is no such tensor, or it holds no floating-point numbers.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise ModelError(f"{self.path}: the tensor {name!r} is not in it")
        dtype = _DTYPES.get(entry["dtype"])
        if dtype is None:
            raise ModelError(f"{self.path}: {name!r} is {entry['dtype']}; weights must be F32, F16 or BF16")
        start, end = entry["data_offsets"]
        stored = np.frombuffer(self._data[start:end], dtype).reshape(entry["shape"])
        if entry["dtype"] == "BF16":  # the upper half of a float32
            return (stored.astype(np.uint32) << 16).view(np.float32)
        return stored.astype(np.float32, copy=False)
