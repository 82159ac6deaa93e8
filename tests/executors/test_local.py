"""LocalExecutor: order, bounded memory, errors, Ctrl-C."""

import contextlib
import itertools
import os
import pickle
import pty
import re
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import dataclass, field

import numpy as np
import pytest
from conftest import make_tar
from peak import PEAK, reads_peak

from tastemaker import (
    EmptyTask,
    FileGroupTask,
    FilePartitioningStage,
    ImageReaderStage,
    LocalExecutor,
    ProcessingStage,
    StageError,
)
from tastemaker.executors.timing import find_bottleneck
from tastemaker.progress import Progress, show_progress


@dataclass
class Count(ProcessingStage):
    """Makes numbered tasks, and notes how many were asked for."""

    number: int = 10
    name: str = "count"
    made: list = field(default_factory=list)

    def process(self, task):
        return list(self.stream(task))

    def stream(self, task):
        for number in range(self.number):
            self.made.append(number)
            yield FileGroupTask("numbers", [str(number)])


@dataclass
class Work(ProcessingStage):
    """Hands tasks on; calls a function with each number."""

    call: object = None
    name: str = "work"

    def process(self, task):
        if self.call:
            self.call(int(task.data[0]))
        return task


def test_results_come_in_the_order_of_the_input():
    results = LocalExecutor().execute([Count(50), Work(), Work()])
    assert [task.data for task in results] == [[str(number)] for number in range(50)]


def test_a_slow_stage_holds_back_the_stages_before_it():
    source, release = Count(100), threading.Event()
    ahead = []

    def wait(number):
        if number == 0:
            time.sleep(0.5)
            ahead.append(len(source.made))

    LocalExecutor().execute([source, Work(wait)])
    release.set()
    assert ahead[0] <= 5  # one in work, two in the queue, one being handed over, one being made


def test_stages_run_at_the_same_time():
    busy, together = threading.Event(), []

    def first(number):
        if number == 1:
            together.append(busy.wait(5))

    LocalExecutor().execute([Count(3), Work(first, "first"), Work(lambda number: busy.set(), "second")])
    assert together == [True]


@pytest.mark.parametrize("tasks_at_a_time", [1, 3])
def test_an_error_stops_the_run_and_names_stage_and_input(tasks_at_a_time):
    def fail(number):
        if number == 3:
            raise ValueError("three is too many")

    source = Count(1000)
    with pytest.raises(StageError, match="stage 'picky' failed on 3: three is too many") as caught:
        LocalExecutor().execute([source, Work(fail, "picky").with_(concurrent_tasks=tasks_at_a_time)])
    assert isinstance(caught.value.__cause__, ValueError)
    assert len(source.made) < 20


def test_what_is_no_task_is_told_as_such():
    class Texts(Work):
        def process(self, task):
            return task.data[0]

    with pytest.raises(StageError, match="'texts' failed on 0: process made a str; it must return a task"):
        LocalExecutor().execute([Count(1), Texts(name="texts")])


def test_teardown_runs_after_a_failure():
    torn_down = []

    class Careful(Work):
        def teardown(self):
            torn_down.append(True)

    with pytest.raises(StageError):
        LocalExecutor().execute([Count(), Careful(lambda number: 1 / 0)])
    assert torn_down == [True]


def test_checks_run_before_anything_is_set_up():
    events = []

    class Checked(Work):
        def check(self):
            raise ValueError("wrong option")

    class Loud(Work):
        def setup(self, worker_metadata=None):
            events.append("setup")

    with pytest.raises(ValueError, match="wrong option"):
        LocalExecutor().execute([Loud(), Checked()], [EmptyTask()])
    assert events == []


def test_an_error_in_a_batch_names_the_shard_and_the_keys(tmp_path, photographs):
    class Broken(ProcessingStage):
        name = "broken"

        def process(self, task):
            raise RuntimeError("out of luck")

    shard = make_tar(tmp_path / "a.tar", list(photographs.items()))
    with pytest.raises(StageError, match=r"a\.tar, keys 'astronaut' to 'rocket' \(6 images\): out of luck"):
        LocalExecutor().execute([FilePartitioningStage(str(shard)), ImageReaderStage(), Broken()])


RUN = """
    import sys
    from tastemaker import *
    sources, models, output = sys.argv[1].split(","), sys.argv[2], sys.argv[3]
    Pipeline("p", stages=[FilePartitioningStage(sources), ImageReaderStage(), ImageEmbeddingStage(model_dir=models),
        ImageAestheticFilterStage(model_dir=models), ImageWriterStage(output)]).run()
    print(peak())
"""


@pytest.mark.slow
@reads_peak
def test_memory_does_not_grow_with_the_number_of_shards(tmp_path, photographs, model_dir):
    rocket = photographs["rocket.jpg"]
    shard = make_tar(tmp_path / "a.tar", [(f"{number:04d}.jpg", rocket) for number in range(40)])
    shards = [tmp_path / f"{number:03d}.tar" for number in range(50)]
    for path in shards:
        os.link(shard, path)

    def peak(paths):
        arguments = [",".join(map(str, paths)), str(model_dir), str(tmp_path / f"out{len(paths)}")]
        command = [sys.executable, "-c", PEAK + textwrap.dedent(RUN), *arguments]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])

    few, many = peak(shards[:5]), peak(shards)
    print(f"peak memory: {few / 1024:.0f} MiB for 5 shards, {many / 1024:.0f} MiB for 50")
    assert many <= 1.2 * few


