"""The ledger: what is done again after a death, and when a batch is given up."""

import pickle

import pytest

from tastemaker.executors.ledger import MAX_DEATHS, MAX_DEATHS_IN_TASK, Ledger
from tastemaker.executors.timing import StageTiming


@pytest.fixture
def ledger():
    ledger = Ledger()
    ledger.add([pickle.dumps(f"task {number}") for number in range(4)])
    assert ledger.start_run([]) == ([0, 1, 2, 3], 0)
    return ledger


def finish(ledger, number, counts=None):
    ledger.finish(number, pickle.dumps([f"result {number}"]), counts or {})


def test_a_result_is_handed_over_once_and_its_task_is_not_done_again(ledger):
    assert pickle.loads(ledger.begin(2, "w").payload) == "task 2"
    finish(ledger, 2)
    assert pickle.loads(ledger.collect().results[2]) == ["result 2"]
    assert ledger.collect().results == {}
    assert ledger.begin(2, "w") is None
    assert ledger.start_run([])[0] == [0, 1, 3]


def test_a_task_of_a_dead_worker_is_done_carefully_and_one_of_a_stopped_worker_as_before(ledger):
    ledger.begin(0, "dead")
    ledger.begin(1, "stopped")
    assert ledger.start_run(["dead"])[0] == [0, 1, 2, 3]
    assert (ledger.begin(0, "new").careful, ledger.begin(1, "new").careful) == (True, False)


def test_a_task_to_be_done_carefully_is_begun_only_when_nothing_else_is_under_way(ledger):
    ledger.begin(0, "dead")
    ledger.start_run(["dead"])
    for _ in range(MAX_DEATHS + 1):  # whatever its worker dies of meanwhile is not this task
        work = ledger.begin(0, "w")
        assert (work.careful, work.payload) == (True, b"")
    work = ledger.begin(0, "w", alone=True)
    assert (work.careful, work.attempt, pickle.loads(work.payload)) == (True, 2, "task 0")
    assert ledger.begin_step(0, "w", ("batch", 0)) == 0


def test_an_attempt_says_that_another_writer_may_have_left_something(ledger):
    assert ledger.begin(1, "stopped").attempt == 1
    ledger.start_run([])
    assert ledger.begin(1, "new").attempt == 2


def test_a_task_that_is_begun_again_was_left_by_a_dead_worker(ledger):
    assert ledger.begin(0, "w").attempt == 1
    again = ledger.begin(0, "w", alone=True)
    assert (again.attempt, again.careful) == (2, True)


def die_at(ledger, *steps):
    """Begin task 0 carefully and take up these steps; the worker dies at the last one. Return the deaths at each."""
    ledger.begin(0, "w", alone=True)
    return [ledger.begin_step(0, "w", step) for step in steps]


def test_the_death_in_the_ordinary_way_counts_for_the_step_that_the_next_is_found_at(ledger):
    first, second, third = ("batch", 0), ("batch", 1), ("batch", 2)
    ledger.begin(0, "w")  # the first death, in the ordinary way
    assert die_at(ledger, first, second) == [0, 0]
    assert die_at(ledger, first, second) == [0, 2]
    assert die_at(ledger, first, second, third) == [0, MAX_DEATHS, 0]
    assert die_at(ledger, first, second, third) == [0, MAX_DEATHS, 1]


def test_reading_on_after_a_batch_is_a_step_of_its_own(ledger):
    ledger.begin(0, "w")
    for deaths in (0, 2, 3, 4):
        assert die_at(ledger, ("reading", 0), ("batch", 0), ("reading", 1)) == [0, 0, deaths]


def test_a_task_that_kills_its_workers_whatever_is_left_out_is_not_read_any_more(ledger):
    ledger.begin(0, "w")
    steps = ("reading", 0), ("batch", 0)
    for died in range(MAX_DEATHS_IN_TASK):
        assert die_at(ledger, *steps)[0] == 0, died
    assert die_at(ledger, *steps)[0] == MAX_DEATHS


