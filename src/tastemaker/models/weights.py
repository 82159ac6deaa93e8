"""Tensors of a safetensors file as views of the file itself.

The library's own reader copies each tensor (1.2 GB for the vision tower). A view costs nothing: OpenVINO reads
the pages that it needs, and the system may drop them again. Measured in docs/decisions/0002-mapped-weights.md.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from tastemaker.errors import ModelError
from tastemaker.models.records import TensorShapes

_DTYPES: dict[str, type[np.generic]] = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}


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
        self._mapped = _map(path)
        header_size = int.from_bytes(self._mapped[:8], "little")
        header = json.loads(self._mapped[8 : 8 + header_size])
        self._data = np.frombuffer(self._mapped, np.uint8)[8 + header_size :]
        self._entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        self.shapes: dict[str, tuple[int, ...]] = {name: tuple(e["shape"]) for name, e in self._entries.items()}

    def find_misfits(self, required_tensors: Callable[[Collection[str]], TensorShapes]) -> list[str]:
        """Return what keeps the file from being used: tensors that are missing, or of another shape or type.

        Args:
            required_tensors: Returns what must be there of the tensors' names, as `Backbone.required_tensors`.
        """
        sizes: dict[str, int] = {}  # what each word of the required shapes stands for: its first occurrence says
        problems = []
        for name, dims in required_tensors(self.shapes).items():
            shape = self.shapes.get(name)
            if shape is None:
                problems.append(f"the tensor {name} is missing")
                continue
            fits = len(dims) == len(shape)
            for dim, size in zip(dims, shape, strict=False):
                fits &= size == (sizes.setdefault(dim, size) if isinstance(dim, str) else dim)
            if not fits:
                wanted = ", ".join(str(sizes.get(dim, dim) if isinstance(dim, str) else dim) for dim in dims)
                problems.append(f"the tensor {name} has the shape {shape}, not ({wanted})")
            if (dtype := self._entries[name]["dtype"]) not in _DTYPES:
                problems.append(f"the tensor {name} is {dtype}, not {', '.join(_DTYPES)}")
        return problems

    def release_memory(self) -> None:
        """Give the memory of what was read back to the system; it is read again when it is needed."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._mapped.madvise(mmap.MADV_DONTNEED)

    def tensor(self, name: str) -> npt.NDArray[np.float32]:
        """Return a tensor as float32: a view of the file where it is stored so, else a converted copy.

        Raises:
            ModelError: There is no such tensor, or it holds no floating-point numbers.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise ModelError(f"{self.path}: the tensor {name!r} is not in it")
        if entry["dtype"] not in _DTYPES:
            raise ModelError(f"{self.path}: {name!r} is {entry['dtype']}; it must be {' or '.join(_DTYPES)}")
        start, end = entry["data_offsets"]
        stored = np.frombuffer(self._data[start:end], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
        if stored.dtype == np.uint16:  # bf16 is the upper half of a float32
            return (stored.astype(np.uint32) << 16).view(np.float32)
        return stored.astype(np.float32, copy=False)


def _map(path: Path) -> mmap.mmap:
    try:
        with safe_open(path, framework="np"):
            pass
        with path.open("rb") as opened:
            return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as safetensors: {error}") from error
