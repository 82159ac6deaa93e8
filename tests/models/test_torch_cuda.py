"""The lane to a GPU, on a make-believe GPU whose streams run as late and in as odd an order as they are allowed to."""

import contextlib
import random
from collections import deque

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from tastemaker.models.torch_cuda import CudaLane  # noqa: E402
from tastemaker.models.torch_runner import BatchRunner, Program  # noqa: E402


class Gpu(TorchDispatchMode):
    """Copies, and what `compute` is given, wait in the current stream until they are run."""

    def __init__(self, seed):
        super().__init__()
        self.random = random.Random(seed)
        self.streams, self.current, self.captured = [], None, None

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is not torch.ops.aten.copy_.default:
            return function(*args, **(kwargs or {}))
        target, source = args[0].numpy(), args[1].numpy()
        self.add(lambda: np.copyto(target, source))
        return args[0]

    def add(self, step, is_ready=lambda: True):
        queue = self.current.queue if self.captured is None else self.captured
        queue.append((step, is_ready))

    def compute(self, function, batch):
        result = torch.full((len(batch), 1), torch.nan)
        target, source = result.numpy(), batch.numpy()
        self.add(lambda: np.copyto(target, function(source)))
        return result

    def run(self, steps):
        for _ in range(steps):
            ready = [stream for stream in self.streams if stream.queue and stream.queue[0][1]()]
            if not ready:
                assert not any(stream.queue for stream in self.streams), "the streams wait for each other"
                return
            self.random.choice(ready).queue.popleft()[0]()

    @contextlib.contextmanager
    def use(self, stream):
        self.current, before = stream, self.current
        yield
        self.current = before

    @contextlib.contextmanager
    def capture(self, graph, stream, capture_error_mode):
        assert capture_error_mode == "thread_local"
        assert not any(other.queue for other in self.streams)
        self.captured = graph.steps
        yield
        self.captured = None


@pytest.fixture
def gpu(seed, monkeypatch):
    gpu = Gpu(seed)

    class Stream:
        def __init__(self):
            self.queue = deque()
            gpu.streams.append(self)

        def wait_event(self, event):
            recorded = event.recorded  # what is recorded later is not waited for
            self.queue.append((lambda: None, lambda: event.reached >= recorded))

    class Event:
        def __init__(self):
            self.recorded = self.reached = 0

        def record(self, stream):
            self.recorded += 1
            number = self.recorded
            stream.queue.append((lambda: setattr(self, "reached", number), lambda: True))

        def query(self):
            gpu.run(gpu.random.randrange(4))
            return self.reached >= self.recorded

    class Graph:
        def __init__(self):
            self.steps = []

        def replay(self):
            gpu.current.queue.extend(self.steps)

        def reset(self):
            self.steps.clear()

    for name, value in (("Stream", Stream), ("Event", Event), ("CUDAGraph", Graph), ("stream", gpu.use)):
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.cuda, "graph", gpu.capture)
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: gpu.run(10**6))
    for make in ("zeros", "empty"):  # no pinned memory without a driver
        plain = getattr(torch, make)
        monkeypatch.setattr(
            torch, make, lambda *args, pin_memory=False, plain=plain, **options: plain(*args, **options)
        )
    return gpu


def sums(batch):
    return batch.reshape(len(batch), -1).sum(1, keepdims=True)


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize("capture", [False, True])
def test_no_batch_is_read_before_it_is_there_or_overwritten_before_it_is_read(gpu, capture):
    images = np.random.default_rng(0).integers(0, 256, (61, 2, 2, 3), np.uint8)
    program = Program(lambda batch: gpu.compute(sums, batch))
    with gpu:
        runner = BatchRunner(
            lambda size: CudaLane(program, torch.device("cpu"), size, 2, capture=capture), batch_size=8
        )
        for count in (61, 8, 3, 24):
            assert np.array_equal(runner.run(images[:count]), sums(images[:count]))
        assert runner._lane._graph is not None or not capture
        runner._lane.close()
