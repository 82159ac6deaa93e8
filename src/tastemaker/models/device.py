"""Which accelerator this machine has, found without importing torch where there is none."""

from __future__ import annotations

import functools
import logging
import platform
import re
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from tastemaker.checks import check_choice
from tastemaker.errors import ConfigurationError, MissingExtraError

logger = logging.getLogger(__name__)

DEVICES = ("auto", "cpu", "cuda", "mps")

INSTALL_TORCH = 'pip install "tastemaker[torch]"'


def choose_device(wanted: str = "auto") -> str:
    """Return ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Args:
        wanted: ``auto`` takes a GPU where there is one that torch can use. Any other must be there.

    Raises:
        MissingExtraError: A GPU was asked for and torch is not installed.
        ConfigurationError: There is no such kind of device; or a GPU was asked for and torch sees none.
    """
    check_device(wanted)
    if wanted == "cpu":
        return "cpu"
    if wanted == "auto":
        return find_gpu() or "cpu"
    if find_spec("torch") is None:
        raise MissingExtraError(f"device={wanted!r} needs PyTorch: {INSTALL_TORCH}")
    # Not find_gpu: the system may show its GPU in a place that is not known here.
    found, why_not = _ask_torch(wanted)
    if found != wanted.partition(":")[0]:
        why = why_not or "it finds no such device"
        raise ConfigurationError(f"device={wanted!r}: PyTorch cannot use it ({why}); use device='cpu'")
    return wanted


def check_device(device: str) -> None:
    """Raise `ConfigurationError` unless ``device`` is one of `DEVICES`, or ``cuda:N``."""
    if not re.fullmatch(r"cuda:\d+", device):
        check_choice("device", device, DEVICES)


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
    found, why_not = _ask_torch()
    if found is None:
        logger.warning("this machine has a GPU and PyTorch cannot use it (%s); running on the processor", why_not)
    return found


def cuda_devices() -> list[str]:
    """Return ``cuda:0`` and so on: the GPUs that this process may use (``CUDA_VISIBLE_DEVICES``)."""
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]


def _ask_torch(device: str = "cuda") -> tuple[str | None, str]:
    """Return the kind of GPU that torch can use; or None, and why it can use none.

    A tiny kernel is run on an NVIDIA or AMD GPU: there may be no GPU of this number, or this build of torch may have no
    kernels for its architecture.

    Args:
        device: Where the kernel is run: ``cuda`` or ``cuda:N``. Any other stands for ``cuda``.
    """
    import torch

    if torch.cuda.is_available():
        try:
            torch.ones(1, device=device if device.startswith("cuda") else "cuda").sum().item()
        except Exception as error:  # noqa: BLE001 - a driver fails in many ways
            return None, next(iter(str(error).splitlines()), type(error).__name__)
        return "cuda", ""
    if torch.backends.mps.is_available():
        return "mps", ""
    has_kernels = torch.version.cuda or torch.version.hip
    return None, "the driver is too old or not there" if has_kernels else f"torch {torch.__version__} has no CUDA"
