"""What each worker of a cluster gets, worked out from the stages and from what the machines have."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tastemaker.errors import ConfigurationError
from tastemaker.executors.base import Stage

Node = dict[str, float]
"""What a machine has, by Ray's names: ``CPU``, ``GPU``."""

_TINY = 1e-6


@dataclass(frozen=True)
class Share:
    """What each worker gets.

    Attributes:
        workers: Their number, at most. Ray starts those that it finds room for.
        cpus: Cores that each is accounted for.
        gpus: GPUs, or the share of one, that each gets.
    """

    workers: int
    cpus: float
    gpus: float

    def count_on(self, node: Node) -> int:
        """Return how many workers a machine has room for.

        Example:
            >>> Share(9, cpus=2, gpus=0.25).count_on({"CPU": 16, "GPU": 1}), Share(9, 5, 0).count_on({"CPU": 16})
            (4, 3)
        """
        by_cores = int(node.get("CPU", 0.0) / self.cpus + 1e-3)
        return min(by_cores, _fit(node.get("GPU", 0.0), self.gpus)) if self.gpus else by_cores

    def cores_on(self, node: Node) -> int:
        """Return how many cores of a machine each worker there may use, so that all of them together use all."""
        return max(1, int(node.get("CPU", 0.0) / max(1, min(self.count_on(node), self.workers))))


def share_cluster(stages: list[Stage], nodes: list[Node], tasks: int, max_workers: int | None = None) -> Share:
    """Return how many workers run the chain of these stages, and what each gets.

    A worker asks for the cores of all its stages together, or for what the largest machine has; for the largest share
    of a GPU that a stage asks for, or for none where no machine has a GPU. A stage that states ``gpu_memory_gb`` gets a
    whole GPU. Where a worker takes a share of a GPU, cores do not keep the others off it: they are divided among the
    workers that fit the GPUs.

    Args:
        stages: Of the chain. One that states `num_workers` limits the workers of the chain.
        nodes: The machines that may be used.
        tasks: Initial tasks; there are never more workers.
        max_workers: Workers at most.

    Raises:
        ConfigurationError: No machine has what a worker needs.
    """
    needed = [stage.resources for stage in stages]
    gpus = max((1.0 if need.gpu_memory_gb else need.gpus for need in needed), default=0.0)
    gpus = 0.0 if not any(node.get("GPU") for node in nodes) else math.ceil(gpus - _TINY) if gpus > 1 else gpus
    usable = [node for node in nodes if node.get("CPU") and node.get("GPU", 0.0) + _TINY >= gpus]
    if not usable:
        has = max((node.get("GPU", 0.0) for node in nodes), default=0.0)
        raise ConfigurationError(
            f"a worker needs processor cores and {gpus:g} GPUs; no machine of the cluster has more than {has:g} GPUs"
        )
    wanted = max(0.1, sum(need.cpus for need in needed))
    if gpus:
        cpus = min(wanted, *(node["CPU"] / _fit(node["GPU"], gpus) for node in usable))
    else:
        cpus = min(wanted, max(node["CPU"] for node in usable))
    stated = [number for stage in stages if (number := stage.num_workers()) is not None]
    most = min([tasks, *stated, *([max_workers] if max_workers else [])])
    share = Share(most, round(cpus, 4), gpus)
    return replace(share, workers=max(1, min(most, sum(map(share.count_on, usable)))))


def _fit(gpus: float, share: float) -> int:
    """Return how many workers the GPUs of a machine take: a share is of one GPU, never of two."""
    return int(gpus) * int(1 / share + _TINY) if share < 1 <= gpus else int(gpus / share + _TINY)
