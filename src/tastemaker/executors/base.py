"""What an executor is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from tastemaker.stages.base import ProcessingStage
from tastemaker.tasks import Task


class BaseExecutor(ABC):
    """Runs the stages of a pipeline.

    Args:
        config: Options of the engine, by name.
    """

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        self.config = dict(config or {})

    @abstractmethod
    def execute(
        self, stages: list[ProcessingStage[Any, Any]], initial_tasks: list[Task[Any]] | None = None
    ) -> list[Task[Any]]:
        """Return what the last stage makes of the tasks, in the order of the input."""
