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


def test_an_image_larger_than_all_the_room_is_worked_on_alone():
    place = Room(100, large_pixels=10)
    with place.hold():
        place.take(500)
        place.take(500)  # of a preview inside it, say: the same thread does not wait for itself
        came = threading.Event()
        thread = take(place, 11, came.set)
        assert not came.wait(SOON_S)
    assert came.wait(10)
    thread.join(10)


def test_room_is_given_back_after_an_error_and_counted_within_a_block_only():
    place = Room(100, large_pixels=10)

    @place.hold()
    def decode_damaged():
        place.take(90)
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        decode_damaged()
    place.take(90)  # in no block: nobody would give it back
    came = threading.Event()
    take(place, 100, came.set).join(10)
    assert came.is_set()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_the_reader_holds_room_for_what_it_decodes(tmp_path, monkeypatch, kind):
    """With room for one image, a second thread has no pixels before the first has its model input."""
    monkeypatch.setattr(decode, "ROOM", place := Room(5000, large_pixels=1000))
    monkeypatch.setattr("tastemaker.stages.read.ROOM", place)
    for number in range(6):
        (tmp_path / f"{number}.{kind.lower()}").write_bytes(encode(np.zeros((60, 70, 3), np.uint8), kind))
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
