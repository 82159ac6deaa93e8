"""Copying what is kept, in the background: the code of ``tastemaker select``, with its progress for the page."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from tastemaker.errors import ConfigurationError, TastemakerError
from tastemaker.progress import Progress
from tastemaker.selections.select import SelectSummary
from tastemaker.storage import expand_path, is_remote

logger = logging.getLogger(__name__)

Work = Callable[..., SelectSummary]


@dataclass
class Export:
    """One export.

    Attributes:
        to: Where it goes, as an absolute path.
        images: How many pictures were chosen.
        done: How many of them are written.
        state: ``none``, ``running``, ``done``, ``stopped`` or ``failed``.
        message: What came of it, in a sentence.
    """

    to: str = ""
    images: int = 0
    done: int = 0
    state: str = "none"
    message: str = ""


class StopExport(Exception):  # noqa: N818 - no error: the user asked for it
    """Raised inside an export to end it."""


class Exports:
    """The exports of one server, one after the other; the last one is remembered."""

    def __init__(self) -> None:
        self._last = Export()
        self._is_stopping = Event()
        self._lock = Lock()
        self._thread: Thread | None = None

    def start(self, to: str, images: int, work: Work) -> dict[str, Any]:
        """Start an export and return it while it runs.

        Args:
            to: Where it goes, as the user typed it: nobody else knows the token.
            images: How many pictures were chosen.
            work: Does it: takes the path, and as ``on_progress`` what is told the progress.

        Raises:
            ConfigurationError: Nothing was typed, or a URL, or another export is running.
        """
        path = path_here(to, "select --to")
        with self._lock:
            if self._last.state == "running":
                raise ConfigurationError("an export is running: wait for it, or stop it")
            self._last = export = Export(str(path), images, state="running")
            self._is_stopping.clear()
        self._thread = Thread(target=self._run, args=(export, path, work), name="export", daemon=True)
        self._thread.start()
        return asdict(export)

    def state(self) -> dict[str, Any]:
        """Return the last export."""
        return asdict(self._last)

    def stop(self) -> dict[str, Any]:
        """Ask the export to end, and return it."""
        self._is_stopping.set()
        return self.state()

    def close(self) -> None:
        """End an export that is running, and wait until nothing is left of it."""
        self._is_stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, export: Export, path: Path, work: Work) -> None:
        def on_progress(progress: Progress) -> None:
            export.done = progress.images
            if self._is_stopping.is_set():
                raise StopExport

        state = "failed"
        try:
            summary = work(path, on_progress=on_progress)
            export.done, export.message, state = summary.written, _describe(summary, path), "done"
        except StopExport:
            export.message = f"stopped after {export.done:,} of {export.images:,} images; nothing is left of them"
            state = "stopped"
        except (TastemakerError, OSError) as error:
            export.message = str(error)
        except Exception as error:
            logger.exception("the export to %s failed", path)
            export.message = repr(error)
        export.state = state


def path_here(typed: str, command: str) -> Path:
    """Return the path on this machine that a user typed.

    Args:
        typed: The text.
        command: The command, with its option, that writes to URLs as well.

    Raises:
        ConfigurationError: Nothing was typed, or a URL.
    """
    text = typed.strip()
    if not text or "\0" in text:
        raise ConfigurationError("say where it goes: type a path on this machine")
    if is_remote(text):
        raise ConfigurationError(f"the page writes on this machine only; `tastemaker {command} URL` writes to a URL")
    return Path(expand_path(text)).absolute()


def _describe(summary: SelectSummary, path: Path) -> str:
    """Return what came of an export, for people."""
    skipped = ", ".join(f"{number:,} {kind}" for kind, number in summary.skipped.items())
    message = f"{summary.written:,} images written to {path}"
    return f"{message}\n{skipped}, not copied: see {summary.skipped_file}" if skipped else message
