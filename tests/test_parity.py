"""The parity certificate: its figures, its verdict, and what uses it."""

import json
import time
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import make_tar, write_predictor
from typer.testing import CliRunner

from tastemaker.cli import app
from tastemaker.errors import ConfigurationError
from tastemaker.imaging.decode import decode_image
from tastemaker.imaging.preprocess import preprocess
from tastemaker.models.aesthetic import AestheticPredictor
from tastemaker.models.clip_openvino import OpenVinoClip
from tastemaker.models.clip_plain import PlainClip
from tastemaker.models.hub import weights_path
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
from tastemaker.parity import Embedded, built_in_sample, compare_embeddings, sample_images, verify_parity
from tastemaker.runs.run import RunOptions, run_scoring
from tastemaker.stages.parity import ImageParityStage
from tastemaker.tasks import ImageBatch, ImageObject


def predictor(slope=1.0):
    """Scores an embedding by the angle in its first plane: 5 plus or minus the slope."""
    weight = np.zeros((1, 768))
    weight[0, 0] = slope
    return AestheticPredictor([(weight, np.array([5.0]))])


def unit_vectors(*firsts):
    vectors = np.zeros((len(firsts), 768), np.float32)
    vectors[:, 0] = firsts
    vectors[:, 1] = np.sqrt(1 - vectors[:, 0] ** 2)
    return vectors


@pytest.fixture
def steep(model_dir, tmp_path):
    """A predictor that makes much of little."""
    return write_predictor(model_dir, tmp_path / "steep.safetensors", 1000)


def compare(exact, chosen, slope=1.0):
    way = {"backend": "b", "device": "cpu", "precision": "p"}
    return compare_embeddings(
        Embedded(unit_vectors(*exact), way), Embedded(unit_vectors(*chosen), way), predictor(slope)
    )


def test_equal_embeddings_do_not_differ():
    report = compare([0.1, 0.2, 0.3], [0.1, 0.2, 0.3])
    assert report.score_difference == {"median": 0, "p99": 0, "maximum": 0}
    assert report.cosine_distance["maximum"] < 1e-12
    assert report.rank_correlation == pytest.approx(1)
    assert set(report.side_changes.values()) == {0}
    assert report.is_within_tolerance


def test_differences_are_those_of_the_scores_and_angles():
    report = compare([0.0, 0.5, 0.6], [0.0, 0.53, 0.58])
    assert report.score_difference == pytest.approx({"median": 0.02, "p99": 0.0298, "maximum": 0.03}, abs=1e-4)
    expected = 1 - (0.5 * 0.53 + np.sqrt((1 - 0.5**2) * (1 - 0.53**2)))
    assert report.cosine_distance["maximum"] == pytest.approx(expected, rel=1e-3)
    assert not report.is_within_tolerance  # the median


def test_one_large_difference_is_beyond_the_tolerance():
    assert compare([0.1] * 9, [0.1] * 8 + [0.149]).is_within_tolerance
    assert not compare([0.1] * 9, [0.1] * 8 + [0.151]).is_within_tolerance


def test_images_that_change_side_are_counted_at_each_cut():
    report = compare([-0.51, -0.49, 0.01, 0.49], [-0.49, -0.51, -0.01, 0.5])
    assert report.side_changes == {"4.5": 2, "5.0": 1, "5.5": 1, "6.0": 0, "6.5": 0}


@pytest.mark.parametrize(("chosen", "expected"), [([1, 2, 3, 4], 1), ([4, 3, 2, 1], -1), ([1, 1, 3, 4], 0.9487)])
def test_the_rank_correlation_is_spearmans(chosen, expected):
    report = compare([0.1, 0.2, 0.3, 0.4], np.array(chosen) / 10)
    assert report.rank_correlation == pytest.approx(expected, abs=1e-4)


def test_one_image_or_equal_scores_have_no_rank_correlation():
    assert compare([0.1], [0.2]).rank_correlation is None
    assert compare([0.1, 0.1], [0.2, 0.3]).rank_correlation is None


def test_the_plain_tower_and_the_fast_one_agree(model_dir):
    weights, pixels = weights_path(CLIP_VIT_L14, model_dir), built_in_sample(3).exact
    plain = PlainClip(weights).embed(pixels)
    assert np.abs(plain - OpenVinoClip(weights, "f32").embed(pixels)).max() < 1e-6
    assert np.abs(np.linalg.norm(plain, axis=1) - 1).max() < 1e-6


def test_built_in_pictures_are_the_same_every_time_and_of_many_kinds():
    pixels = built_in_sample(8).exact
    assert np.array_equal(pixels, built_in_sample(8).exact)
    assert np.ptp(pixels.mean(axis=(1, 2, 3))) > 40
    assert pixels.std(axis=(1, 2)).min() > 5


def test_a_sample_is_spread_over_shards_and_leaves_out_what_cannot_be_read(tmp_path, photographs):
    jpegs = [data for name, data in photographs.items() if name.endswith("png")]
    for number in range(4):
        members = [(f"{n}.png", jpegs[number % len(jpegs)]) for n in range(3)]
        make_tar(tmp_path / f"{number}.tar", [("a.jpg", b"no image"), *members])
    sample = sample_images([str(tmp_path)], 4)
    expected = [preprocess(decode_image(jpegs[number % len(jpegs)]).pixels) for number in range(4)]
    assert np.array_equal(sample.exact, np.stack(expected))
    assert len(sample_images([str(tmp_path)], 100).exact) == 12


