"""What has been done, what is being done, and what died of it: the memory of a run on a cluster.

One ledger for each run, in a process on the driver's machine. Workers ask it for tasks and report to it, so the engine
itself carries numbers only, and a run that an engine gives up is started again with what has no result yet.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tastemaker.executors.timing import StageTiming, sum_timings

MAX_DEATHS = 3
"""Workers that may die on the same step before what is in it is recorded as failed; also workers that may die while
they set up before the run ends with an error."""

MAX_DEATHS_IN_TASK = 2 * MAX_DEATHS
"""Workers that may die on the same step, left out or not, before nothing of the task is read any more."""

MAX_DEATHS_IN_RUN = 3 * MAX_DEATHS
"""Workers that may die on the same step, though nothing is read any more, before the run ends with an error."""

REASONS = {
    "batch": f"its worker died {MAX_DEATHS} times on this batch",
    "reading": f"its worker died {MAX_DEATHS} times while it read this file",
    "making": f"its worker died {MAX_DEATHS} times while it made a batch",
}
"""Kind of a step -> why it was not done."""

Step = tuple[str, int]
"""Kind and number: see `tastemaker.stages.base.BeforeStep`."""

Counts = dict[str, tuple[int, int]]
"""Stage -> images, bytes of their sources."""


@dataclass(frozen=True)
class Work:
    """An initial task, handed to a worker.

    Attributes:
        payload: The task, pickled.
        attempt: 1, or more where a worker that had it died or was stopped.
        careful: Whether it is to be done one step at a time, with nothing else under way.
    """

    payload: bytes
    attempt: int
    careful: bool


@dataclass(slots=True)
class _Attempt:
    worker: str
    step: Step | None  # None in the ordinary way
    counts: Counts = field(default_factory=dict)


@dataclass(slots=True)
class _Deaths:
    """Of one task: in the ordinary way, where many batches are under way at once, and at single steps."""

    ordinary: int = 0
    steps: Counter[Step] = field(default_factory=Counter)

    def at(self, step: Step) -> int:
        """The death in the ordinary way counts for the step that the next one was found at."""
        first = next(iter(self.steps), None)
        return self.steps[step] + (1 if self.ordinary and step == first else 0)


@dataclass
class Report:
    """What the driver fetches from time to time.

    Attributes:
        results: Task -> its results, pickled; each is handed over once.
        counts: Stage -> images and bytes so far.
        records: Log records of workers: level, logger, text.
        finished: Tasks with a result.
        timings: Where the time of each stage went, summed over workers.
        error: What a worker raised, pickled; None if nothing did.
    """

    results: dict[int, bytes]
    counts: Counts
    records: list[tuple[int, str, str]]
    finished: int
    timings: list[StageTiming]
    error: bytes | None


class Ledger:
    """See the module. Every method is short: workers wait for the answers."""

    def __init__(self) -> None:
        self._payloads: list[bytes] = []
        self._waiting: set[int] = set()
        self._open: dict[int, _Attempt] = {}
        self._begun: Counter[int] = Counter()
        self._deaths: dict[int, _Deaths] = {}
        self._finished: set[int] = set()
        self._results: dict[int, bytes] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        self._records: list[tuple[int, str, str]] = []
        self._timings: dict[str, list[StageTiming]] = {}
        self._setups: Counter[str] = Counter()
        self._loaded: set[str] = set()
        self._handles: list[Any] = []
        self._ready_nodes: set[str] = set()
        self._failed: dict[tuple[int, Step], list[str]] = {}
        self._error: bytes | None = None
        self._bytes = 0
        self._progress = 0

    # -- the driver's side

    def add(self, payloads: list[bytes]) -> None:
        """Append initial tasks, pickled."""
        self._waiting.update(range(len(self._payloads), len(self._payloads) + len(payloads)))
        self._payloads += payloads

    def start_run(self, dead: list[str]) -> tuple[list[int], int]:
        """Take all tasks back that workers have. Return those without a result, and how far the run has come.

        Args:
            dead: Workers that are known to have died; those of the others were only stopped.
        """
        for number in list(self._open):
            if self._open[number].worker in dead:
                self._note_death(number)
            else:
                del self._open[number]
        self._waiting = set(range(len(self._payloads))) - self._finished
        self._loaded.clear()
        self._setups.clear()
        return sorted(self._waiting), self._progress

    def collect(self) -> Report:
        """Return what is new. Results and log records leave the ledger with it."""
        counts = Counter(self._counts)
        for attempt in self._open.values():
            counts.update(_flat(attempt.counts))
        stages = {stage: (counts[stage, "images"], counts[stage, "bytes"]) for stage, _ in counts}
        timings = sum_timings(list(self._timings.values()))
        report = Report(self._results, stages, self._records, len(self._finished), timings, self._error)
        self._results, self._records = {}, []
        return report

    def bytes_crossed(self) -> int:
        """Return the bytes of all tasks and results that went to and from workers."""
        return self._bytes

    def failed(self) -> dict[tuple[int, Step], list[str]]:
        """Return (task, step) -> names of what was recorded as failed because workers died of it."""
        return self._failed

    def take_handles(self) -> list[Any]:
        """Return the handles of all workers that signed on since the last call."""
        handles, self._handles = self._handles, []
        return handles

    # -- the workers' side

    def sign_on(self, handle: list[Any]) -> None:
        """Note a worker, so that it can be ended. The handle comes in a list so that Ray does not wait for it."""
        self._handles += handle

    def node_is_ready(self, node: str) -> bool:
        """Return whether a machine's weights are there."""
        return node in self._ready_nodes

    def set_node_ready(self, node: str) -> None:
        """Note that a machine's weights are there."""
        self._ready_nodes.add(node)

    def begin_setup(self, worker: str) -> bool:
        """Note that a worker starts to load. Return False where too many died of that: it is to give up."""
        self._setups[worker] += 1
        return self._setups[worker] <= MAX_DEATHS

    def end_setup(self, worker: str) -> None:
        """Note that a worker has loaded."""
        del self._setups[worker]
        self._loaded.add(worker)

    def end_teardown(self, worker: str) -> None:
        """Note that a worker has freed what it loaded."""
        self._loaded.discard(worker)

    def others_to_free(self, worker: str) -> int:
        """Return how many other workers have not torn down yet, once all tasks are done."""
        return 0 if self._open or self._waiting else len(self._loaded - {worker})

    def begin(self, number: int, worker: str, *, alone: bool = False) -> Work | None:
        """Return a task for a worker; None where it is finished. One that is still open: its worker died.

        Args:
            number: The task.
            worker: Who is to do it.
            alone: Nothing else is under way there. Without that, a task to be done carefully is not begun yet.
        """
        if number in self._finished or self._error is not None:
            return None
        if number in self._open:
            self._note_death(number)
        careful = number in self._deaths
        if careful and not alone:
            return Work(b"", self._begun[number] + 1, careful)
        self._begun[number] += 1
        self._open[number] = _Attempt(worker, ("making", 0) if careful else None)
        self._waiting.discard(number)
        self._bytes += len(self._payloads[number])
        return Work(self._payloads[number], self._begun[number], careful)

    def begin_step(self, number: int, worker: str, step: Step) -> int:
        """Note which step of a task a worker takes up. Return how many died at it, or count for it."""
        attempt = self._open.get(number)
        if attempt is not None and attempt.worker == worker:  # else the task was taken from it: it is being ended
            attempt.step = step
        deaths = self._deaths[number]
        is_over = step[0] == "reading" and max(deaths.steps.values(), default=0) >= MAX_DEATHS_IN_TASK
        return max(deaths.at(step), MAX_DEATHS if is_over else 0)

    def fail_step(self, number: int, step: Step, names: list[str]) -> None:
        """Note what is in a step that fails because workers died at it."""
        self._failed[number, step] = names

    def pulse(self, worker: str, counts: dict[int, Counts], timings: list[StageTiming], records: list[Any]) -> bool:
        """Note how far a worker is. Return whether there is nothing left for it to begin."""
        for number, count in counts.items():
            if number in self._open and self._open[number].worker == worker:
                self._open[number].counts = count
        self._timings[worker] = timings
        self._records += records
        return not self._waiting

    def finish(self, number: int, results: bytes, counts: Counts) -> None:
        """Note the results of a task."""
        self._bytes += len(results)
        self._open.pop(number, None)
        if number in self._finished:  # a worker that was taken for dead has come back
            return
        self._finished.add(number)
        self._results[number] = results
        self._payloads[number] = b""
        del self._begun[number]
        self._counts.update(_flat(counts))
        self._progress += 1

    def fail(self, error: bytes) -> None:
        """Note what a worker raised: the run is over."""
        self._error = self._error or error

    def _note_death(self, number: int) -> None:
        attempt = self._open.pop(number)
        deaths = self._deaths.setdefault(number, _Deaths())
        if attempt.step is None:
            deaths.ordinary += 1
        else:
            deaths.steps[attempt.step] += 1
        self._progress += 1  # a step can kill few workers only, so this ends


def _flat(counts: Counts) -> dict[tuple[str, str], int]:
    return {
        (stage, what): n for stage, pair in counts.items() for what, n in zip(("images", "bytes"), pair, strict=True)
    }
