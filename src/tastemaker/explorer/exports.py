"""Copying what is kept, in the background: the code of ``tastemaker select``, with its progress for the page."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from tastemaker.errors import ConfigurationError, TastemakerError
from tastemaker.selections.select import SelectSummary
from tastemaker.storage import is_remote

logger = logging.getLogger(__name__)

Work = Callable[[Path, Callable[[int], None]], SelectSummary]


@dataclass
class Export:
    """One export.

    Attributes:
        number: Names it.
        to: Where it goes, as an absolute path.
        form: One of `tastemaker.selections.select.KINDS`.
        images: How many pictures were chosen.
        done: How many of them are written.
        state: ``running``, ``done``, ``stopped`` or ``failed``.
        message: What came of it, in a sentence.
    """

    number: int
    to: str
    form: str
    images: int = 0
    done: int = 0
    state: str = "running"
    message: str = ""


class StopExport(Exception):  # noqa: N818 - no error: the user asked for it
    """Raised inside an export to end it."""


class Exports:
    """The exports of one server, one at a time."""

    def __init__(self) -> None:
        self._all: list[Export] = []
        self._stopping: set[int] = set()
        self._lock = Lock()
        self._thread: Thread | None = None

    def start(self, to: str, form: str, images: int, work: Work) -> dict[str, Any]:
        """Start an export and return it while it runs.

        Args:
            to: Where it goes, as the user typed it: nobody else knows the token.
            form: One of `tastemaker.selections.select.KINDS`.
            images: How many pictures were chosen.
            work: Does it: takes the path and a function to be told how many images are done.

        Raises:
            ConfigurationError: Nothing was typed, or a URL, or another export is running.
        """
        if not to.strip() or "\0" in to:
            raise ConfigurationError("say where the export goes: a folder, or a file for a manifest")
        if is_remote(to.strip()):
            raise ConfigurationError("exports go to this machine; `tastemaker select --to URL` writes to a URL")
        path = Path(to.strip()).expanduser().absolute()
        with self._lock:
            if any(export.state == "running" for export in self._all):
                raise ConfigurationError("an export is running: wait for it, or stop it")
            export = Export(len(self._all), str(path), form, images)
            self._all.append(export)
        name = f"export {export.number}"
        self._thread = Thread(target=self._run, args=(export, path, work), name=name, daemon=True)
        self._thread.start()
        return asdict(export)

    def get(self, number: int) -> dict[str, Any]:
        """Return an export's state.

        Raises:
            ConfigurationError: There is none of that number.
        """
        if not 0 <= number < len(self._all):
            raise ConfigurationError(f"there is no export {number}")
        return asdict(self._all[number])

    def stop(self, number: int) -> dict[str, Any]:
        """Ask an export to end, and return its state."""
        state = self.get(number)
        self._stopping.add(number)
        return state

    def close(self) -> None:
        """End an export that is running, and wait until nothing is left of it."""
        self._stopping.update(range(len(self._all)))
        if self._thread is not None:
            self._thread.join()

    def _run(self, export: Export, path: Path, work: Work) -> None:
        def on_progress(done: int) -> None:
            export.done = done
            if export.number in self._stopping:
                raise StopExport

        try:
            summary = work(path, on_progress)
            export.done, export.message = summary.written, _describe(summary, path)
            export.state = "done"
        except StopExport:
            export.message = f"stopped after {export.done:,} of {export.images:,} images; nothing is left of them"
            export.state = "stopped"
        except (TastemakerError, OSError) as error:
            export.state, export.message = "failed", str(error)
        except Exception as error:
            logger.exception("the export to %s failed", path)
            export.state, export.message = "failed", repr(error)


def _describe(summary: SelectSummary, path: Path) -> str:
    """Return what came of an export, for people."""
    skipped = ", ".join(f"{number:,} {kind}" for kind, number in summary.skipped.items())
    message = f"{summary.written:,} images written to {path}"
    return f"{message}\n{skipped}, not copied: see {summary.skipped_file}" if skipped else message
