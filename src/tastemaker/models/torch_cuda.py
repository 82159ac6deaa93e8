"""The way to an NVIDIA or AMD GPU and back: pinned memory, two streams, and one CUDA graph for a whole batch."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field

import torch

from tastemaker.models.torch_runner import Lane, Pending, Program, is_out_of_memory
from tastemaker.models.vit import Pixels

BUFFERS = 2
"""While a batch is computed from one, the next is copied into the other."""

WARM_UP_RUNS = 3
"""Before a capture, as torch's documentation has it: libraries set themselves up, kernels are compiled and tuned."""

HALVINGS = 3
"""A partial batch is filled up to a half, a quarter or an eighth of a full one. So few sizes, because cuDNN's attention
(torch's choice on Hopper) takes half a second to prepare for each that is new to a thread."""

logger = logging.getLogger(__name__)

Tensor = torch.Tensor

_failed: list[torch.cuda.CUDAGraph] = []
"""Kept for ever, empty: up to torch 2.11 the allocator goes on asking an object whose capture failed."""


@dataclass
class _Buffer:
    """Room for one batch on its way to the GPU.

    Attributes:
        host: uint8 (batch, s, s, 3) in pinned memory, which the GPU copies by itself.
        device: The same on the GPU.
        copied: ``device`` holds the images; ``host`` may be filled again.
        read: ``device`` may be filled again.
    """

    host: Tensor
    device: Tensor
    copied: torch.cuda.Event = field(default_factory=lambda: torch.cuda.Event())
    read: torch.cuda.Event = field(default_factory=lambda: torch.cuda.Event())


class CudaLane(Lane):
    """Overlaps the copy of a batch with the computation of the one before.

    ::

        host memory  --fill-->  pinned buffer  --copy stream-->  GPU buffer
        GPU buffer  --compute stream-->  input of the graph  -->  graph  -->  pinned result

    The graph always reads the same memory, so a batch is moved there first, which takes microseconds.

    Args:
        program: What is computed.
        device: ``cuda:N``.
        batch_size: Images in a full batch.
        image_size: Side of an image in pixels.
        capture: Record the computation of a full batch as a CUDA graph. Where that fails, it is launched kernel by
            kernel.

    Raises:
        torch.OutOfMemoryError: The GPU's memory does not suffice for a full batch.
    """

    @torch.inference_mode()
    def __init__(
        self, program: Program, device: torch.device, batch_size: int, image_size: int, *, capture: bool
    ) -> None:
        super().__init__(program.plain, device)
        self._program = program
        self._batch_size = batch_size
        self._graph: torch.cuda.CUDAGraph | None = None
        self._output: Tensor | None = None
        shape = (batch_size, image_size, image_size, 3)
        with torch.cuda.device(device):
            self._compute, self._copy = torch.cuda.Stream(), torch.cuda.Stream()
            self._input = torch.zeros(shape, dtype=torch.uint8, device=device)
            self._buffers = deque(
                _Buffer(
                    torch.zeros(shape, dtype=torch.uint8, pin_memory=True),
                    torch.zeros(shape, dtype=torch.uint8, device=device),
                )
                for _ in range(BUFFERS)
            )
            torch.cuda.synchronize()  # the weights and buffers are there before other streams read them
            self._warm_up()
            if capture:
                self._try_capture()

    def is_free(self) -> bool:
        """Return whether the next buffer's last batch has been copied."""
        return bool(self._buffers[0].copied.query())  # true of an event that was never recorded, too

    @torch.inference_mode()
    def launch(self, images: Pixels) -> Pending:
        """Start the copy and the computation of a batch, and the copy of its results."""
        buffer, count = self._buffers[0], len(images)
        self._buffers.rotate(-1)
        buffer.host.numpy()[:count] = images
        with torch.cuda.stream(self._copy):  # makes the stream's GPU the current one, too
            self._copy.wait_event(buffer.read)
            buffer.device[:count].copy_(buffer.host[:count], non_blocking=True)
            buffer.copied.record(self._copy)
        with torch.cuda.stream(self._compute):
            self._compute.wait_event(buffer.copied)
            self._input[:count].copy_(buffer.device[:count])
            buffer.read.record(self._compute)
            values = self._run(count)
            result = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            result.copy_(values, non_blocking=True)
            done = torch.cuda.Event()
            done.record(self._compute)
        return Pending(result, done)

    def close(self) -> None:
        """Wait until the GPU is idle, and drop the graph with its memory."""
        torch.cuda.synchronize(self._device)
        self._graph = self._output = None
        self._buffers.clear()

    def _run(self, count: int) -> Tensor:
        """Return the results of the first images of the input. What stands behind them is computed and left out."""
        size = fill_up(count, self._batch_size)
        if size < self._batch_size:
            return self._forward(self._input[:size])[:count]
        if self._graph is None:
            return self._program.run_full(self._input)[:count]
        assert self._output is not None
        self._graph.replay()
        return self._output[:count]

    def _warm_up(self) -> None:
        with torch.cuda.stream(self._compute):
            for _ in range(WARM_UP_RUNS):
                self._program.run_full(self._input)
        torch.cuda.synchronize()

    def _try_capture(self) -> None:
        graph = torch.cuda.CUDAGraph()
        forward = self._program.fast or self._program.plain  # not run_full: a failed capture says nothing of `fast`
        try:
            # The stream of the warm-up: libraries keep their work space by stream, and two towers must not share one.
            # thread_local: what other threads do on this GPU or another meanwhile is no error.
            # The outer context restores the stream even where the inner one fails to end the capture.
            with (
                torch.cuda.stream(self._compute),
                torch.cuda.graph(graph, stream=self._compute, capture_error_mode="thread_local"),
            ):
                output = forward(self._input)
        except Exception as error:  # a capture fails in as many ways as there are libraries in it
            graph.reset()  # where it is the memory that was short, nothing of it must stay
            _failed.append(graph)
            if is_out_of_memory(error):
                raise
            logger.warning("no CUDA graph can be made here; going on without, more slowly (%s)", error)
            self._compute = torch.cuda.Stream()  # the other one may still be in the state of the capture
            return
        self._graph, self._output = graph, output


def fill_up(count: int, batch_size: int) -> int:
    """Return how many images are computed for so many: all of a batch, or one of few smaller sizes.

    Example:
        >>> [fill_up(count, 256) for count in (256, 129, 128, 5)]
        [256, 256, 128, 32]
    """
    sizes = [max(1, batch_size >> halving) for halving in range(HALVINGS + 1)]
    return min(size for size in sizes if size >= count)