def test_a_sample_without_images_is_an_error(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"nothing")
    with pytest.raises(ConfigurationError, match="no image of"):
        sample_images([str(tmp_path)], 4)
    with pytest.raises(ConfigurationError, match="0 images"):
        sample_images([str(tmp_path)], 0)


def test_the_exact_precision_is_within_the_tolerance_of_itself(model_dir):
    done = []
    report = verify_parity(built_in_sample(9), model_dir=str(model_dir), precision="f32", on_progress=done.append)
    assert report.images == 9
    assert report.score_difference["maximum"] < 1e-4
    assert (report.exact["backend"], report.chosen["backend"]) == ("numpy", "openvino")
    assert min(report.exact_images_per_s, report.chosen_images_per_s) > 0
    assert done == [8, 9, 17, 18]


# The command


def test_verify_prints_the_figures_and_ends_with_the_verdict(model_dir, photo_folder):
    arguments = ["verify", "--images", str(photo_folder), "--limit", "4", "--model-dir", str(model_dir)]
    result = CliRunner().invoke(app, [*arguments, "--precision", "f32"])
    assert result.exit_code == 0, result.output
    for part in ("4 images", "numpy", "openvino", "score difference", "rank correlation", "0 at 6.5", "within the"):
        assert part in result.stdout
    record = json.loads(CliRunner().invoke(app, [*arguments, "--precision", "f32", "--json"]).stdout)
    assert record["is_within_tolerance"] is True
    assert record["images"] == 4


def test_verify_ends_with_1_beyond_the_tolerance(model_dir, steep):
    arguments = ["verify", "--limit", "4", "--model-dir", str(model_dir), "--predictor", str(steep)]
    result = CliRunner().invoke(app, [*arguments, "--precision", "int8"])
    assert result.exit_code == 1
    assert "beyond the tolerance" in result.stdout


# In a run


def batch_of(photographs, precision="bf16"):
    images = [ImageObject(name, name, encoded=data) for name, data in photographs.items()]
    for image in images:
        image.embedding = unit_vectors(0.5)[0]
    return ImageBatch("d", images, _metadata={"provenance": {"precision": precision}})


def test_a_reduced_precision_is_compared_on_as_many_images_as_its_share_of_time_allows(model_dir, photographs):
    stage = ImageParityStage(str(model_dir))
    stage.setup()
    assert stage.process(batch_of(photographs)).num_items == len(photographs)
    assert stage.report is None  # there was no time yet
    stage._started -= 1e6
    task = stage.process(batch_of(photographs))
    assert 1 <= stage.report.images <= 6
    assert task._metadata["provenance"]["parity"]["images"] == stage.report.images


def test_the_sample_has_its_limit_and_what_cannot_be_read_is_left_out(model_dir, photographs):
    stage = ImageParityStage(str(model_dir), max_images=2)
    stage.setup()
    stage._started -= 1e6
    broken = batch_of({"a": b"no image"})
    assert stage.process(broken) is broken
    assert stage.report is None
    for _ in range(3):
        stage.process(batch_of(photographs))
    assert stage.report.images == 2


def test_nothing_is_compared_in_f32(model_dir, photographs):
    stage = ImageParityStage(str(model_dir))
    stage.setup()
    stage._started -= 1e6
    stage.process(batch_of(photographs, "f32"))
    assert stage.report is None


def test_the_time_that_images_took_counts_against_the_share(model_dir, photographs):
    stage = ImageParityStage(str(model_dir), max_time_share=0.02)
    stage.setup()
    started = stage._started = time.monotonic() - 201  # time for one of 4 s
    stage.process(batch_of(photographs))
    assert stage.report.images >= 1
    assert stage._spent_s <= 0.02 * (time.monotonic() - started) + stage._slowest_s


def test_an_image_that_takes_longer_than_its_share_is_given_up_and_tried_with_more_time(model_dir, photographs):
    stage = ImageParityStage(str(model_dir))
    stage.setup()
    stage._slowest_s = 0.0  # begins at once, and has no time
    stage.process(batch_of(photographs))
    assert stage.report is None
    assert 0 < stage._spent_s <= stage._slowest_s
    stage._started -= 1e6
    stage.process(batch_of(photographs))
    assert stage.report.images >= 1


def test_a_run_in_int8_states_its_parity_and_is_refused_beyond_the_tolerance(model_dir, photo_folder, tmp_path, steep):
    gentle = write_predictor(model_dir, tmp_path / "gentle.safetensors", 0.1)  # on every processor
    options = RunOptions(model_dir=str(model_dir), precision="int8", predictor=str(gentle))
    run_scoring([str(photo_folder)], tmp_path / "out", options)
    (rows,) = (tmp_path / "out").glob("*.parquet")
    made_by = json.loads(pq.read_schema(rows).metadata[b"tastemaker"])
    assert made_by["precision"] == "int8"
    assert made_by["parity"]["images"] == 7
    with pytest.raises(ConfigurationError, match="int8' moves the scores of 7 of these images by"):
        run_scoring([str(photo_folder)], tmp_path / "refused", replace(options, predictor=str(steep)))
    assert not list((tmp_path / "refused").glob("*.parquet"))
