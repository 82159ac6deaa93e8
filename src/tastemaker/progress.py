"""How far a run is: a bar on a terminal and in a notebook, plain lines elsewhere. On a terminal, all on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec


@dataclass(frozen=True)
class Progress:
    """How far some work is.

    Attributes:
        images: Images done so far.
        bytes_done: Bytes of their files done so far.
        bytes_total: Bytes of all files; 0 where nobody knows.
        images_total: All images; None where nobody knows, as of shards that are still to be read.
        found: Files found so far, while the input is still listed; None once it is.
    """

    images: int
    bytes_done: int = 0
    bytes_total: int = 0
    images_total: int | None = None
    found: int | None = None


@contextmanager
def show_progress(
    what: str, *, line_every_s: float = 10.0, at_once: bool = True
) -> Iterator[Callable[[Progress], None]]:
    """Yield a function that shows how far some work is, until the block ends.

    Args:
        what: Name of the work.
        line_every_s: Seconds between two lines, where there is no bar.
        at_once: Print the first line with the first call, and not some seconds later.
    """
    if sys.stderr.isatty() or _in_notebook():
        with _bar(what) as update:
            yield update
    else:
        yield _Lines(what, line_every_s, at_once).update


def _in_notebook() -> bool:
    """Return whether this runs in a notebook that can show a bar: rich needs ipywidgets for it."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel") and find_spec("ipywidgets") is not None


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
    from rich.progress import BarColumn, Progress as Bar, SpinnerColumn, TextColumn

    meter = Meter()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"))
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None, state="")

        def update(progress: Progress) -> None:
            done, total = progress.bytes_done, progress.bytes_total
            bar.update(task, total=total or None, completed=done, state=meter.describe(progress))

        yield update


class _Lines:
    def __init__(self, what: str, every_s: float, at_once: bool) -> None:
        self._what, self._every_s = what, every_s
        self._meter = Meter()
        self._last_line = -every_s if at_once else time.monotonic()

    def update(self, progress: Progress) -> None:
        state, now = self._meter.describe(progress), time.monotonic()
        if now - self._last_line >= self._every_s:
            self._last_line = now
            print(f"{self._what}: {state}", file=sys.stderr, flush=True)


class Meter:
    """Says how far the work is, and how long it takes at the pace since the first images: loading does not count."""

    def __init__(self) -> None:
        self._first: tuple[float, Progress] | None = None

    def describe(self, progress: Progress) -> str:
        """Return ``312 of 804 images, 39%, 2.5 images/s, about 3 min left``, as far as that is known."""
        if progress.found is not None:
            return f"looking for files, {progress.found:,} so far"
        now, done, total = time.monotonic(), progress.bytes_done, progress.bytes_total
        all_images = f" of {progress.images_total:,}" if progress.images_total is not None else ""
        parts = [f"{progress.images:,}{all_images} images"]
        if done and total:
            parts.append(f"{done / total:.0%}")
        if progress.images and self._first is None:
            self._first = (now, progress)
        if self._first is not None and progress.images > self._first[1].images:
            seconds, before = now - self._first[0], self._first[1]
            pace = (progress.images - before.images) / max(seconds, 1e-9)
            parts.append(f"{pace:,.0f} images/s" if pace >= 100 else f"{pace:.1f} images/s")
            if done > before.bytes_done:
                parts.append(f"about {duration(seconds * (total - done) / (done - before.bytes_done))} left")
        return ", ".join(parts)


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
