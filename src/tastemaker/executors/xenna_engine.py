"""The one file that knows cosmos-xenna. Its version is pinned, because parts that it keeps to itself are used here.

Its ``run_pipeline`` is left out for what it wraps: it would start Ray with a dashboard, and give workers whole cores of
95% of a machine, which are none of a machine with one core.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

os.environ.setdefault("PYTHON_LOG", "error")  # read when Xenna is imported: its own lines are for its authors

from cosmos_xenna.pipelines.private import batch, monitoring, resources, specs, streaming
from cosmos_xenna.ray_utils import runtime_envs

from tastemaker.executors.plan import Node, WorkerPlan
from tastemaker.executors.worker import ChainWorker, Job


class ChainStage(specs.Stage[list[int], None]):  # type: ignore[misc]
    """The whole chain as Xenna's only stage. What it is given is numbers of tasks."""

    def __init__(self, job: Job, plan: WorkerPlan) -> None:
        self._job = job
        self._plan = plan
        self._worker: ChainWorker | None = None

    @property
    def required_resources(self) -> resources.Resources:
        """What a worker is accounted for."""
        return resources.Resources(cpus=self._plan.cpus, gpus=self._plan.gpus)

    @property
    def env_info(self) -> runtime_envs.RuntimeEnv | None:
        """On a cluster that was not started for Xenna, Ray would hide the GPU from workers again."""
        if not self._plan.gpus:
            return None
        return runtime_envs.RuntimeEnv(extra_env_vars={"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"})

    def setup(self, worker_metadata: resources.WorkerMetadata) -> None:
        """Sign on with the ledger."""
        self._worker = ChainWorker(self._job)

    def process_data(self, in_data: list[list[int]]) -> list[None]:
        """Run some tasks."""
        assert self._worker is not None
        for numbers in in_data:
            self._worker.run(numbers)
        return []


def run_xenna(
    job: Job, plan: WorkerPlan, nodes: list[Node], portions: list[list[int]], *, mode: str, autoscale_interval_s: float
) -> None:
    """Run the portions on as many workers as planned, on these machines."""
    config = specs.PipelineConfig(
        execution_mode=specs.ExecutionMode.BATCH if mode == "batch" else specs.ExecutionMode.STREAMING,
        mode_specific=specs.StreamingSpecificSpec(autoscale_interval_s=autoscale_interval_s),
        enable_work_stealing=True,  # or a worker may wait with a task in hand while another has nothing to do
    )
    stage = specs.StageSpec(ChainStage(job, plan), num_workers=plan.workers).override_with_pipeline_params(config)
    spec = specs.PipelineSpec(input_data=portions, stages=[stage], config=config)
    cluster = _describe_cluster(nodes)
    with _without_monitors():
        (batch if mode == "batch" else streaming).run_pipeline(spec, cluster)


def _describe_cluster(nodes: list[Node]) -> resources.ClusterResources:
    """Return what Xenna may place workers on."""
    import ray

    wanted = {node.node_id: node for node in nodes}
    described = resources.make_cluster_resources_for_ray_cluster(
        1.0, [node for node in ray.nodes() if node["NodeID"] in wanted]
    )
    for node_id, node in described.nodes.items():
        node.total_cpus = int(wanted[node_id].cores)
    return described


class _NoMonitor:
    """Instead of Xenna's: that takes a core of each machine, needs Ray's dashboard, and stays after the run."""

    def __init__(self, *_: Any) -> None:  # noqa: ANN401
        pass

    def __enter__(self) -> _NoMonitor:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, *_: object, **__: object) -> bool:
        return False


@contextmanager
def _without_monitors() -> Iterator[None]:
    original = monitoring.PipelineMonitor
    monitoring.PipelineMonitor = _NoMonitor
    try:
        yield
    finally:
        monitoring.PipelineMonitor = original
