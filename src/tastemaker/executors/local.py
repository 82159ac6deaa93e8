"""Every stage in a thread of this process, joined by bounded queues."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from tastemaker.executors.base import BaseExecutor, Stage
from tastemaker.executors.chain import QUEUE_SIZE, Chain
from tastemaker.tasks import EmptyTask, Task


class LocalExecutor(BaseExecutor):
    """Runs a pipeline in threads: reading and decoding overlap inference, results come in the order of the input.

    Args:
        config: ``queue_size``: tasks that may wait before each stage (2).
        on_progress: Called with what a stage has made, in that stage's thread.
    """

    def execute(self, stages: list[Stage], initial_tasks: list[Task[Any]] | None = None) -> list[Task[Any]]:
        """Return what the last stage makes of the tasks, in order.

        Raises:
            ConfigurationError: A stage's check failed; nothing was loaded yet.
            StageError: A stage raised. All others were stopped.
            KeyboardInterrupt: Stops all stages within two seconds; what they had not finished is deleted.
        """
        for stage in stages:
            stage.check()
        chain = Chain(stages, self.config.get("queue_size", QUEUE_SIZE))
        self.timings = chain.timings
        report = self.on_progress
        on_count = None if report is None else lambda _, count: report(count)
        chain.setup_on_node()
        try:
            chain.setup()
            with closing(chain.run(list(initial_tasks or [EmptyTask()]), on_count)) as results:
                return [result for group in results for result in group]
        finally:
            chain.teardown()
