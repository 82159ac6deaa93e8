"""What is printed at the end of a run."""

from tastemaker.cli.verify import print_report
from tastemaker.parity import ParityReport


def test_few_images_are_told_to_say_little(capsys):
    way = {"precision": "f32", "device": "cpu", "backend": "openvino"}
    spread = {"median": 0.0, "p99": 0.0, "maximum": 0.0}
    for images in (3, 30):
        print_report(ParityReport(images, way, way, spread, {}, 1.0, 1.0), "your images")
        assert ("3 images say little of others" in capsys.readouterr().out) == (images == 3)
