"""The parity certificate: its figures, its verdict, and what uses it."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import make_tar, write_predictor
from typer.testing import CliRunner

from tastemaker.cli import app
from tastemaker.cli.verify import print_report
from tastemaker.errors import ConfigurationError
from tastemaker.models.published import find_scorer
from tastemaker.parity import Scored, compare_scores, find_certificate, verify_parity
from tastemaker.runs.run import RunOptions, run_scoring

CUTOFFS = find_scorer().customary_cutoffs


@pytest.fixture(autouse=True)
def _own_certificates(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def steep(model_dir, tmp_path):
    """A predictor that makes much of little."""
    return write_predictor(model_dir, tmp_path / "steep.safetensors", 1000)


def compare(exact, chosen):
    way = {"backend": "b", "device": "cpu", "precision": "p"}
    return compare_scores(*(Scored(np.array(scores, np.float32), way, 1.0) for scores in (exact, chosen)), CUTOFFS)


def test_differences_are_those_of_the_scores():
    report = compare([5.0, 5.5, 5.6], [5.0, 5.53, 5.58])
    assert report.score_difference == pytest.approx({"median": 0.02, "p99": 0.0298, "maximum": 0.03}, abs=1e-4)
    assert not report.is_within_tolerance  # the median


def test_one_large_difference_is_beyond_the_tolerance():
    assert compare([5.1] * 9, [5.1] * 8 + [5.149]).is_within_tolerance
    assert not compare([5.1] * 9, [5.1] * 8 + [5.151]).is_within_tolerance


def test_images_that_change_side_are_counted_at_each_cut():
    report = compare([4.49, 4.51, 5.01, 5.49], [4.51, 4.49, 4.99, 5.5])
    assert report.side_changes == {"4.5": 2, "5.0": 1, "6.0": 0, "6.5": 0}


def test_images_are_spread_over_shards_and_what_cannot_be_read_is_left_out(tmp_path, photographs, model_dir):
    jpegs = [data for name, data in photographs.items() if name.endswith("png")]
    for number in range(4):
        members = [(f"{n}.png", jpegs[number % len(jpegs)]) for n in range(3)]
        make_tar(tmp_path / f"{number}.tar", [("a.jpg", b"no image"), *members])
    way = {"model_dir": str(model_dir), "precision": "f32"}
    assert verify_parity([str(tmp_path)], 4, **way).images == 4
    assert verify_parity([str(tmp_path)], 100, **way).images == 12


def test_a_comparison_without_images_is_an_error(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"nothing")
    with pytest.raises(ConfigurationError, match="no image of"):
        verify_parity([str(tmp_path)], 4)
    with pytest.raises(ConfigurationError, match="limit=0 is less than 1"):
        verify_parity([str(tmp_path)], 0)


def test_the_exact_precision_does_not_differ_from_itself(model_dir):
    done = []
    report = verify_parity((), 9, model_dir=str(model_dir), precision="f32", on_progress=lambda *n: done.append(n))
    assert report.images == 9
    assert report.score_difference["maximum"] == 0
    assert min(report.exact_images_per_s, report.chosen_images_per_s) > 0
    assert done == [(8, 18), (9, 18), (17, 18), (18, 18)]


def test_a_certificate_is_of_its_weights_and_precision_and_of_images_enough(model_dir, steep):
    way = {"model_dir": str(model_dir), "precision": "f32"}
    verify_parity((), 15, **way)
    assert find_certificate(**way) is None
    report = verify_parity((), 16, **way)
    assert find_certificate(**way) == report
    assert find_certificate(**way, scorer=str(steep)) is None
    assert find_certificate(**{**way, "precision": "int8"}) is None


def test_a_comparison_beyond_the_tolerance_takes_the_certificate_away(model_dir, monkeypatch):
    way = {"model_dir": str(model_dir), "precision": "f32"}
    verify_parity((), 16, **way)
    assert find_certificate(**way) is not None
    monkeypatch.setattr("tastemaker.parity.MAX_DIFFERENCE", -1)
    assert not verify_parity((), 16, **way).is_within_tolerance
    assert find_certificate(**way) is None


# The command


def test_verify_prints_the_figures_and_ends_with_the_verdict(model_dir, photo_folder):
    arguments = ["verify", "--images", str(photo_folder), "--limit", "4", "--model-dir", str(model_dir)]
    result = CliRunner().invoke(app, [*arguments, "--precision", "f32"])
    assert result.exit_code == 0, result.output
    for part in ("4 images", "openvino", "score difference", "0 at 6.5", "within the"):
        assert part in result.stdout
    record = json.loads(CliRunner().invoke(app, [*arguments, "--precision", "f32", "--json"]).stdout)
    assert record["is_within_tolerance"] is True
    assert record["images"] == 4


def test_few_images_are_told_to_say_little(capsys):
    for images in (3, 30):
        print_report(compare([5.0] * images, [5.0] * images), "your images")
        assert ("3 images say little of others" in capsys.readouterr().out) == (images == 3)


def test_verify_ends_with_1_beyond_the_tolerance(model_dir, steep):
    arguments = ["verify", "--limit", "4", "--model-dir", str(model_dir), "--scorer", str(steep)]
    result = CliRunner().invoke(app, [*arguments, "--precision", "int8"])
    assert result.exit_code == 1
    assert "beyond the tolerance" in result.stdout


# In a run


def made_by(output):
    (rows,) = output.glob("rows/*.parquet")
    return json.loads(pq.read_schema(rows).metadata[b"tastemaker"])


def test_a_run_states_the_certificate_of_its_precision(model_dir, photo_folder, tmp_path):
    options = RunOptions(model_dir=str(model_dir), precision="f32")
    run_scoring([str(photo_folder)], tmp_path / "before", options)
    assert "parity" not in made_by(tmp_path / "before")
    verify_parity((), 16, model_dir=str(model_dir), precision="f32")
    summary = run_scoring([str(photo_folder)], tmp_path / "after", options)
    assert made_by(tmp_path / "after")["parity"]["images"] == summary.parity.images == 16


def test_a_run_in_int8_states_its_parity_and_is_refused_beyond_the_tolerance(model_dir, photo_folder, tmp_path, steep):
    gentle = write_predictor(model_dir, tmp_path / "gentle.safetensors", 0.1)  # on every processor
    options = RunOptions(model_dir=str(model_dir), precision="int8", scorer=str(gentle))
    run_scoring([str(photo_folder)], tmp_path / "out", options)
    assert made_by(tmp_path / "out")["precision"] == "int8"
    assert made_by(tmp_path / "out")["parity"]["images"] == 7
    with pytest.raises(ConfigurationError, match="int8' moves the scores of 7 of these images by"):
        run_scoring([str(photo_folder)], tmp_path / "refused", replace(options, scorer=str(steep)))
    assert not list((tmp_path / "refused").rglob("*.parquet"))
