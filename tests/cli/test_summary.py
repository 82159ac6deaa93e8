"""What is printed at the end of a run."""

from tastemaker.cli.summary import print_summary
from tastemaker.cli.verify import print_report
from tastemaker.executors.timing import StageTiming
from tastemaker.parity import ParityReport
from tastemaker.runs.summary import RunSummary


def test_in_a_narrow_terminal_no_number_is_cut_off(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    percentiles = {percentile: 4 + percentile / 100 for percentile in (1, 5, 10, 25, 50, 75, 90, 95, 99)}
    summary = RunSummary("out", 40, 40, percentiles=percentiles, stages=[StageTiming("image_reader")])
    print_summary(summary, as_json=False, verbose=True)
    printed = capsys.readouterr().out
    assert all(f"{score:.2f}" in printed for score in percentiles.values())
    assert "image_reader" in printed
    assert "…" not in printed


def test_few_images_are_told_to_say_little(capsys):
    way = {"precision": "f32", "device": "cpu", "backend": "openvino"}
    spread = {"median": 0.0, "p99": 0.0, "maximum": 0.0}
    for images in (3, 30):
        print_report(ParityReport(images, way, way, spread, {}, 1.0, 1.0), "your images")
        assert ("3 images say little of others" in capsys.readouterr().out) == (images == 3)
