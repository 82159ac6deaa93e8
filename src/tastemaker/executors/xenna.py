"""A pipeline on cosmos-xenna.

Its version is pinned, because its public ``run_pipeline`` is left out for what that wraps: it would take a core of each
machine for a monitor, and wants Ray's dashboard.
"""

from __future__ import annotations

import logging
import os
import pickle
import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

from tastemaker.executors.ray_data import RayDataExecutor
from tastemaker.executors.ray_session import on_node

if TYPE_CHECKING:
    from tastemaker.executors.pool import ClusterRun

_WORKER = -1
"""Beside the number of a task: what comes is a worker's handle."""

logger = logging.getLogger(__name__)


class XennaExecutor(RayDataExecutor):
    """Runs a pipeline on cosmos-xenna; see `RayDataExecutor` for what runs where, and for the arguments.

    Xenna gives a whole run up when a worker dies. What has no result then is done by a pool of Ray's actors.
    """

    _modules: ClassVar[tuple[str, ...]] = ("ray", "cosmos_xenna")
    _ray_shows_gpus: ClassVar[bool] = False

    def run_engine(self, run: ClusterRun) -> None:
        """Do all tasks of a run, each in a Xenna stage that holds the whole chain."""
        import ray
        from ray.util.queue import Queue

        here = on_node(ray.get_runtime_context().get_node_id())
        queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
        taker = _Taker(run, queue)
        taker.start()
        try:
            _run_xenna(run, queue)
        except Exception as error:  # noqa: BLE001 - a worker died, or a stage raised: then the taker knows
            logger.warning("Xenna has given up: %s", f"{error}".partition("\n")[0])
        finally:
            taker.finish()
        for task in run.missing().values():
            task.partition.attempt = 2
        super().run_engine(run)  # what Xenna left


class _Taker(threading.Thread):
    """Takes what workers have done out of the queue: Xenna returns results at the end only."""

    def __init__(self, run: ClusterRun, queue: Any) -> None:  # noqa: ANN401 - of Ray
        super().__init__(name="take", daemon=True)
        self._run, self._queue, self._workers = run, queue, list[Any]()
        self._error: BaseException | None = None

    def run(self) -> None:
        """Take until None comes, or a stage has raised. Workers that find no queue end."""
        try:
            while (made := self._queue.get()) is not None:
                number, what = made
                if number == _WORKER:
                    self._workers.append(what)
                else:
                    self._run.take(number, what)
        except BaseException as error:  # noqa: BLE001 - raised again by finish
            self._error = error
            self._queue.shutdown(force=True)

    def finish(self) -> None:
        """Take what is left, and end the workers that Xenna leaves behind. Raise what was raised meanwhile."""
        import ray

        if self.is_alive():
            self._queue.put(None)
        self.join()
        for worker in self._workers:
            ray.kill(worker)
        if self._error is not None:
            raise self._error
        self._queue.shutdown()


def _run_xenna(run: ClusterRun, queue: Any) -> None:  # noqa: ANN401
    os.environ.setdefault("PYTHON_LOG", "error")  # read when Xenna is imported: its own lines are for its authors
    import ray
    from cosmos_xenna.pipelines.private import monitoring, resources, specs, streaming
    from cosmos_xenna.ray_utils import runtime_envs

    from tastemaker.executors.worker import ChainWorker

    job = run.job

    class ChainStage(specs.Stage[int, None]):  # type: ignore[misc]
        """The whole chain as Xenna's only stage."""

        required_resources = resources.Resources(cpus=job.share.cpus, gpus=job.share.gpus)
        # On a cluster that was not started for Xenna, Ray would hide the GPU from workers again.
        env_info = runtime_envs.RuntimeEnv(extra_env_vars={"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"})

        def setup(self, worker_metadata: Any) -> None:  # noqa: ANN401
            logging.getLogger("ray").setLevel(logging.ERROR)  # it would rather be asked in Xenna's event loop
            self._worker = ChainWorker(job)
            queue.put((_WORKER, ray.get_runtime_context().current_actor))

        def process_data(self, in_data: list[tuple[int, bytes]]) -> list[None]:
            for number, payload in in_data:
                queue.put((number, self._worker.run(payload)))
            return []

    class NoMonitor(nullcontext[Any]):
        def __init__(self, *_: Any) -> None:  # noqa: ANN401
            super().__init__(self)

        def update(self, *_: object, **__: object) -> bool:
            return False

    config = specs.PipelineConfig(
        execution_mode=specs.ExecutionMode.STREAMING,
        mode_specific=specs.StreamingSpecificSpec(),
        enable_work_stealing=True,  # or a worker may wait with a task in hand while another has nothing to do
    )
    stage = specs.StageSpec(ChainStage(), num_workers=job.share.workers).override_with_pipeline_params(config)
    inputs = [(number, pickle.dumps(task)) for number, task in run.missing().items()]
    spec = specs.PipelineSpec(inputs, [stage], config)
    original, monitoring.PipelineMonitor = monitoring.PipelineMonitor, NoMonitor
    try:
        streaming.run_pipeline(spec, resources.make_cluster_resources_for_ray_cluster(1.0, run.nodes))
    finally:
        monitoring.PipelineMonitor = original
