"""A vision tower in PyTorch, for GPUs (the extra ``tastemaker[torch]``)."""

from __future__ import annotations

import functools
import logging
import time
from pathlib import Path

import numpy as np
import torch

from tastemaker.checks import check_choice, check_positive
from tastemaker.errors import ConfigurationError, ModelError
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
from tastemaker.models.records import Backbone
from tastemaker.models.torch_cuda import CudaLane
from tastemaker.models.torch_runner import BatchRunner, Lane, Program, is_out_of_memory
from tastemaker.models.torch_tower import Kernels, TorchTower
from tastemaker.models.vit import Embeddings, Pixels, VitDimensions, check_pixels, read_dimensions

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

MODES = ("eager", "compiled", "graph")
"""How a full batch is computed on CUDA: kernel by kernel; with what torch.compile makes of the kernels between the
matrix products; that and a CUDA graph."""

CUDA_BATCH_SIZE = 256
"""Fixed, not measured: on another size cuBLAS takes other kernels, which round otherwise, and a run that is killed and
goes on must end with the same rows. 65,792 tokens are enough for any GPU of today."""

DEFAULT_BATCH_SIZE = 32
"""On processors and Apple's GPUs."""

logger = logging.getLogger(__name__)


class TorchClip:
    """A vision tower on a GPU, or on a processor where its numbers are to be compared. Threads may share one.

    Args:
        weights: The backbone's file; read through a memory map.
        device: ``cuda`` (the current one), ``cuda:N``, ``mps`` or ``cpu``.
        precision: ``auto`` (fp16 on a GPU, as OpenAI's own inference; else f32), ``f32``, ``bf16`` or ``fp16``.
        batch_size: Images in one inference; None for 256 on CUDA and 32 elsewhere.
        mode: One of `MODES`, on CUDA. See docs/decisions/0007-gpu-inference.md.
        backbone: What the file holds.

    Attributes:
        concurrency: Calls of `embed` at the same time that keep the device busy.

    Raises:
        ConfigurationError: The precision or mode is not offered here, or ``batch_size`` is less than 1.
        ModelError: The weights do not fit, or the GPU's memory does not suffice for them and one image.
    """

    def __init__(
        self,
        weights: Path,
        device: str = "cuda",
        precision: str = "auto",
        batch_size: int | None = None,
        mode: str = "graph",
        backbone: Backbone = CLIP_VIT_L14,
    ) -> None:
        is_cuda = device.startswith("cuda")
        if precision == "auto":
            precision = "f32" if device == "cpu" else "fp16"
        check_positive("batch_size", batch_size)
        if precision not in DTYPES:
            raise ConfigurationError(f"precision={precision!r} is not offered on {device}; use f32, bf16 or fp16")
        check_choice("mode", mode, MODES)
        mode = mode if is_cuda else "eager"
        self.backbone = backbone
        self.dimensions = read_dimensions(weights, backbone)
        self.precision = precision
        self.device = device
        self.mode = mode
        self.concurrency = 2 if is_cuda else 1  # one is computed while the other's images are copied
        self._device = _with_index(device)
        tower = _load_tower(weights, backbone, self.dimensions, self._device, DTYPES[precision])
        program = make_program(tower, mode)
        started = time.perf_counter()
        # Not a method: the tower would refer to itself, and keep the GPU's memory until the next garbage collection.
        side, capture = self.dimensions.image_size, mode == "graph"
        make = functools.partial(_make_lane, program, self._device, side, capture)
        self._runner = BatchRunner(make, batch_size or (CUDA_BATCH_SIZE if is_cuda else DEFAULT_BATCH_SIZE))
        logger.info("ready for %d images at a time in %.1f s", self.batch_size, time.perf_counter() - started)

    @property
    def batch_size(self) -> int:
        """Images in one inference. Calls with a multiple of it are the quickest."""
        return self._runner.batch_size

    def embed(self, pixels: Pixels) -> Embeddings:
        """Return the embeddings, float32 (n, d), of uint8 (n, s, s, 3) pixels; see `VisionTower.embed`."""
        check_pixels(pixels, self.dimensions.image_size)
        if not len(pixels):
            return np.empty((0, self.dimensions.dimension), np.float32)
        return self._runner.run(pixels)

    def cancel(self) -> None:
        """Make an `embed` that runs in another thread, and every later one, raise `ModelError` soon."""
        self._runner.cancel()

    def describe(self) -> dict[str, str]:
        """Return the backend, device, precision and version, for the provenance of rows."""
        name = torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else self.device
        version = torch.__version__
        return {"backend": "torch", "backend_version": version, "device": name, "precision": self.precision}


def make_program(tower: TorchTower, mode: str) -> Program:
    """Return the tower, and in all modes but ``eager`` the tower with compiled kernels.

    Two small functions are compiled, not the tower: that takes seconds instead of a minute, and cuBLAS has the matrix
    products in any case.
    """
    if mode == "eager":
        return Program(tower)
    norm = torch.compile(tower.kernels.norm, fullgraph=True, dynamic=False)
    expand = torch.compile(tower.kernels.expand, fullgraph=True, dynamic=False)
    return Program(tower, functools.partial(tower, kernels=Kernels(norm, expand)))


def _load_tower(
    weights: Path, backbone: Backbone, dimensions: VitDimensions, device: torch.device, dtype: torch.dtype
) -> TorchTower:
    try:
        return TorchTower(weights, backbone, dimensions, device, dtype)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    raise ModelError("the GPU's memory does not suffice for the model; free some, or use device='cpu'")


def _make_lane(program: Program, device: torch.device, image_size: int, capture: bool, batch_size: int) -> Lane:
    if device.type != "cuda":
        return Lane(program.plain, device)
    return CudaLane(program, device, batch_size, image_size, capture=capture)


def _with_index(device: str) -> torch.device:
    """Return the device, with a number in any case: threads may differ in what they take for the current one."""
    return torch.device("cuda", torch.cuda.current_device()) if device == "cuda" else torch.device(device)
