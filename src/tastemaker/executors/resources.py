"""What each worker of a cluster gets, worked out from the stages and from what the machines have."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tastemaker.errors import ConfigurationError
from tastemaker.executors.base import Stage

_TINY = 1e-6


@dataclass(frozen=True)
class Share:
    """What each worker gets.

    Attributes:
        workers: Their number, at most. Ray starts those that it finds room for.
        cpus: Cores that each is accounted for.
        gpus: GPUs, or the share of one, that each gets.
        cores: Machine with room for workers -> cores that each worker there may use, so that all together use all.
    """

    workers: int
    cpus: float
    gpus: float
    cores: dict[str, int]


def share_cluster(
    stages: list[Stage], nodes: list[dict[str, Any]], tasks: int, max_workers: int | None = None
) -> Share:
    """Return how many workers run the chain of these stages, and what each gets.

    A worker asks for the cores of all its stages together, or for what the largest machine has; for the largest share
    of a GPU that a stage asks for, or for none where no machine has a GPU. A stage that states ``gpu_memory_gb`` gets a
    whole GPU. Where a worker takes a share of a GPU, cores do not keep the others off it: they are divided among the
    workers that fit the GPUs.

    Args:
        stages: Of the chain. One that states `num_workers` limits the workers of the chain.
        nodes: The machines that may be used, of ``ray.nodes()``.
        tasks: Initial tasks; there are never more workers.
        max_workers: Workers at most.

    Raises:
        ConfigurationError: No machine has what a worker needs.
    """
    has_gpus = {node["NodeID"]: node["Resources"].get("GPU", 0.0) for node in nodes}
    has_cores = {node["NodeID"]: node["Resources"].get("CPU", 0.0) for node in nodes}
    most_gpus = max(has_gpus.values(), default=0.0)
    needed = [stage.resources for stage in stages]
    gpus = max(1.0 if need.gpu_memory_gb else need.gpus for need in needed) if most_gpus else 0.0
    gpus = math.ceil(gpus - _TINY) if gpus > 1 else gpus  # Ray gives shares of one GPU, or whole ones
    usable = [node for node, cores in has_cores.items() if cores and has_gpus[node] + _TINY >= gpus]
    if not usable:
        raise ConfigurationError(
            f"a worker needs processor cores and {gpus:g} GPUs; no machine of the cluster has more than "
            f"{most_gpus:g} GPUs"
        )
    cpus = max(0.1, sum(need.cpus for need in needed))
    if gpus:
        fit = {node: _fit(has_gpus[node], gpus) for node in usable}
        cpus = min(cpus, *(has_cores[node] / fit[node] for node in usable))
    else:
        cpus = min(cpus, max(has_cores.values()))
        fit = {node: number for node in usable if (number := int(has_cores[node] / cpus + 1e-3))}
    stated = [wanted for stage in stages if (wanted := stage.num_workers()) is not None]
    workers = max(1, min(tasks, sum(fit.values()), max_workers or tasks, *stated))
    cores = {node: max(1, int(has_cores[node] / min(number, workers))) for node, number in fit.items()}
    return Share(workers, round(cpus, 4), gpus, cores)


def _fit(gpus: float, share: float) -> int:
    """Return how many workers the GPUs of a machine take: a share is of one GPU, never of two.

    Example:
        >>> _fit(2, 0.25), _fit(2, 0.4), _fit(2, 1), _fit(5, 2)
        (8, 4, 2, 2)
    """
    return int(gpus) * int(1 / share + _TINY) if share < 1 <= gpus else int(gpus / share + _TINY)
