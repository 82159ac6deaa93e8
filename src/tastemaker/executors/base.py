"""What an executor is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tastemaker.executors.timing import StageTiming
from tastemaker.stages.base import ProcessingStage
from tastemaker.tasks import Task

Stage = ProcessingStage[Any, Any]


@dataclass(frozen=True, slots=True)
class StageCount:
    """What a stage has done since it was last counted.

    Attributes:
        stage: Its name.
        images: Images that left it, kept or not. Negative where a worker died and its images are done again.
        source_bytes: Bytes of those images and their sidecars in the input files.
    """

    stage: str
    images: int
    source_bytes: int


class BaseExecutor(ABC):
    """Runs the stages of a pipeline.

    Args:
        config: Options of the engine, by name.
        on_progress: Called with what a stage has done, in a thread of the run.

    Attributes:
        timings: Where each stage's time went in the last `execute`, summed over workers, in the order of the stages.
    """

    def __init__(
        self, config: dict[str, Any] | None = None, on_progress: Callable[[StageCount], None] | None = None
    ) -> None:
        self.config = dict(config or {})
        self.on_progress = on_progress
        self.timings: list[StageTiming] = []

    @abstractmethod
    def execute(self, stages: list[Stage], initial_tasks: list[Task[Any]] | None = None) -> list[Task[Any]]:
        """Return what the last stage makes of the tasks, in the order of the input."""
