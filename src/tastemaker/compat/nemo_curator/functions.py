"""A stage made of a function, as NeMo Curator's decorator makes it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tastemaker.compat.nemo_curator.stages import ProcessingStage
from tastemaker.errors import ConfigurationError
from tastemaker.stages.base import Resources
from tastemaker.tasks import Task

Function = Callable[[Any], Any]


@dataclass(kw_only=True)
class FunctionStage(ProcessingStage[Task[Any], Task[Any]]):
    """A stage whose `process` is a function.

    Args:
        function: Takes a task, and returns a task, a list of tasks or None.
        name: What the stage is called.
        resources: What a worker needs.
        batch_size: For compatibility.
    """

    function: Function
    name: str
    resources: Resources = field()
    batch_size: int = 1

    def process(self, task: Task[Any]) -> Any:  # noqa: ANN401
        """Return what the function makes of a task."""
        return self.function(task)

    def fingerprint(self) -> dict[str, Any]:
        """Return what the stage is called, and its function."""
        return {"name": self.name, "function": f"{self.function.__module__}.{self.function.__qualname__}"}


def processing_stage(
    *, name: str, resources: Resources | dict[str, float] | None = None, batch_size: int | None = None
) -> Callable[[Function], FunctionStage]:
    """Return a decorator that turns a function of one task into a stage.

    Args:
        name: What the stage is called.
        resources: What a worker needs; None for one core.
        batch_size: For compatibility.

    Raises:
        ConfigurationError: The function does not take exactly one argument. Raised when it is decorated.

    Example:
        >>> @processing_stage(name="first_ten")
        ... def first_ten(batch):
        ...     batch.data = batch.data[:10]
        ...     return batch
        >>> first_ten.name
        'first_ten'
    """
    needed = Resources(**resources) if isinstance(resources, dict) else resources or Resources()

    def decorate(function: Function) -> FunctionStage:
        parameters = list(inspect.signature(function).parameters)
        if len(parameters) != 1:
            raise ConfigurationError(f"{function.__qualname__} must take one task, and takes {parameters or 'nothing'}")
        return FunctionStage(function=function, name=name, resources=needed, batch_size=batch_size or 1)

    return decorate
