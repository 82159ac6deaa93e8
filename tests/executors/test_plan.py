"""How many workers, and what each gets, from the stages and the machines alone."""

from dataclasses import dataclass

import pytest

from tastemaker import ImageAestheticFilterStage, ImageEmbeddingStage, ImageReaderStage, ImageWriterStage, Resources
from tastemaker.errors import ConfigurationError
from tastemaker.executors.plan import Node, group_tasks, plan_workers
from tastemaker.stages.base import ProcessingStage


@dataclass
class Plain(ProcessingStage):
    workers: int | None = None

    def process(self, task):
        return task

    def num_workers(self):
        return self.workers


def usual_stages(**options):
    return [
        ImageReaderStage(),
        ImageEmbeddingStage(**options),
        ImageAestheticFilterStage(),
        ImageWriterStage("out"),
    ]


def test_two_cores_are_one_worker_with_both():
    plan = plan_workers(usual_stages(), [Node("a", cores=2)], tasks=100)
    assert (plan.workers, plan.cpus, plan.gpus, plan.threads) == (1, 2, 0, {"a": 2})


def test_one_core_is_enough():
    plan = plan_workers(usual_stages(), [Node("a", cores=1, all_cores=2)], tasks=100)
    assert (plan.workers, plan.cpus, plan.threads) == (1, 1, {"a": 2})


def test_sixteen_cores_are_four_workers_of_four():
    plan = plan_workers(usual_stages(), [Node("a", cores=16)], tasks=100)
    assert (plan.workers, plan.cpus, plan.threads) == (4, 4, {"a": 4})


def test_workers_never_start_more_threads_than_a_machine_has_cores():
    for cores in (1, 2, 3, 5, 8, 16, 63, 128):
        for cpus in (0.1, 0.5, 1.0, 2.0):
            stages = [stage.with_(resources=Resources(cpus=cpus)) for stage in usual_stages()]
            plan = plan_workers(stages, [Node("a", cores=cores)], tasks=10_000)
            assert plan.workers * plan.threads["a"] <= max(cores, plan.workers)
            assert plan.workers * plan.cpus <= cores + 0.01


def test_a_quarter_of_a_gpu_packs_four_workers_on_it_and_divides_the_cores():
    plan = plan_workers(usual_stages(), [Node("a", cores=8, gpus=2)], tasks=100)
    assert (plan.workers, plan.gpus, plan.cpus, plan.threads) == (8, 0.25, 1, {"a": 1})


def test_a_third_of_a_gpu_does_not_straddle_two():
    stages = usual_stages(num_gpus_per_worker=0.4)
    assert plan_workers(stages, [Node("a", cores=16, gpus=2)], tasks=100).workers == 4


def test_no_gpu_is_asked_for_where_there_is_none_nor_where_the_processor_is_wanted():
    assert plan_workers(usual_stages(), [Node("a", cores=8)], tasks=9).gpus == 0
    assert plan_workers(usual_stages(device="cpu"), [Node("a", cores=8, gpus=4)], tasks=9).gpus == 0


def test_machines_without_a_gpu_get_no_worker_where_others_have_some():
    nodes = [Node("head", cores=64), Node("a", cores=16, gpus=1), Node("b", cores=16, gpus=1)]
    plan = plan_workers(usual_stages(), nodes, tasks=100)
    assert (plan.workers, plan.cpus, sorted(plan.threads)) == (8, 4, ["a", "b"])


def test_gpu_memory_is_a_share_of_the_smallest_gpu():
    stages = [Plain().with_(resources=Resources(gpu_memory_gb=20))]
    nodes = [Node("a", cores=16, gpus=1, gpu_memory_gb=80), Node("b", cores=16, gpus=1, gpu_memory_gb=40)]
    plan = plan_workers(stages, nodes, tasks=100)
    assert (plan.gpus, plan.workers) == (0.5, 4)
    with pytest.raises(ConfigurationError, match="asks for 20 GB of a GPU's memory: the smallest has 16 GB"):
        plan_workers(stages, [Node("a", cores=16, gpus=1, gpu_memory_gb=16)], tasks=1)


def test_more_gpus_than_a_machine_has_is_an_error_that_says_so():
    with pytest.raises(ConfigurationError, match="asks for 4 GPUs; no machine of the cluster has more than 2"):
        plan_workers([Plain().with_(resources=Resources(gpus=4))], [Node("a", cores=8, gpus=2)], tasks=1)
    with pytest.raises(ConfigurationError, match="no machine with processor cores"):
        plan_workers([Plain()], [Node("a", cores=0)], tasks=1)


def test_workers_are_bounded_by_tasks_by_the_option_and_by_stages():
    nodes = [Node("a", cores=64)]
    assert plan_workers([Plain()], nodes, tasks=3).workers == 3
    assert plan_workers([Plain()], nodes, tasks=100, max_workers=5).workers == 5
    assert plan_workers([Plain(), Plain(workers=2)], nodes, tasks=100, max_workers=5).workers == 2
    assert plan_workers(usual_stages(), nodes, tasks=100).workers == 16  # writers, too


def test_a_bounded_number_of_workers_shares_all_cores():
    assert plan_workers([Plain()], [Node("a", cores=16)], tasks=100, max_workers=2).threads == {"a": 8}


def test_every_task_is_handed_out_once_and_in_order():
    for tasks in (1, 7, 1000, 100_000):
        for workers in (1, 2, 64):
            portions = group_tasks(list(range(tasks)), workers)
            assert [number for portion in portions for number in portion] == list(range(tasks))
            assert len(portions) >= min(tasks, workers)
