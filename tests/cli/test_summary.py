"""What is printed at the end of a run."""

import pytest

from tastemaker.cli.summary import print_summary
from tastemaker.executors.timing import StageTiming
from tastemaker.runs.summary import RunSummary


@pytest.mark.parametrize(("crossed", "is_told"), [(502.75, True), (0.0, False)])
def test_bytes_that_crossed_processes_are_told_where_there_are_other_processes(capsys, crossed, is_told):
    print_summary(RunSummary("out", 40, 40, stages=[StageTiming("image_reader")], bytes_per_image=crossed), False)
    printed = capsys.readouterr().out
    assert ("502.75 bytes of tasks and results crossed processes an image" in printed) == is_told
    assert "image_reader" in printed
