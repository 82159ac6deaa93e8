"""How many images a GPU should take at a time: measured at the start, in about a second."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from tastemaker.models.torch_runner import Forward, is_out_of_memory

BATCH_SIZES = (32, 64, 128, 256)
"""The sizes that are tried, smallest first."""

MIN_GAIN = 1.02
"""A size must be this many times as fast as the one before. Larger batches cost memory, and latency at the end."""

MAX_BATCH_S = 0.25
"""A GPU that is busy for so long with one batch gains nothing from a larger one, and the search must not take long."""

RUNS = 3
"""Timed runs of each size, after one that is not timed."""


def choose_batch_size(measure_rate: Callable[[int], float], sizes: tuple[int, ...] = BATCH_SIZES) -> int:
    """Return the size from which a larger one gains less than 2%, or takes more memory than there is.

    Args:
        measure_rate: Returns images a second for a batch size; raises torch.OutOfMemoryError where it does not fit.
        sizes: In ascending order.

    Example:
        >>> choose_batch_size({32: 900.0, 64: 1000.0, 128: 1010.0}.__getitem__, (32, 64, 128))
        64
    """
    best, best_rate = sizes[0], 0.0
    for size in sizes:
        try:
            rate = measure_rate(size)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            break
        if rate < MIN_GAIN * best_rate:
            break
        best, best_rate = size, rate
        if size / rate > MAX_BATCH_S:
            break
    return best


@torch.inference_mode()
def measure_rate(forward: Forward, device: torch.device, image_size: int, batch_size: int) -> float:
    """Return the images a second of a function on a CUDA GPU: the median of `RUNS` runs.

    Noise is computed, not zeros: a GPU is quicker on zeros, which take less power.
    """
    shape = (batch_size, image_size, image_size, 3)
    with torch.cuda.device(device):
        images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
        forward(images)
        torch.cuda.synchronize()
        seconds = []
        for _ in range(RUNS):
            started = time.perf_counter()
            forward(images)
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
    return batch_size / statistics.median(seconds)
