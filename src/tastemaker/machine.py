"""This machine in words and numbers: the processor, the cores that this process may use, memory, versions."""

from __future__ import annotations

import math
import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8", "bf16", "i8mm")
"""Instruction sets that decide how fast the model runs, by the names that Linux gives them."""

_PACKAGES = ("tastemaker", "openvino", "numpy", "pillow", "simplejpeg", "pyarrow", "torch")


MEMORY_SHARE = 0.25
"""Of the memory that this process may use, what one large thing may take: images being decoded, embeddings kept."""

CORES_VARIABLE = "TASTEMAKER_CORES"
"""Environment variable: cores that this process may use at most, where several processes share a machine."""


def usable_cores() -> int:
    """Return how many processor cores this process may use.

    The least of its affinity, its control group's quota, and ``TASTEMAKER_CORES``.
    """
    cores = _cores_of_system()
    share = os.environ.get(CORES_VARIABLE, "")
    return max(1, min(cores, int(share))) if share.isdecimal() else cores


def _cores_of_system() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no control group, or "max": no quota
        return cores


def usable_memory_bytes() -> int | None:
    """Return how much memory this process may use, None where the system does not tell.

    The least of the machine's and its control group's; of several processes that share the machine's cores by
    ``TASTEMAKER_CORES``, the same share of it.
    """
    found = [memory for memory in (_memory_bytes(), *_read_lines("/sys/fs/cgroup/memory.max")) if memory is not None]
    limits = [int(memory) for memory in found if str(memory).isdecimal()]  # "max" is none
    return min(limits) * usable_cores() // _cores_of_system() if limits else None


def _memory_bytes() -> int | None:
    memory = next((line.split()[1] for line in _read_lines("/proc/meminfo") if line.startswith("MemTotal")), None)
    if memory is not None:
        return int(memory) * 1024
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")  # macOS
    except (AttributeError, OSError, ValueError):
        return None


def describe_machine() -> dict[str, Any]:
    """Return the processor, cores, instruction sets, memory in GB, system, and versions of what scores images."""
    info = _read_lines("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info if line.startswith("model name")]
    flags = next((line.split() for line in info if line.startswith(("flags", "Features"))), [])
    memory = _memory_bytes()
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "instructions": [name for name in INSTRUCTIONS if name in flags],
        "memory_gb": round(memory / 2**30, 1) if memory else None,
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": {name: found for name in _PACKAGES if (found := package_version(name))},
    }


@cache
def package_version(name: str) -> str | None:
    """Return the version of an installed package, None where it is not installed; to read it takes two milliseconds."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _read_lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def is_running(process: int) -> bool:
    """Return whether this machine has a process with a number, anybody's."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
