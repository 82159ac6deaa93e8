"""Which accelerator this machine has, found without importing torch where there is none."""

from __future__ import annotations

import functools
import logging
import platform
import sys
from importlib.util import find_spec
from pathlib import Path

from tastemaker.errors import ConfigurationError, MissingExtraError

logger = logging.getLogger(__name__)

INSTALL_TORCH = 'pip install "tastemaker[torch]"'


def choose_device(wanted: str = "auto") -> str:
    """Return ``cpu``, ``cuda`` or ``mps``.

    Args:
        wanted: ``auto`` takes a GPU where there is one that torch can use; the others are taken at their word.

    Raises:
        MissingExtraError: A GPU was asked for and torch is not installed.
        ConfigurationError: A GPU was asked for and torch sees none.
    """
    if wanted == "cpu":
        return "cpu"
    found = find_gpu()
    if wanted == "auto":
        return found or "cpu"
    if find_spec("torch") is None:
        raise MissingExtraError(f"device={wanted!r} needs PyTorch: {INSTALL_TORCH}")
    if found != wanted:
        raise ConfigurationError(f"device={wanted!r}: PyTorch finds no such device on this machine; use device='cpu'")
    return wanted


@functools.cache
def find_gpu() -> str | None:
    """Return ``cuda`` (NVIDIA and AMD), ``mps`` (Apple), or None where there is no usable GPU.

    torch takes seconds to import, so it is asked only where the system shows a GPU.
    """
    if not _system_shows_gpu():
        return None
    if find_spec("torch") is None:
        logger.warning(
            "this machine has a GPU and PyTorch is not installed; running on the processor. %s", INSTALL_TORCH
        )
        return None
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else None


def _system_shows_gpu() -> bool:
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    if sys.platform == "win32":
        return find_spec("torch") is not None
    return any(Path(node).exists() for node in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg"))
