import contextlib
import threading

import numpy as np
import pytest

from tastemaker.errors import ModelError
from tastemaker.models.clip import load_clip
from tastemaker.models.clip_openvino import OpenVinoClip
from tastemaker.models.hub import CLIP_VIT_L14, weights_path
from tastemaker.models.replicas import ReplicatedClip
from tastemaker.testing import TINY


class GatedTower:
    """A tower whose calls wait until the test opens the gate. It counts them."""

    config = TINY
    precision = "f32"
    device = "cpu"
    batch_size = 8
    concurrency = 2

    def __init__(self):
        self.calls = 0
        self.gate = threading.Event()
        self.started = threading.Semaphore(0)
        self.is_cancelled = False

    def embed(self, pixels):
        self.calls += 1
        self.started.release()
        assert self.gate.wait(10)
        if self.is_cancelled:
            raise ModelError("the inference was cancelled")
        return np.full((len(pixels), 768), self.calls, np.float32)

    def cancel(self):
        self.is_cancelled = True
        self.gate.set()

    def describe(self):
        return {"backend": "fake", "device": "fake GPU", "precision": "f32"}


PIXELS = np.zeros((2, 224, 224, 3), np.uint8)


@pytest.fixture
def towers():
    return [GatedTower(), GatedTower(), GatedTower()]


def start_calls(clip, towers, count):
    threads = [threading.Thread(target=lambda: _quiet(clip), daemon=True) for _ in range(count)]
    for number, thread in enumerate(threads):
        thread.start()
        assert towers[number % len(towers)].started.acquire(timeout=10)
    return threads


def _quiet(clip):
    with contextlib.suppress(ModelError):
        clip.embed(PIXELS)


def test_each_call_goes_to_the_device_with_the_fewest_under_way(towers):
    clip = ReplicatedClip(towers)
    threads = start_calls(clip, towers, 6)
    assert [tower.calls for tower in towers] == [2, 2, 2]
    towers[1].gate.set()  # this one is done with its calls, so that the next two are its
    threads[1].join(10)
    threads[4].join(10)
    clip.embed(PIXELS)
    clip.embed(PIXELS)
    assert [tower.calls for tower in towers] == [2, 4, 2]
    for tower in towers:
        tower.gate.set()


def test_a_call_that_fails_is_under_way_no_more(towers):
    clip = ReplicatedClip(towers[:2])
    towers[0].cancel()
    for _ in range(3):
        with pytest.raises(ModelError, match="cancelled"):
            clip.embed(PIXELS)
    assert [tower.calls for tower in towers[:2]] == [3, 0]


def test_cancel_reaches_every_device(towers):
    clip = ReplicatedClip(towers)
    threads = start_calls(clip, towers, 3)
    clip.cancel()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert all(tower.is_cancelled for tower in towers)


def test_the_number_of_devices_is_stated(towers):
    clip = ReplicatedClip(towers)
    assert clip.describe() == {"backend": "fake", "device": "3 x fake GPU", "precision": "f32"}
    assert (clip.batch_size, clip.concurrency) == (8, 6)


def test_replicas_give_what_one_tower_gives(model_dir):
    weights = weights_path(CLIP_VIT_L14, model_dir)
    pixels = np.random.default_rng(0).integers(0, 256, (9, 224, 224, 3), np.uint8)
    clip = ReplicatedClip([OpenVinoClip(weights, "f32", threads=1) for _ in range(2)])
    expected, results = load_clip(weights, "cpu", "f32").embed(pixels), []
    threads = [threading.Thread(target=lambda: results.append(clip.embed(pixels))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(np.array_equal(result, expected) for result in results)
