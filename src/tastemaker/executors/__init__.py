"""Engines that run pipelines: the only place that knows one."""

from __future__ import annotations

from typing import Any, NoReturn

from tastemaker.errors import MissingExtraError
from tastemaker.executors.base import BaseExecutor
from tastemaker.executors.local import LocalExecutor

__all__ = ["BaseExecutor", "LocalExecutor", "RayDataExecutor", "XennaExecutor"]


class _ClusterExecutor(BaseExecutor):
    """A cluster engine that this version does not have yet."""

    def __init__(self, config: dict[str, Any] | None = None, ignore_head_node: bool = False) -> None:
        raise MissingExtraError(
            f"{type(self).__name__} needs the distributed engines: install tastemaker[ray]. This version comes without "
            "them; LocalExecutor runs the same stages on this machine"
        )

    def execute(self, stages: object, initial_tasks: object = None) -> NoReturn:
        """Never reached: the object cannot be made."""
        raise NotImplementedError


class XennaExecutor(_ClusterExecutor):
    """Runs a pipeline on cosmos-xenna. Raises `MissingExtraError` in this version."""


class RayDataExecutor(_ClusterExecutor):
    """Runs a pipeline on Ray Data. Raises `MissingExtraError` in this version."""
