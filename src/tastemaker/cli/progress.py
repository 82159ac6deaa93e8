"""How far a run is: a bar on a terminal, plain lines elsewhere. All on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tastemaker.runs.progress import Progress as RunProgress
    from tastemaker.selections.select import SelectProgress

    Progress = RunProgress | SelectProgress

_LINE_EVERY_S = 10.0


@contextmanager
def show_progress(what: str) -> Iterator[Callable[[Progress], None]]:
    """Yield a function that shows a run's progress until the block ends."""
    if sys.stderr.isatty():
        with _bar(what) as update:
            yield update
    else:
        yield _Lines(what).update


@contextmanager
def show_one_after_the_other(*names: str) -> Iterator[list[Callable[[Progress], None]]]:
    """Yield such a function for each of several pieces of work; the first call of each ends the display before it."""
    with ExitStack() as shown:

        def begin(what: str) -> Callable[[Progress], None]:
            update: Callable[[Progress], None] | None = None

            def show(progress: Progress) -> None:
                nonlocal update
                if update is None:
                    shown.close()
                    update = shown.enter_context(show_progress(what))
                update(progress)

            return show

        yield [begin(name) for name in names]


@contextmanager
def _bar(what: str) -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress as Bar,
        SpinnerColumn,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[images]:,} images"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    meter = _Meter()
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None, images=0, rate="")

        def update(progress: Progress) -> None:
            bar.update(
                task,
                total=progress.bytes_total,
                completed=progress.bytes_done,
                images=progress.images,
                rate=meter.rate(progress.images),
            )

        yield update


class _Meter:
    """Images a second since the first ones came, so that loading the model does not count."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    def rate(self, images: int) -> str:
        """Return the rate for people; empty while there is none."""
        now = time.monotonic()
        if self._first is None:
            self._first = (now, images)
        seconds, number = now - self._first[0], images - self._first[1]
        return f"{number / seconds:.1f} images/s" if seconds > 0 and number else ""


class _Lines:
    def __init__(self, what: str) -> None:
        self._what = what
        self._meter = _Meter()
        self._last_line = time.monotonic()
        self._first: tuple[float, int] | None = None

    def update(self, progress: Progress) -> None:
        rate = self._meter.rate(progress.images)
        now, done, total = time.monotonic(), progress.bytes_done, max(1, progress.bytes_total)
        if self._first is None:
            self._first = (now, done)  # so that loading the model does not count
        if now - self._last_line < _LINE_EVERY_S:
            return
        self._last_line = now
        seconds, worked = now - self._first[0], done - self._first[1]
        left = f"about {duration(seconds * (total - done) / worked)} left" if worked > 0 else ""
        parts = [f"{progress.images:,} images", f"{done / total:.0%}", rate, left]
        print(f"{self._what}: {', '.join(filter(None, parts))}", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Return a length of time for people.

    Example:
        >>> duration(7), duration(90), duration(7300)
        ('7 s', '2 min', '2 h 02 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
