"""The CLIP vision tower in PyTorch, for GPUs (the extra ``tastemaker[torch]``)."""

from __future__ import annotations

import functools
import logging
import time
from pathlib import Path

import numpy as np
import torch

from tastemaker.checks import check_choice, check_positive
from tastemaker.errors import ConfigurationError
from tastemaker.models.batch_size import choose_batch_size, measure_rate
from tastemaker.models.clip import Embeddings, Pixels, check_pixels, read_config
from tastemaker.models.torch_cuda import CudaLane
from tastemaker.models.torch_runner import BatchRunner, DirectLane, Lane, Program
from tastemaker.models.torch_tower import TorchTower, encoder_layer

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

MODES = ("auto", "eager", "compiled", "graph", "tuned")
"""How a full batch is computed: kernel by kernel; through torch.compile; that and a CUDA graph; that, with the
compiler also looking for the quickest matrix products, which takes it a minute or more the first time."""

DEFAULT_BATCH_SIZE = 32
"""Where none is measured: on processors and Apple's GPUs."""

logger = logging.getLogger(__name__)


class TorchClip:
    """CLIP's vision tower on a GPU, or on a processor where its numbers are to be compared. Threads may share one.

    Args:
        weights: ``model.safetensors`` in the Hugging Face layout; read through a memory map.
        device: ``cuda`` (the current one), ``cuda:N``, ``mps`` or ``cpu``.
        precision: ``auto`` (fp16 on a GPU, as OpenAI's own inference; else f32), ``f32``, ``bf16`` or ``fp16``.
        batch_size: Images in one inference; None for the best, which is measured on CUDA.
        mode: One of `MODES`; ``auto`` is ``graph`` on CUDA and ``eager`` elsewhere. See
            docs/decisions/0007-gpu-inference.md.

    Attributes:
        concurrency: Calls of `embed` at the same time that keep the device busy.

    Raises:
        ConfigurationError: The precision or mode is not offered here, or ``batch_size`` is less than 1.
        ModelError: The weights do not fit, or the GPU's memory does not suffice for one image.
    """

    def __init__(
        self,
        weights: Path,
        device: str = "cuda",
        precision: str = "auto",
        batch_size: int | None = None,
        mode: str = "auto",
    ) -> None:
        is_cuda = device.startswith("cuda")
        if precision == "auto":
            precision = "f32" if device == "cpu" else "fp16"
        if mode == "auto":
            mode = "graph" if is_cuda else "eager"
        check_positive("batch_size", batch_size)
        if precision not in DTYPES:
            raise ConfigurationError(f"precision={precision!r} is not offered on {device}; use f32, bf16 or fp16")
        check_choice("mode", mode, MODES)
        self.config = read_config(weights)
        self.precision = precision
        self.device = device
        self.mode = mode
        self.concurrency = 2 if is_cuda else 1  # one is computed while the other's images are copied
        self._device = _with_index(device)
        self._tower = TorchTower(weights, self.config, self._device, DTYPES[precision])
        self._program = make_program(self._tower, mode)
        started = time.perf_counter()
        self._runner = BatchRunner(self._make_lane, batch_size or self._choose_batch_size())
        logger.info("ready for %d images at a time in %.1f s", self.batch_size, time.perf_counter() - started)

    @property
    def batch_size(self) -> int:
        """Images in one inference. Calls with a multiple of it are the quickest."""
        return self._runner.batch_size

    def embed(self, pixels: Pixels) -> Embeddings:
        """Return the embeddings, float32 (n, 768), of uint8 (n, 224, 224, 3) pixels; see `VisionTower.embed`."""
        check_pixels(pixels, self.config)
        if not len(pixels):
            return np.empty((0, self.config.projection), np.float32)
        return self._runner.run(pixels)

    def cancel(self) -> None:
        """Make an `embed` that runs in another thread, and every later one, raise `ModelError` soon."""
        self._runner.cancel()

    def describe(self) -> dict[str, str]:
        """Return the backend, device, precision and version, for the provenance of rows."""
        name = torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else self.device
        version = torch.__version__
        return {"backend": "torch", "backend_version": version, "device": name, "precision": self.precision}

    def _choose_batch_size(self) -> int:
        """Measure without the compiler, which takes seconds for every size: the best size is that of the products."""
        if self._device.type != "cuda":
            return DEFAULT_BATCH_SIZE
        chosen = choose_batch_size(
            functools.partial(measure_rate, self._tower, self._device, self.config.image_size)  # the last is the size
        )
        torch.cuda.empty_cache()
        return chosen

    def _make_lane(self, batch_size: int) -> Lane:
        if self._device.type != "cuda":
            return DirectLane(self._program, self._device, batch_size)
        size, capture = self.config.image_size, self.mode in ("graph", "tuned")
        return CudaLane(self._program, self._device, batch_size, size, capture=capture)


def make_program(tower: TorchTower, mode: str) -> Program:
    """Return the tower, and in all modes but ``eager`` the tower with a compiled layer.

    One layer is compiled, not the tower: all layers have the same shapes, so that takes seconds instead of a minute,
    and what a whole-tower compilation could fuse across layers is inside of this one (see `LayerWeights`).
    """
    if mode == "eager":
        return Program(tower)
    tuning = "max-autotune-no-cudagraphs" if mode == "tuned" else None
    layer = torch.compile(encoder_layer, fullgraph=True, dynamic=False, mode=tuning)
    return Program(tower, functools.partial(tower, layer=layer))


def _with_index(device: str) -> torch.device:
    """Return the device, with a number in any case: threads may differ in what they take for the current one."""
    return torch.device("cuda", torch.cuda.current_device()) if device == "cuda" else torch.device(device)
