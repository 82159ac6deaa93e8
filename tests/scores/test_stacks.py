"""Bursts, brackets, and raws with their JPEGs: which frames belong together, and which is the best."""

from datetime import datetime, timedelta

import numpy as np
import pyarrow.parquet as pq
import pytest
from rows import make_image, write_rows

from tastemaker import ScoreTable, Selection, best_of_group, select_images
from tastemaker.imaging.shots import Shot
from tastemaker.imaging.signals import SIGNAL_NAMES
from tastemaker.scores.stacks import find_stacks

NOON = datetime(2026, 5, 1, 12)


def frame(number, score=5.0, *, seconds=None, sharp=0.1, clipped=0.0, contrast=0.8, bias=None, path=None, kind="JPEG"):
    """Return a picture that looks like all others of these tests."""
    taken = None if seconds is None else NOON + timedelta(seconds=seconds)
    image = make_image(number, score, shot=Shot(captured_at=taken, exposure_bias_ev=bias))
    image.signals = dict.fromkeys(SIGNAL_NAMES, 0.5) | {
        "subject_sharpness": sharp,
        "exposure": clipped,
        "contrast": contrast,
    }
    image.embedding = np.full(768, 768**-0.5, np.float32)
    image.image_path, image.format = path or image.image_path, kind
    return image


@pytest.fixture
def choose(tmp_path):
    """Return what `select --best-of-group` writes of frames: their numbers, groups and reasons."""

    def choose(*frames):
        path = write_rows(tmp_path / "rows.parquet", frames, signals=True, embeddings=True)
        select_images(
            ScoreTable(path), tmp_path / "best.parquet", Selection(best_of_group=True), kind="manifest", overwrite=True
        )
        best = pq.read_table(tmp_path / "best.parquet").to_pydict()
        return best["image_path"], best["group"], best["best_reason"]

    return choose


def name(number):
    return f"photos/{number:05d}.jpg"


def test_the_sharpest_frame_is_chosen_whatever_its_score(choose):
    assert choose(frame(0, 7.0, sharp=0.1), frame(1, 4.0, sharp=0.2), frame(2, 6.0, sharp=0.15)) == (
        [name(1)],
        [0],
        ["sharpest of 3"],
    )


def test_the_score_decides_between_frames_that_are_as_sharp(choose):
    frames = frame(0, 5.0, sharp=0.2), frame(1, 6.0, sharp=0.195), frame(2, 7.0, sharp=0.1)
    assert choose(*frames)[::2] == ([name(1)], ["highest score of 3"])


def test_frames_that_are_exposed_worse_are_set_aside_first(choose):
    frames = frame(0, 5.0), frame(1, 6.0, sharp=0.5, contrast=0.15), frame(2, 7.0, sharp=0.3, clipped=0.3)
    assert choose(*frames)[::2] == ([name(0)], ["best exposed of 3"])


def test_without_measurements_the_score_alone_counts():
    best = best_of_group([0, 0, 1], [5.0, 6.0, 4.0], {"subject_sharpness": np.array([0.2, np.nan, 0.1])})
    assert (best.marks.tolist(), best.reasons.tolist()) == ([False, True, True], [None, "highest score of 2", None])


def test_pictures_that_look_alike_are_one_stack_only_while_they_follow_one_another(choose):
    frames = [frame(number, seconds=seconds) for number, seconds in enumerate((0, 0.2, 50, 300, 301, None))]
    paths, groups, _ = choose(*frames)
    assert (paths, groups) == ([name(0), name(3)], [0, 3])  # who has no time is with the earliest


def test_the_middle_of_a_bracket_is_chosen(choose):
    bracket = [frame(n, 5 + n, seconds=n / 2, bias=bias, sharp=0.1 + n) for n, bias in enumerate((0.0, -2.0, 2.0))]
    assert choose(*bracket)[::2] == ([name(0)], ["middle of a bracket of 3"])
    slow = [frame(n, seconds=9 * n, bias=bias, sharp=0.1 + n) for n, bias in enumerate((0.0, -2.0, 2.0))]
    assert choose(*slow)[2] == ["sharpest of 3"]


def test_a_bracket_is_a_stack_of_its_own_whatever_its_frames_look_like(choose):
    biases = (0.0, 0.0, 0.0, -2.0, 2.0, 0.0, -2.0, 2.0)  # two frames, and two brackets, one right after the other
    frames = [frame(n, seconds=n / 2, bias=bias, sharp=0.1 + n) for n, bias in enumerate(biases)]
    frames[4].embedding = np.eye(1, 768, dtype=np.float32)[0]
    paths, groups, reasons = choose(*frames)
    assert (paths, groups) == ([name(1), name(2), name(5)], [0, 2, 5])
    assert reasons == ["sharpest of 2", *["middle of a bracket of 3"] * 2]


def test_shots_are_counted_and_compared_not_their_files(choose):
    frames = []
    for n, bias in enumerate((0.0, -2.0, 2.0)):
        frames.append(frame(2 * n, seconds=n, bias=bias, path=f"a/{n}.JPG"))
        frames.append(frame(2 * n + 1, seconds=n, bias=bias, path=f"a/{n}.CR2", kind="CR2", sharp=0.2 + n))
    assert choose(*frames)[::2] == (["a/0.JPG", "a/0.CR2"], ["middle of a bracket of 3", None])
    burst = [frame(0, path="a/0.JPG", sharp=0.2), frame(1, path="a/0.X3F", kind="X3F", seconds=1, sharp=0.1)]
    burst += [frame(2, path="a/1.JPG"), frame(3, path="a/1.X3F", kind="X3F", sharp=0.9)]  # a smaller preview is sharper
    assert choose(*burst)[::2] == (["a/0.JPG", "a/0.X3F"], ["sharpest of 2", None])


def test_both_files_of_the_best_shot_stay(choose, tmp_path):
    frames = [
        frame(0, seconds=0, path="a/IMG_1.JPG"),
        frame(1, seconds=0, path="a/IMG_1.CR2", kind="CR2"),
        frame(2, seconds=1, path="a/IMG_2.JPG", sharp=0.2),
        frame(3, seconds=1, path="a/IMG_2.CR2", kind="CR2"),
    ]
    assert choose(*frames)[0] == ["a/IMG_2.JPG", "a/IMG_2.CR2"]
    frames[3].embedding = np.eye(1, 768, dtype=np.float32)[0]  # unlike the others, and yet of the same shot
    write_rows(tmp_path / "raw.parquet", frames, signals=True, embeddings=True)
    assert find_stacks(ScoreTable(tmp_path / "raw.parquet"), np.arange(4)).tolist() == [0, 0, 0, 0]
