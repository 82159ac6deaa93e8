"""Very large images wait for one another, and small ones for nothing."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import encode

from tastemaker.imaging import decode
from tastemaker.imaging.room import Room
from tastemaker.stages.read import ImageReaderStage
from tastemaker.tasks import FileGroupTask

SOON_S = 0.2
"""Long enough that a thread which does not wait has finished."""


def take(place, pixels, then):
    """Start a thread that takes pixels, does something, and gives them back."""

    def work():
        with place.hold():
            place.take(pixels)
            then()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_large_image_waits_until_there_is_room_and_a_small_one_does_not():
    place = Room(100, large_pixels=10)
    first_may_end, came = threading.Event(), threading.Semaphore(0)
    first = take(place, 80, lambda: (came.release(), first_may_end.wait()))
    assert came.acquire(timeout=10)
    beside = take(place, 20, came.release)
    small = take(place, 10, came.release)
    assert came.acquire(timeout=10)
    assert came.acquire(timeout=10)
    beside.join(10), small.join(10)
    waiting = take(place, 21, came.release)
    assert not came.acquire(timeout=SOON_S)
    first_may_end.set()
    assert came.acquire(timeout=10)
    first.join(10), waiting.join(10)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_the_reader_works_on_images_that_need_all_the_room_one_by_one_also_behind_a_damaged_one(
    tmp_path, monkeypatch, kind
):
    """A second thread has no pixels before the first has its model input."""
    monkeypatch.setattr(decode, "ROOM", place := Room(3000, large_pixels=1000))
    monkeypatch.setattr("tastemaker.stages.read.ROOM", place)
    whole = encode(np.zeros((60, 70, 3), np.uint8), kind)
    for number in range(7):
        (tmp_path / f"{number}.{kind.lower()}").write_bytes(whole[:-40] if number == 1 else whole)
    held, most = [], []

    class Watched(ImageReaderStage):
        def setup(self, worker_metadata=None):
            super().setup(worker_metadata)
            make_input = self._make_input

            def watch(pixels, preprocessing):
                held.append(1)
                most.append(len(held))
                made = make_input(pixels, preprocessing)
                held.pop()
                return made

            self._make_input = watch
            self._pool = ThreadPoolExecutor(4)

    files = FileGroupTask("d", sorted(map(str, tmp_path.iterdir())))
    assert sum(len(batch.data) for batch in Watched().stream(files)) == 6
    assert most == [1] * 6
