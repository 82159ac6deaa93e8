"""What an executor is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from tastemaker.errors import ConfigurationError
from tastemaker.executors.timing import StageTiming
from tastemaker.stages.base import ProcessingStage
from tastemaker.tasks import Task

Stage = ProcessingStage[Any, Any]


@dataclass(frozen=True, slots=True)
class StageCount:
    """What a stage has done since it was last counted.

    Attributes:
        stage: Its name.
        images: Images that left it, kept or not.
        source_bytes: Bytes of those images and their sidecars in the input files.
    """

    stage: str
    images: int
    source_bytes: int


class BaseExecutor(ABC):
    """Runs the stages of a pipeline.

    Args:
        config: Options of the executor, by name.
        on_progress: Called with what a stage has done, in a thread of the run.

    Attributes:
        timings: Where each stage's time went in the last `execute`, summed over workers, in the order of the stages.

    Raises:
        ConfigurationError: The executor has no such option, or the option is not more than 0.
    """

    options: ClassVar[tuple[str, ...] | None] = None
    """Names of the options. None, the default of executors of your own, lets every option pass."""

    def __init__(
        self, config: dict[str, Any] | None = None, on_progress: Callable[[StageCount], None] | None = None
    ) -> None:
        self.config = dict(config or {})
        self.on_progress = on_progress
        self.timings: list[StageTiming] = []
        for name, value in self.config.items() if self.options is not None else ():
            if name not in (known := self.options or ()):
                raise ConfigurationError(f"{type(self).__name__} has no option {name!r}; it has {', '.join(known)}")
            if isinstance(value, int | float) and not value > 0:
                raise ConfigurationError(f"{name}={value!r} must be more than 0")

    @abstractmethod
    def execute(self, stages: list[Stage], initial_tasks: list[Task[Any]] | None = None) -> list[Task[Any]]:
        """Return what the last stage makes of the tasks, in the order of the input."""