def test_a_worker_that_dies_before_any_step_dies_in_the_first_turn(ledger):
    ledger.begin(0, "w")
    for deaths in (0, 2, 3):
        ledger.begin(0, "w", alone=True)
        assert ledger.begin_step(0, "w", ("making", 0)) == deaths


def test_a_step_of_a_worker_whose_task_was_taken_from_it_changes_nothing(ledger):
    ledger.begin(0, "w")
    ledger.start_run(["w"])
    ledger.begin(0, "late", alone=True)
    ledger.start_run([])
    assert ledger.begin_step(0, "late", ("batch", 5)) == 0
    ledger.begin(0, "new", alone=True)
    ledger.begin_step(0, "new", ("batch", 1))
    ledger.begin_step(0, "late", ("batch", 5))
    ledger.start_run(["new"])
    assert die_at(ledger, ("batch", 1), ("batch", 5)) == [2, 0]


def test_what_failed_because_workers_died_of_it_is_remembered(ledger):
    ledger.begin(0, "w")
    die_at(ledger, ("batch", 1))
    ledger.fail_step(0, ("batch", 1), ["b", "c"])
    assert ledger.failed() == {(0, ("batch", 1)): ["b", "c"]}


def test_every_death_in_a_task_is_progress_and_so_is_a_result(ledger):
    progress = [ledger.start_run([])[1]]
    ledger.begin(0, "w")
    progress.append(ledger.start_run(["w"])[1])
    ledger.begin(1, "w")
    finish(ledger, 1)
    progress += [ledger.start_run([])[1], ledger.start_run([])[1]]
    assert progress == [0, 1, 2, 2]


def test_images_of_an_attempt_that_died_are_not_counted_twice(ledger):
    ledger.begin(0, "w")
    ledger.pulse("w", {0: {"read": (5, 50)}}, [], [])
    assert ledger.collect().counts == {"read": (5, 50)}
    ledger.begin(0, "w")
    assert ledger.collect().counts == {}
    finish(ledger, 0, {"read": (8, 80)})
    ledger.pulse("w", {0: {"read": (8, 80)}}, [], [])  # late
    assert ledger.collect().counts == {"read": (8, 80)}


def test_a_worker_that_was_taken_for_dead_and_comes_back_changes_nothing(ledger):
    ledger.begin(0, "slow")
    ledger.begin(0, "new")
    finish(ledger, 0, {"read": (8, 80)})
    finish(ledger, 0, {"read": (8, 80)})
    assert ledger.collect().counts == {"read": (8, 80)}


def test_workers_free_what_they_loaded_once_nothing_is_left_to_begin(ledger):
    for number in range(4):
        assert ledger.pulse("w", {}, [], []) is False
        ledger.begin(number, "w")
    assert ledger.pulse("w", {}, [], []) is True
    ledger.begin_setup("w")
    ledger.end_setup("w")
    assert ledger.others_to_free("v") == 0  # tasks are open
    for number in range(4):
        finish(ledger, number)
    assert (ledger.others_to_free("v"), ledger.others_to_free("w")) == (1, 0)


def test_a_worker_that_dies_three_times_while_it_loads_is_given_up(ledger):
    assert [ledger.begin_setup("w") for _ in range(4)] == [True, True, True, False]
    ledger.start_run([])
    assert ledger.begin_setup("w")


def test_an_error_ends_the_run_and_the_first_one_counts(ledger):
    ledger.fail(b"first")
    ledger.fail(b"second")
    assert ledger.collect().error == b"first"
    assert ledger.begin(0, "w") is None


def test_timings_of_all_workers_are_summed(ledger):
    ledger.pulse("v", {}, [StageTiming("read", busy_s=1)], [])
    ledger.pulse("w", {}, [StageTiming("read", busy_s=2)], [])
    ledger.pulse("w", {}, [StageTiming("read", busy_s=3)], [])
    assert ledger.collect().timings == [StageTiming("read", busy_s=4)]


def test_the_bytes_of_tasks_and_results_are_counted(ledger):
    payload = ledger.begin(0, "w").payload
    finish(ledger, 0)
    assert ledger.bytes_crossed() == len(payload) + len(pickle.dumps(["result 0"]))
