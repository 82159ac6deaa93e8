"""Engines that run pipelines: the only place that knows one."""

from __future__ import annotations

import os
from typing import Any

from tastemaker.checks import check_choice
from tastemaker.executors.base import BaseExecutor, StageCount
from tastemaker.executors.local import LocalExecutor
from tastemaker.executors.ray_data import RayDataExecutor, XennaExecutor
from tastemaker.executors.ray_session import has_cluster

__all__ = [
    "EXECUTORS",
    "BaseExecutor",
    "LocalExecutor",
    "RayDataExecutor",
    "StageCount",
    "XennaExecutor",
    "default_executor",
    "make_executor",
]

EXECUTORS: dict[str, type[BaseExecutor]] = {
    "local": LocalExecutor,
    "xenna": XennaExecutor,
    "ray-data": RayDataExecutor,
}
"""Name on the command line and in ``TASTEMAKER_EXECUTOR`` -> executor."""

EXECUTOR_VARIABLE = "TASTEMAKER_EXECUTOR"
"""Environment variable: which executor runs what names none."""


def make_executor(name: str, config: dict[str, Any] | None = None) -> BaseExecutor:
    """Return the executor of a name: ``local``, ``xenna`` or ``ray-data``.

    Raises:
        MissingExtraError: Ray is not installed.
        ConfigurationError: There is no such executor, or it has no such option.
    """
    check_choice("executor", name, EXECUTORS)
    return EXECUTORS[name](config)


def default_executor() -> BaseExecutor:
    """Return what runs a pipeline that names no executor.

    The one that ``TASTEMAKER_EXECUTOR`` names; else `XennaExecutor` where there is a cluster (``RAY_ADDRESS`` is set,
    or the program has connected to Ray), else `LocalExecutor`: starting a Ray costs more than a small job.
    """
    named = os.environ.get(EXECUTOR_VARIABLE)
    return make_executor(named or ("xenna" if has_cluster() else "local"))
