"""How many workers, and what each may use: worked out from the stages and from what the cluster has."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tastemaker.errors import ConfigurationError
from tastemaker.executors.base import Stage

MAX_TASKS_TOGETHER = 8
"""Initial tasks handed to a worker at a time, at most: it reads one while the last batches of another are worked on."""

HANDOUTS_PER_WORKER = 16
"""Each worker is handed tasks this often at least, so that all end at about the same time."""

_TINY = 1e-6


@dataclass(frozen=True)
class Node:
    """A machine of the cluster.

    Attributes:
        node_id: The engine's name for it.
        cores: Processor cores that workers may be placed on.
        gpus: GPUs that the engine knows of.
        gpu_memory_gb: Memory of the smallest of them, where it was asked for.
        all_cores: Cores of the machine, which threads may use; 0 for ``cores``.
    """

    node_id: str
    cores: float
    gpus: float = 0.0
    gpu_memory_gb: float = 0.0
    all_cores: float = 0.0


@dataclass(frozen=True)
class WorkerPlan:
    """What the workers of a chain are given.

    Attributes:
        workers: Their number.
        cpus: Cores that each is accounted for.
        gpus: GPUs, or the share of one, that each gets.
        threads: Node -> threads that a worker there may start, so that all workers together have a core each.
    """

    workers: int
    cpus: float
    gpus: float
    threads: dict[str, int] = field(default_factory=dict)


def plan_workers(stages: list[Stage], nodes: list[Node], tasks: int, max_workers: int | None = None) -> WorkerPlan:
    """Return how many workers run the chain of these stages, and what each gets.

    A worker asks for the cores of all its stages together, or for what the largest machine has; for the largest share
    of a GPU that a stage asks for, or for none where no machine has a GPU. Where it takes a share of a GPU, cores do
    not keep the others off it: they are divided among the workers that fit the GPUs.

    Args:
        stages: Of the chain. One that states `num_workers` limits the workers of the chain.
        nodes: The machines that may be used.
        tasks: Initial tasks; there are never more workers.
        max_workers: Workers at most.

    Raises:
        ConfigurationError: No machine has what a worker needs.
    """
    if not any(node.cores > 0 for node in nodes):
        raise ConfigurationError("the cluster has no machine with processor cores for workers")
    gpus = _gpu_share(stages, nodes)
    usable = [node for node in nodes if node.cores > 0 and node.gpus + _TINY >= gpus]
    if not usable:
        most = max(node.gpus for node in nodes)
        raise ConfigurationError(f"a stage asks for {gpus:g} GPUs; no machine of the cluster has more than {most:g}")
    wanted = max(0.1, sum(stage.resources.cpus for stage in stages))
    if gpus:
        cpus = min(wanted, *(node.cores / _fit(node.gpus, gpus) for node in usable))
    else:
        cpus = min(wanted, max(node.cores for node in usable))
    fitting = {
        node.node_id: min(int(node.cores / cpus + _TINY), _fit(node.gpus, gpus) if gpus else tasks) for node in usable
    }
    stated = [number for stage in stages if (number := stage.num_workers()) is not None]
    workers = max(1, min(sum(fitting.values()), tasks, *stated, *([max_workers] if max_workers else [])))
    threads = {
        node.node_id: max(1, int((node.all_cores or node.cores) / max(1, min(fitting[node.node_id], workers))))
        for node in usable
    }
    return WorkerPlan(workers, round(cpus, 4), gpus, threads)


def group_tasks(numbers: list[int], workers: int) -> list[list[int]]:
    """Return the tasks in the portions that they are handed out in: single ones, but where there are very many.

    Example:
        >>> group_tasks([0, 1, 2], workers=1)
        [[0], [1], [2]]
        >>> len(group_tasks(list(range(100_000)), workers=64)[0])
        8
    """
    size = max(1, min(MAX_TASKS_TOGETHER, len(numbers) // (workers * HANDOUTS_PER_WORKER)))
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def asks_for_gpu_memory(stages: list[Stage]) -> bool:
    """Return whether a stage states what it needs of a GPU in GB."""
    return any(stage.resources.gpu_memory_gb for stage in stages)


def _gpu_share(stages: list[Stage], nodes: list[Node]) -> float:
    """Return the largest share of a GPU that a stage asks for, 0 where there are no GPUs."""
    if not any(node.gpus for node in nodes):
        return 0.0
    share = max((stage.resources.gpus for stage in stages), default=0.0)
    memory_gb = max((stage.resources.gpu_memory_gb for stage in stages), default=0.0)
    if memory_gb:
        known = [node.gpu_memory_gb for node in nodes if node.gpu_memory_gb]
        if not known or memory_gb > min(known):
            has = f"the smallest has {min(known):g} GB" if known else "their memory could not be read"
            raise ConfigurationError(f"a stage asks for {memory_gb:g} GB of a GPU's memory: {has}")
        share = max(share, memory_gb / min(known))
    return math.ceil(share - _TINY) if share > 1 else share


def _fit(gpus: float, share: float) -> int:
    """Return how many workers the GPUs of a machine take: a share is of one GPU, never of two."""
    return int(gpus) * int(1 / share + _TINY) if share < 1 <= gpus else int(gpus / share + _TINY)
