"""Same image, same score: whatever batch, order, shard or number of threads it came with."""

import random

import numpy as np
import pandas as pd
import pytest
from conftest import make_tar, write_predictor

from tastemaker.runs.run import RunOptions, run_scoring


@pytest.fixture(scope="module")
def images(photographs):
    """Name -> bytes of 24 images: photographs, and parts of them."""
    import io

    from PIL import Image

    found = dict(photographs)
    for name, data in photographs.items():
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        for part in range(3):
            file = io.BytesIO()
            picture.crop((10 * part, 20 * part, 200 + 31 * part, 230)).save(file, "JPEG")
            found[f"{name.partition('.')[0]}-{part}.jpg"] = file.getvalue()
    return found


@pytest.fixture(scope="module")
def expected(images, model_dir, tmp_path_factory):
    return score(tmp_path_factory.mktemp("expected"), list(images.items()), model_dir)


def score(folder, members, model_dir, column="aesthetic_score", **options):
    """Return name -> score, of a run over two shards."""
    shards = folder / "shards"
    shards.mkdir()
    make_tar(shards / "a.tar", members[:15])
    make_tar(shards / "b.tar", members[15:])
    run_scoring([str(shards)], folder / "out", RunOptions(model_dir=str(model_dir), **{"precision": "f32", **options}))
    rows = pd.read_parquet(folder / "out" / "rows")
    return dict(zip(rows["image_path"].str.rpartition("/")[2], rows[column], strict=True))


def largest_difference(first, second):
    assert first.keys() == second.keys()
    return max(abs(first[name] - second[name]) for name in first)


@pytest.mark.parametrize(("batch_size", "threads"), [(1, 5), (7, 1)])
def test_any_batch_order_and_number_of_threads_gives_the_same_scores(
    tmp_path, images, expected, model_dir, batch_size, threads
):
    members = list(images.items())
    random.Random(batch_size).shuffle(members)
    scores = score(tmp_path, members, model_dir, batch_size=batch_size, threads=threads)
    assert largest_difference(scores, expected) == 0


@pytest.mark.parametrize("precision", ["int8", "auto"])
def test_a_reduced_precision_does_not_look_at_the_batch_either(tmp_path, images, model_dir, precision):
    members = list(images.items())
    gentle = write_predictor(model_dir, tmp_path / "gentle.safetensors", 0.1)  # int8 is within the tolerance of it
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    options = {"column": "gentle", "precision": precision, "scorer": str(gentle)}
    alone = score(tmp_path / "one", members, model_dir, batch_size=1, **options)
    together = score(tmp_path / "two", members[::-1], model_dir, **options)
    assert largest_difference(alone, together) == 0


def test_scores_spread(expected):
    assert np.ptp(list(expected.values())) > 0.1  # or equality would say nothing