def test_the_time_of_each_stage_is_told_apart_as_work_and_waiting():
    executor = LocalExecutor()
    executor.execute([Count(20), Work(), Work(lambda _: time.sleep(0.02), name="slow"), Work(name="last")])
    count, work, slow, last = executor.timings
    assert [timing.name for timing in executor.timings] == ["count", "work", "slow", "last"]
    assert find_bottleneck(executor.timings) is slow
    assert slow.busy_s >= 20 * 0.02
    assert slow.busy_share > 0.5 > max(last.busy_share, count.busy_share, work.busy_share)
    assert last.waiting_for_input_s > last.waiting_for_output_s
    assert work.waiting_for_output_s > work.waiting_for_input_s


def test_a_stage_may_work_on_several_tasks_at_a_time_and_keeps_their_order():
    together = threading.Barrier(2, timeout=10)

    def meet(number):
        if number < 20:  # would wait in vain if tasks came one by one
            together.wait()
        time.sleep(0.001 * (number % 3))

    executor = LocalExecutor()
    results = executor.execute([Count(21), Work(meet).with_(concurrent_tasks=2), Work()])
    assert [task.data for task in results] == [[str(number)] for number in range(21)]
    assert executor.timings[1].busy_s > executor.timings[2].busy_s


def test_the_history_of_a_writer_s_result_is_that_of_its_whole_partition():
    @dataclass
    class Gather(ProcessingStage):
        """Returns one result for all tasks, with the last of them."""

        name: str = "gather"
        is_sink_stage: bool = True

        def process(self, task):
            time.sleep(0.01)
            return FileGroupTask("all", ["all"], task._stage_perf) if task.data == ["4"] else None

    (result,) = LocalExecutor().execute([Count(5), Work(lambda _: time.sleep(0.01)), Gather()])
    spent = {perf.stage_name: perf for perf in result._stage_perf}
    assert list(spent) == ["count", "work", "gather"]
    assert min(spent["work"].process_time, spent["gather"].process_time) >= 5 * 0.01
    assert (spent["work"].num_items_processed, spent["gather"].num_items_processed) == (5, 5)


def test_times_of_stages_only_grow():
    executor, seen = LocalExecutor(), []

    def look(_):
        seen.append([(t.setup_s, t.busy_s, t.waiting_for_input_s, t.waiting_for_output_s) for t in executor.timings])

    sleepy = Work(lambda number: time.sleep(0.002 * (number % 3))).with_(concurrent_tasks=2)
    executor.execute([Count(40), sleepy, Work(look)])
    look(None)
    for before, after in itertools.pairwise(seen):
        assert all(a <= b for one, two in zip(before, after, strict=True) for a, b in zip(one, two, strict=True))
    assert all(time >= 0 for stage in seen[0] for time in stage)


PIPELINE = """
    import sys, time
    from tastemaker import *
    class Slow(ProcessingStage):
        name = "slow"
        def process(self, task):
            time.sleep(0.5)
            return task
    executor = LocalExecutor(on_progress=(lambda count: None) if sys.argv[2] == "own" else None)
    stages = [FilePartitioningStage(sys.argv[1]), ImageReaderStage(batch_size=2), Slow()]
    print(sum(batch.num_items for batch in Pipeline("p", stages=stages).run(executor)))
"""


@pytest.mark.parametrize(("listener", "shown"), [("none", True), ("own", False)])
def test_a_pipeline_shows_its_progress_on_a_terminal_unless_somebody_else_listens(
    listener, shown, tmp_path, photographs
):
    shard = make_tar(tmp_path / "a.tar", list(photographs.items()))
    terminal, end = pty.openpty()
    command = [sys.executable, "-c", textwrap.dedent(PIPELINE), str(shard), listener]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=end, text=True, check=True, timeout=60)
    os.close(end)
    os.set_blocking(terminal, False)
    seen = b""
    with contextlib.suppress(OSError):  # nothing is there
        seen = os.read(terminal, 100_000)
    assert (b"pipeline 'p'" in seen) is shown
    assert done.stdout == "6\n"


def test_lines_of_progress_say_what_is_known(capsys):
    with show_progress("work", line_every_s=0) as update:
        update(Progress(images=0, found=1200))
        update(Progress(images=3, bytes_done=0, bytes_total=0, images_total=None))
        update(Progress(images=6, bytes_done=50, bytes_total=100, images_total=12))
    listing, first, second = capsys.readouterr().err.splitlines()
    assert listing == "work: looking for files, 1,200 so far"
    assert first == "work: 3 images"
    assert re.match(r"work: 6 of 12 images, 50%, [\d.,]+ images/s, about 0 s left", second)


def test_an_image_that_leaves_its_process_is_read_again_where_it_is_asked_for(tmp_path, photographs):
    shard = make_tar(tmp_path / "a.tar", list(photographs.items()))
    (batch,) = LocalExecutor().execute([FilePartitioningStage(str(shard)), ImageReaderStage()])
    before = [(len(pickle.dumps(image)), image.decode().pixels) for image in batch.data]
    for image, (size, pixels) in zip(batch.data, before, strict=True):
        image.leave_source_behind()
        sent = pickle.dumps(image)
        assert len(sent) < 2000 < size
        assert np.array_equal(pickle.loads(sent).image_data, pixels)
        image.remove_image_data()
        assert pickle.loads(pickle.dumps(image)).image_data is None
