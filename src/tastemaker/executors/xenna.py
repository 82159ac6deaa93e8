"""A pipeline on cosmos-xenna. The engine itself is met in `tastemaker.executors.xenna_engine` alone."""

from __future__ import annotations

from typing import Any, ClassVar

from tastemaker.checks import check_choice
from tastemaker.errors import ConfigurationError
from tastemaker.executors.cluster import ClusterExecutor
from tastemaker.executors.plan import Node, WorkerPlan

MODES = ("streaming", "batch")
"""Values of ``execution_mode``. With one chain there is one stage for Xenna, and both give the same results."""

CPU_ALLOCATION_PERCENTAGE = 0.95
AUTOSCALE_INTERVAL_S = 180.0


class XennaExecutor(ClusterExecutor):
    """Runs a pipeline on cosmos-xenna; see `ClusterExecutor` for what runs where.

    Xenna gives a whole run up when a worker dies. It is started again then, with what has no result yet.

    Args:
        config: As `ClusterExecutor`, and: ``execution_mode`` (``streaming`` or ``batch``), ``autoscale_interval_s``
            (180), ``cpu_allocation_percentage`` (0.95: the share of each machine's cores that workers get, one core at
            least).
        ignore_head_node: Place no workers on the machine that runs Ray's own services, if there are others.
        on_progress: Called with what a stage has done, twice a second or so.

    Raises:
        MissingExtraError: cosmos-xenna or Ray is not installed.
        ConfigurationError: An option is out of its range.
    """

    _modules: ClassVar[tuple[str, ...]] = ("ray", "cosmos_xenna")
    _ray_shows_gpus: ClassVar[bool] = False

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - those of ClusterExecutor
        super().__init__(*arguments, **options)
        check_choice("execution_mode", self.mode, MODES)
        if self.cpu_share > 1:
            raise ConfigurationError(f"cpu_allocation_percentage={self.cpu_share} is a share: 1 is all")

    @property
    def mode(self) -> str:
        """``streaming`` or ``batch``."""
        return str(self.config.get("execution_mode", "streaming")).lower()

    @property
    def cpu_share(self) -> float:
        """Share of each machine's cores that workers get."""
        return float(self.config.get("cpu_allocation_percentage", CPU_ALLOCATION_PERCENTAGE))

    @property
    def autoscale_interval_s(self) -> float:
        """Seconds between Xenna's looks at the numbers of workers."""
        return float(self.config.get("autoscale_interval_s", AUTOSCALE_INTERVAL_S))

    def usable_cores(self, cores: float) -> float:
        """Return what Xenna makes of a machine's cores: whole ones, rounded down; here one at least."""
        return max(1, int(cores * self.cpu_share))

    def run_engine(self, job: Any, plan: WorkerPlan, nodes: list[Node], portions: list[list[int]]) -> None:  # noqa: ANN401
        """Run the portions on Xenna."""
        from tastemaker.executors.xenna_engine import run_xenna

        run_xenna(job, plan, nodes, portions, mode=self.mode, autoscale_interval_s=self.autoscale_interval_s)
