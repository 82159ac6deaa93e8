"""The measurement of a machine: all parts are there, and the verdict follows from them."""

import io
import json

from PIL import Image
from typer.testing import CliRunner

from tastemaker.bench import explain, make_jpeg, measure_machine
from tastemaker.cli import app
from tastemaker.cli.bench import print_report


def test_every_part_of_the_work_is_measured(model_dir, capsys):
    steps = []
    report = measure_machine(str(model_dir), on_progress=steps.append, each_s=0.02)
    assert steps[0] == "decoding and resizing"
    assert steps[-1] == "a whole run"
    assert list(report["decode"]) == list(report["resize"]) == [512, 1024, 3840]
    assert report["weights"] == "found"
    rates = [*report["decode"].values(), report["shards"], report["run"]["images_per_s"]]
    rates += [rate for model in report["model"].values() if model for rate in model.values()]
    assert min(rates) > 0
    assert report["model"]["f32"].keys() == {1, 8}
    assert report["bottleneck"].split()[0] in ("Decoding", "The")
    print_report(json.loads(json.dumps(report)))
    printed = capsys.readouterr().out
    for part in ("512 pixels", "batch 8", "int8", "whole run", "bottleneck"):
        assert part in printed


def report(model, decode=1000.0, device="cpu"):
    return {
        "machine": {"cores": 2},
        "device": device,
        "decode": {512: decode},
        "resize": {512: decode},
        "model": model,
        "run": {"precision": "f32"},
    }


def test_a_slow_model_is_the_bottleneck_and_a_faster_precision_is_named():
    text = explain(report({"f32": {8: 2.0}, "bf16": None, "int8": {8: 5.0}}))
    assert text.startswith(
        "The model is the bottleneck: it scores 2.0 images/s in f32, and 2 cores could prepare 1,000"
    )
    assert "--precision int8 (5.0 images/s)" in text
    assert text.endswith("A GPU would change it most.")
    assert "--precision" not in explain(report({"f32": {8: 2.0}, "int8": {8: 2.1}}))


def test_slow_decoding_is_the_bottleneck_of_a_fast_model():
    text = explain(report({"f32": {8: 5000.0}}, device="cuda"))
    assert text.startswith(
        "Decoding is the bottleneck: 2 cores prepare 1,000 images/s, and the model could score 5,000"
    )


def test_the_picture_that_is_measured_is_a_jpeg_of_that_size_with_detail():
    data = make_jpeg(512)
    assert Image.open(io.BytesIO(data)).size == (512, 341)
    assert len(data) > 20_000


def test_a_device_that_is_not_there_is_an_error():
    result = CliRunner().invoke(app, ["bench", "--device", "cuda"])
    assert result.exit_code != 0
