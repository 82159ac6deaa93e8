"""Batches, padding, memory that runs out and threads, on a processor. `test_gpu.py` has the same for GPUs."""

import threading
import time

import numpy as np
import pytest

from tastemaker.errors import ModelError

torch = pytest.importorskip("torch")

from tastemaker.models.torch_runner import (  # noqa: E402
    BatchRunner,
    DirectLane,
    Pending,
    is_out_of_memory,
)

CPU = torch.device("cpu")


def make_images(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), np.uint8)


def sums(batch):
    """(n, 1): what a wrong order, a lost image or a filled-up batch would change."""
    return batch.flatten(1).sum(1, keepdim=True).float()


def expected_sums(images):
    return images.reshape(len(images), -1).sum(1, keepdims=True).astype(np.float32)


def runner_of(forward, batch_size):
    return BatchRunner(lambda _size: DirectLane(forward, CPU), batch_size)


class SmallMemory:
    """A function that runs out of memory above a number of images."""

    def __init__(self, limit):
        self.limit = limit
        self.sizes = []

    def __call__(self, batch):
        self.sizes.append(len(batch))
        if len(batch) > self.limit:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return sums(batch)


# Batches


@pytest.mark.parametrize("count", [1, 8, 41])
@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_images_come_back_in_order_whatever_the_batch(count, batch_size):
    images = make_images(count)
    assert np.array_equal(runner_of(sums, batch_size).run(images), expected_sums(images))


# Memory


def test_a_batch_too_large_for_the_memory_is_halved_until_it_fits(caplog):
    forward, images = SmallMemory(limit=5), make_images(41)
    runner = runner_of(forward, 32)
    assert np.array_equal(runner.run(images), expected_sums(images))
    assert runner.batch_size == 4
    assert [record.args for record in caplog.records] == [(16,), (8,), (4,)]
    forward.sizes.clear()
    runner.run(images[:8])
    assert forward.sizes == [4, 4]  # the halved size stays


def test_no_memory_for_one_image_is_an_error_with_a_way_on():
    runner = runner_of(SmallMemory(limit=0), 4)
    for _ in range(2):
        with pytest.raises(ModelError, match="does not suffice for one image; free some, or use device='cpu'"):
            runner.run(make_images(3))


def test_an_error_that_came_of_full_memory_is_known_as_one():
    error = RuntimeError("the capture was invalidated")
    error.__context__ = torch.cuda.OutOfMemoryError("CUDA out of memory.")
    assert is_out_of_memory(error)
    for text in (
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        'NVML_SUCCESS == r INTERNAL ASSERT FAILED at "../c10/cuda/CUDACachingAllocator.cpp":838',
    ):
        assert is_out_of_memory(RuntimeError(text)), text
    assert not is_out_of_memory(RuntimeError("CUDA error: unspecified launch failure"))
    assert not is_out_of_memory(None)


# Threads


class SlowLane:
    """A lane whose results are there when the test says so, like those of a GPU."""

    def __init__(self):
        self.launched = []
        self.may_finish = threading.Event()

    def is_free(self):
        return len(self.launched) < 2 or self.may_finish.is_set()

    def launch(self, images):
        self.launched.append(len(images))
        return Pending(sums(torch.from_numpy(images)), Query(self.may_finish))

    def close(self):
        pass


class Query:
    def __init__(self, event):
        self.query = event.is_set


def start(target):
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_thread_launches_while_another_waits_for_its_results():
    lane, results = SlowLane(), {}
    runner, images = BatchRunner(lambda _size: lane, 8), make_images(16)
    threads = [start(lambda n=n: results.update({n: runner.run(images[n * 8 : n * 8 + 8])})) for n in range(2)]
    wait_until(lambda: len(lane.launched) == 2)
    assert not results
    lane.may_finish.set()
    for thread in threads:
        thread.join()
    assert np.array_equal(np.concatenate([results[0], results[1]]), expected_sums(images))


def test_cancel_ends_a_wait_for_results():
    lane, errors = SlowLane(), []
    runner = BatchRunner(lambda _size: lane, 8)

    def run():
        try:
            runner.run(make_images(64))
        except ModelError as error:
            errors.append(str(error))

    thread = start(run)
    wait_until(lambda: len(lane.launched) == 2)
    runner.cancel()
    thread.join(10)
    assert errors == ["the inference was cancelled"]
    with pytest.raises(ModelError, match="cancelled"):
        runner.run(make_images(1))


def test_threads_that_run_out_of_memory_together_lose_nothing():
    runner, images, results = runner_of(SmallMemory(limit=3), 32), make_images(50), []
    threads = [start(lambda: results.append(runner.run(images))) for _ in range(4)]
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(np.array_equal(result, expected_sums(images)) for result in results)
