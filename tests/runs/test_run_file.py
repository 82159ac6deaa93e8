"""What a run tells of itself when it is over."""

import json

import pytest
from conftest import make_tar
from tiny import picture

from tastemaker.errors import StageError
from tastemaker.executors.timing import StageTiming
from tastemaker.runs.run import RunOptions, run_scoring
from tastemaker.runs.runfile import RUN_FILE
from tastemaker.runs.summary import describe_bottleneck


@pytest.fixture
def shard(tmp_path):
    return make_tar(tmp_path / "a.tar", [(f"{seed}.jpg", picture(seed)) for seed in range(6)])


def test_the_file_of_a_run_tells_what_it_did_and_where_its_time_went(tmp_path, shard, model_dir):
    output = tmp_path / "out"
    summary = run_scoring([str(shard)], output, RunOptions(model_dir=str(model_dir)))
    record = json.loads((output / RUN_FILE).read_text())
    assert record["summary"] == json.loads(json.dumps(summary.as_json()))
    assert [stage["name"] for stage in record["summary"]["stages"]] == [
        *("image_reader", "image_embedding", "image_aesthetic_filter", "image_writer")
    ]
    assert summary.stages[1].setup_s > 0
    assert record["inputs"] == [str(shard)]
    assert record["machine"]["cores"] >= 1
    assert len(record["fingerprint"]["image_embedding"]["clip_sha256"]) == 64
    assert record["images_per_minute"] == [6]
    assert record["rates"]["image_embedding"] > 0
    assert record["ended"] >= record["started"]
    again = run_scoring([str(shard)], output, RunOptions(model_dir=str(model_dir)))
    assert (again.stages, again.bottleneck) == ([], "")  # nothing was left to do


def test_the_bottleneck_is_the_stage_that_worked_longest_and_comes_with_a_remedy():
    timings = [StageTiming("image_reader", busy_s=3, waiting_for_output_s=7), StageTiming("image_embedding", busy_s=10)]
    assert describe_bottleneck(timings).startswith("image_embedding worked 100% of the time; a GPU")
    timings[0].busy_s = 30
    assert describe_bottleneck(timings).startswith("image_reader worked 81% of the time; faster storage")


def test_it_tells_of_the_runs_before_and_how_they_ended(tmp_path, shard, model_dir, monkeypatch):
    output, options = tmp_path / "out", RunOptions(model_dir=str(model_dir))

    def fail(*_args):
        raise OSError("the disk is broken")

    with monkeypatch.context() as patch:
        patch.setattr("tastemaker.stages.write.RowsFile.commit", fail)
        with pytest.raises(StageError):
            run_scoring([str(shard)], output, options)
    stopped = json.loads((output / RUN_FILE).read_text())
    assert (stopped["state"], stopped["summary"]) == ("stopped", None)
    assert "the disk is broken" in stopped["error"]
    killed = stopped | {"state": "running", "ended": None}  # as a kill leaves it
    (output / RUN_FILE).write_text(json.dumps(killed))
    run_scoring([str(shard)], output, options)
    run_scoring([str(shard)], output, options)
    record = json.loads((output / RUN_FILE).read_text())
    assert [run["state"] for run in record["earlier_runs"]] == ["finished", "killed"]
    assert [run["images_done"] for run in record["earlier_runs"]] == [6, 6]
    assert (record["state"], record["images_done"]) == ("finished", 0)
