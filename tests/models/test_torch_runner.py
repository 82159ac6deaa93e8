"""Batches, padding, memory that runs out and threads, on a processor. `test_gpu.py` has the same for GPUs."""

import threading

import numpy as np
import pytest

from tastemaker.errors import ModelError

torch = pytest.importorskip("torch")

from tastemaker.models.torch_runner import (  # noqa: E402
    BatchRunner,
    Lane,
    Program,
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
    return BatchRunner(lambda _size: Lane(forward, CPU), batch_size)


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


def test_a_compiler_that_fails_is_told_once_and_done_without(caplog):
    def broken(_batch):
        raise OSError("no C compiler")

    program, batch = Program(sums, broken), torch.from_numpy(make_images(16))
    for _ in range(2):
        assert torch.equal(program.run_full(batch), sums(batch))
    [record] = caplog.records
    assert "torch.compile does not work here" in record.getMessage()
    assert "no C compiler" in record.getMessage()


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


def start(target):
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def test_threads_that_run_out_of_memory_together_lose_nothing():
    runner, images, results = runner_of(SmallMemory(limit=3), 32), make_images(50), []
    threads = [start(lambda: results.append(runner.run(images))) for _ in range(4)]
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(np.array_equal(result, expected_sums(images)) for result in results)
