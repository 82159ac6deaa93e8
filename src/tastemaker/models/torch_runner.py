"""Batches of images through a function on a device: who waits for what, and what happens when memory runs out.

A *lane* takes batches to a device and brings results back. `Lane` is the plain one, for processors and Apple's GPUs;
`tastemaker.models.torch_cuda.CudaLane` overlaps copies with computation. `BatchRunner` lets threads share a lane.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from tastemaker.errors import ModelError
from tastemaker.models.vit import Embeddings, Pixels, make_inference_lock

_POLL_S = 0.001
"""How often a waiting thread looks: each look takes Python's lock, for which a dozen decoding threads queue."""

_NO_MEMORY = re.compile("(?i)out of memory|_STATUS_ALLOC_FAILED|CUDACachingAllocator")
"""What CUDA, cuBLAS and cuDNN (and their counterparts of AMD) say of full memory, and the allocator's assertions."""

logger = logging.getLogger(__name__)

Forward = Callable[[torch.Tensor], torch.Tensor]
T = TypeVar("T")


@dataclass
class Program:
    """A function of a batch, and the same function compiled for batches of one size.

    Attributes:
        plain: Takes a batch of any size.
        fast: Takes full batches only; None where nothing was compiled. The first time it fails, that is logged, and
            from then on the plain function does all the work.
    """

    plain: Forward
    fast: Forward | None = None

    def run_full(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the results of a full batch by the quickest way that works."""
        if self.fast is not None:
            try:
                return self.fast(batch)
            except Exception as error:  # compilers fail in many ways: no Triton, no C compiler, a full disk
                if is_out_of_memory(error):
                    raise
                self.fast = None
                logger.warning("torch.compile does not work here; going on without, more slowly (%s)", error)
        return self.plain(batch)


@dataclass
class Pending:
    """The results of a batch that is being computed.

    Attributes:
        values: Where they will be.
        done: The event after which they are there; None if `take` may be called at once.
    """

    values: torch.Tensor
    done: torch.cuda.Event | None = None

    def __len__(self) -> int:
        return len(self.values)

    def is_done(self) -> bool:
        """Return whether `take` returns without a wait."""
        return self.done is None or bool(self.done.query())

    def take(self) -> Embeddings:
        """Return the results, once; no tensor is left behind that would be freed without the lock."""
        result: Embeddings = self.values.cpu().numpy().copy()
        self.values, self.done = torch.empty(0), None
        return result


class Lane:
    """A way to a device and back, for one thread at a time. This one copies, computes and copies back, in this order.

    Args:
        forward: What is computed, of any number of images.
        device: Where.
    """

    def __init__(self, forward: Forward, device: torch.device) -> None:
        self._forward = forward
        self._device = device

    def is_free(self) -> bool:
        """Return whether `launch` can take a batch without waiting for one before it."""
        return True

    @torch.inference_mode()
    def launch(self, images: Pixels) -> Pending:
        """Start the computation of a batch."""
        # np.require: torch wants memory in order, and warns of what it cannot write to
        batch = torch.from_numpy(np.require(images, requirements=["C", "W"]))
        return Pending(self._forward(batch.to(self._device)))

    def close(self) -> None:
        """Wait until the device is idle, and free what is held there."""


class BatchRunner:
    """Runs images through a lane in batches. Threads may share it: one launches while others wait for results.

    The lock is held for every call of torch, and for no wait: threads look again every millisecond. So the device
    has its next batch before the last one is done, a wait can be cancelled, and no thread is inside torch when the
    process ends (see `make_inference_lock`).

    Args:
        make_lane: Makes a lane for batches of a size. It may raise torch.OutOfMemoryError, as a launch may.
        batch_size: Images in a batch, to begin with.

    Attributes:
        batch_size: Images in a batch. Halved whenever the device's memory does not suffice.

    Raises:
        ModelError: The memory does not suffice for one image.
    """

    def __init__(self, make_lane: Callable[[int], Lane], batch_size: int) -> None:
        self.batch_size = batch_size
        self._make_lane = make_lane
        self._lane: Lane | None = None
        self._is_cancelled = False
        self._lock = make_inference_lock()
        with self._lock:
            self._use_lane(lambda _lane: None)  # a GPU's lane compiles now, not on the first image

    def run(self, images: Pixels) -> Embeddings:
        """Return the results for at least one image, in order.

        Raises:
            ModelError: `cancel` was called, or the memory does not suffice for one image.
        """
        pending: list[Pending] = []
        start = 0
        while start < len(images):
            rest = images[start:]
            pending.append(self._when(self._is_free, lambda rest=rest: self._launch(rest)))  # type: ignore[misc]
            start += len(pending[-1])
        return np.concatenate([self._when(batch.is_done, batch.take) for batch in pending])

    def cancel(self) -> None:
        """Make a `run` in another thread, and every later one, raise `ModelError` soon."""
        self._is_cancelled = True

    def _when(self, is_ready: Callable[[], bool], action: Callable[[], T]) -> T:
        """Return what the action returns, as soon as it can be done without a wait."""
        while True:
            with self._lock:
                if self._is_cancelled:
                    raise ModelError("the inference was cancelled")
                if is_ready():
                    return action()
            time.sleep(_POLL_S)

    def _is_free(self) -> bool:
        return self._lane is None or self._lane.is_free()

    def _launch(self, rest: Pixels) -> Pending:
        return self._use_lane(lambda lane: lane.launch(rest[: self.batch_size]))

    def _use_lane(self, use: Callable[[Lane], T]) -> T:
        while True:
            try:
                if self._lane is None:
                    self._lane = self._make_lane(self.batch_size)
                return use(self._lane)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            self._halve()  # outside of the handler: the error holds the frames, and the frames their tensors

    def _halve(self) -> None:
        if self._lane is not None:
            self._lane.close()
            self._lane = None
        torch.cuda.empty_cache()  # does nothing where CUDA is not in use
        if self.batch_size == 1:
            raise ModelError("the GPU's memory does not suffice for one image; free some, or use device='cpu'")
        self.batch_size //= 2
        logger.warning("the GPU's memory does not suffice; going on with %d images at a time", self.batch_size)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether an error says that a GPU's memory is full, or came of one that does."""
    while error is not None:
        if isinstance(error, torch.cuda.OutOfMemoryError) or _NO_MEMORY.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False
