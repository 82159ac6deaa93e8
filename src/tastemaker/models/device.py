"""Which accelerator this machine has, found without importing torch where there is none."""

from __future__ import annotations

import functools
import logging
import platform
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from tastemaker.errors import ConfigurationError, MissingExtraError

logger = logging.getLogger(__name__)

INSTALL_TORCH = 'pip install "tastemaker[torch]"'


def choose_device(wanted: str = "auto") -> str:
    """Return ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Args:
        wanted: ``auto`` takes a GPU where there is one that torch can use. Any other must be there.

    Raises:
        MissingExtraError: A GPU was asked for and torch is not installed.
        ConfigurationError: A GPU was asked for and torch sees none.
    """
    if wanted == "cpu":
        return "cpu"
    if wanted == "auto":
        return find_gpu() or "cpu"
    if find_spec("torch") is None:
        raise MissingExtraError(f"device={wanted!r} needs PyTorch: {INSTALL_TORCH}")
    kind, _, number = wanted.partition(":")
    # Not find_gpu: the system may show its GPU in a place that is not known here.
    if _ask_torch() != kind or (number and wanted not in cuda_devices()):
        raise ConfigurationError(f"device={wanted!r}: PyTorch finds no such device on this machine; use device='cpu'")
    return wanted


def system_shows_gpu() -> bool:
    """Return whether the system shows a GPU that torch might use. Takes microseconds."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    if sys.platform == "win32":
        return find_spec("torch") is not None
    return any(Path(node).exists() for node in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg"))


@functools.cache
def find_gpu(shows_gpu: Callable[[], bool] = system_shows_gpu) -> str | None:
    """Return ``cuda`` (NVIDIA and AMD), ``mps`` (Apple), or None where there is no usable GPU.

    torch takes seconds to import, so it is asked only where the system shows a GPU. The answer is remembered.

    Args:
        shows_gpu: Says whether the system shows one.
    """
    if not shows_gpu():
        return None
    if find_spec("torch") is None:
        logger.warning(
            "this machine has a GPU and PyTorch is not installed; running on the processor. To use it: %s",
            INSTALL_TORCH,
        )
        return None
    found = _ask_torch()
    if found is None:
        logger.info(
            "this machine has a GPU and PyTorch cannot use it (its build or the driver); running on the processor"
        )
    return found


def cuda_devices() -> list[str]:
    """Return ``cuda:0`` and so on: the GPUs that this process may use (``CUDA_VISIBLE_DEVICES``)."""
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]


def _ask_torch() -> str | None:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else None
