"""What a run tells of itself when it is over."""

import json
from dataclasses import asdict

import pandas as pd
import pytest
from conftest import make_tar

from tastemaker.executors.timing import StageTiming
from tastemaker.scores.run import RunOptions, run_scoring
from tastemaker.scores.runfile import RUN_FILE
from tastemaker.scores.summary import describe_bottleneck


@pytest.fixture
def shard(tmp_path, photographs):
    return make_tar(tmp_path / "a.tar", list(photographs.items()))


def test_the_file_of_a_run_tells_what_it_did_and_where_its_time_went(tmp_path, shard, model_dir):
    output = tmp_path / "out"
    summary = run_scoring([str(shard)], output, RunOptions(model_dir=str(model_dir)))
    record = json.loads((output / RUN_FILE).read_text())
    assert record["summary"] == json.loads(json.dumps(asdict(summary)))
    assert [stage["name"] for stage in record["summary"]["stages"]] == [
        *("image_reader", "image_embedding", "image_parity", "image_aesthetic_filter", "image_writer")
    ]
    assert summary.stages[1].setup_s > 0
    assert record["inputs"] == [str(shard)]
    assert record["machine"]["cores"] >= 1
    assert len(pd.read_parquet(output)) == summary.images  # the file is not in the way of readers of a directory


def test_a_run_with_nothing_left_to_do_names_no_bottleneck(tmp_path, shard, model_dir):
    for _ in range(2):
        summary = run_scoring([str(shard)], tmp_path / "out", RunOptions(model_dir=str(model_dir)))
    assert summary.stages == []
    assert summary.bottleneck == ""


def test_the_bottleneck_is_the_stage_that_worked_longest_and_comes_with_a_remedy():
    timings = [StageTiming("image_reader", busy_s=3, waiting_for_output_s=7), StageTiming("image_embedding", busy_s=10)]
    assert describe_bottleneck(timings).startswith("image_embedding worked 100% of the time; a GPU")
    timings[0].busy_s = 30
    assert describe_bottleneck(timings).startswith("image_reader worked 81% of the time; faster storage")
