"""A pipeline on Ray Data: a pool of actors, which Ray itself starts again where one dies."""

from __future__ import annotations

import logging
from typing import Any

from tastemaker.executors.cluster import ClusterExecutor
from tastemaker.executors.plan import Node, WorkerPlan


class RayDataExecutor(ClusterExecutor):
    """Runs a pipeline on Ray Data; see `ClusterExecutor` for what runs where, and for the arguments."""

    def run_engine(self, job: Any, plan: WorkerPlan, nodes: list[Node], portions: list[list[int]]) -> None:  # noqa: ANN401
        """Run the portions on a pool of actors."""
        import ray.data

        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current().copy()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.raise_original_map_exception = False
        with ray.data.DataContext.current(context):
            items = ray.data.from_items(portions, override_num_blocks=len(portions))
            done = items.map_batches(
                _Pool,
                fn_constructor_args=(job,),
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(size=plan.workers, max_tasks_in_flight_per_actor=2),
                num_cpus=plan.cpus,
                num_gpus=plan.gpus,
                **_only_on(nodes),
            )
            for _ in done.iter_internal_ref_bundles():
                pass


class _Pool:
    """What each actor of the pool holds."""

    def __init__(self, job: Any) -> None:  # noqa: ANN401
        from tastemaker.executors.worker import ChainWorker

        self._worker = ChainWorker(job)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Run one portion of the tasks."""
        for numbers in batch["item"]:
            self._worker.run([int(number) for number in numbers])
        return {"done": [True]}


def _only_on(nodes: list[Node]) -> dict[str, Any]:
    """Return the options that keep actors off other machines, if there are others."""
    import ray

    others = [
        node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] not in {n.node_id for n in nodes}
    ]
    return {"label_selector": {"ray.io/node-id": f"!in({','.join(others)})"}} if others else {}
