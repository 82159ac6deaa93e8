"""Scoring in a process of its own, so that the page stays quick: the same run as that of ``tastemaker score``."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import Any

import platformdirs

from tastemaker.errors import ConfigurationError, TastemakerError, WeightsNotFoundError, was_interrupted
from tastemaker.progress import Meter, Progress
from tastemaker.runs.options import WITHOUT_MODEL, RunMode, RunOptions
from tastemaker.scores.files import read_metadata
from tastemaker.scores.layout import ROWS_FOLDER, ROWS_SUFFIX
from tastemaker.scores.locations import is_of_rows
from tastemaker.scores.schema import SOURCES_KEY, original_name
from tastemaker.scores.table import ScoreTable
from tastemaker.storage import base_name
from tastemaker.storage.inputs import digest_of
from tastemaker.storage.place import Place

_STOP_TIMEOUT_S = 10.0


class Scoring:
    """A run that scores pictures while somebody looks at them.

    The first rows come soon: their files are small. Where the weights are not there and cannot be fetched, pictures are
    ranked by technical quality; the next run with weights scores them.

    Args:
        inputs: Folders, files, patterns and URLs of pictures.
        output: The folder of results.
        options: Of the run.

    Attributes:
        problem: What went wrong, in a sentence or two; empty for nothing.
    """

    def __init__(self, inputs: Sequence[str], output: str, options: RunOptions) -> None:
        self._state, self.problem, self._meter = "looking for pictures", "", Meter()
        context = multiprocessing.get_context("spawn")
        self._from_run, to_page = context.Pipe(duplex=False)
        self._process = context.Process(target=_score, args=(list(inputs), output, options, to_page), name="scoring")
        self._to_page = to_page
        self._reader: Thread | None = None

    def start(self, on_end: Callable[[], None] = lambda: None) -> None:
        """Start the run.

        Args:
            on_end: Called once it has ended, in a thread of its own.
        """
        # A terminal sends Ctrl-C to all processes, and this one decides: the child ignores it from its first moment on.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._process.start()
        signal.signal(signal.SIGINT, before)
        self._to_page.close()
        self._reader = Thread(target=self._read, args=[on_end], name="scoring", daemon=True)
        self._reader.start()

    def state(self) -> dict[str, Any]:
        """Return how far the run is (empty once it is over), and what went wrong, in sentences."""
        return {"text": self._state, "problem": self.problem}

    def close(self) -> None:
        """Stop the run. What is scored stays, and the next run goes on from there."""
        if self._reader is None:
            return
        self._process.terminate()
        self._process.join(_STOP_TIMEOUT_S)
        self._process.kill()
        self._process.join()
        self._reader.join()
        self._from_run.close()

    def _read(self, on_end: Callable[[], None]) -> None:
        try:
            while True:
                said = self._from_run.recv()
                if isinstance(said, Progress):
                    self._state = self._meter.describe(said)
                else:
                    self.problem = said
        except (EOFError, OSError):  # the run is over
            self._state = ""
        on_end()


def default_output(inputs: Sequence[str]) -> str:
    """Return the folder among the user's data where rows of these inputs go: nothing is written among the pictures.

    Rows of a single folder follow it: where it was moved or renamed, theirs is renamed, too.
    """
    places = [Place.of(source).resolve().address for source in inputs]
    shown = base_name(places[0].rstrip("/"))[:50] or "pictures"  # a name has 255 bytes at most
    name = f"{shown}-{digest_of(chr(0).join(places))[:8]}"
    output = Path(platformdirs.user_data_dir("tastemaker")) / "explored" / name
    if len(places) == 1 and not output.exists():
        before = next((other for other in output.parent.glob("*") if _are_of_moved(other, places[0])), None)
        if before is not None:
            before.rename(output)
    return str(output)


def _are_of_moved(results: Path, folder: str) -> bool:
    """Return whether the folder that rows are of is gone, and most of their files lie in another one as they did."""
    try:
        first = min((results / ROWS_FOLDER).glob(f"*{ROWS_SUFFIX}"))
        sources = json.loads(read_metadata(first)[SOURCES_KEY])
        root = original_name(sources["root"])
        files = [(original_name(path), int(size)) for path, size, _ in sources["files"] if size >= 0]
    except (OSError, ValueError, TypeError, KeyError):  # no rows yet, or a file of somebody else
        return False
    if not os.path.isabs(root) or os.path.exists(root):
        return False
    there = (Path(folder, os.path.relpath(path, root)) for path, _ in files)
    same = sum(path.is_file() and path.stat().st_size == size for path, (_, size) in zip(there, files, strict=True))
    return 2 * same > len(files)


def _score(inputs: list[str], output: str, options: RunOptions, to_page: Connection) -> None:
    """Score pictures, in a process of its own that ends with the page's."""
    from tastemaker.runs.run import run_scoring

    logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.WARNING)
    logging.getLogger("tastemaker.models.hub").setLevel(logging.INFO)  # a download takes minutes
    signal.signal(signal.SIGTERM, _stop)

    def tell(said: Progress | str) -> None:
        try:
            to_page.send(said)
        except OSError:  # the page's process was killed
            os._exit(1)

    def fail(why: str) -> None:
        tell(why)
        if is_of_rows(output, options.storage_options):  # the page stays; without rows the program ends with this
            logging.getLogger(__name__).warning("tastemaker: %s", why)

    try:
        try:
            again = options.is_by_model and _is_without_model(output)
            mode = RunMode(overwrite=again, new_fingerprint_only=not again, wait=True)
            run_scoring(inputs, output, options, mode, on_progress=tell)
        except WeightsNotFoundError as error:
            instead = (
                "Ranked by sharpness, exposure and noise: the model's weights are not here, and cannot be fetched now."
            )
            logging.getLogger(__name__).warning("%s\n%s", error, instead)
            tell(instead)
            without = RunOptions(rank_by=WITHOUT_MODEL, storage_options=options.storage_options)
            mode = RunMode(new_fingerprint_only=True, wait=True)
            run_scoring(inputs, output, without, mode, on_progress=tell)
    except TastemakerError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename or output}: {error.strerror or error}")
    except (KeyboardInterrupt, ImportError) as error:
        if not was_interrupted(error):
            raise


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _is_without_model(output: str) -> bool:
    """Return whether there are rows that no model has scored: they are made again once there are weights."""
    try:
        return any(not made_by.entries.get("scores") for made_by in ScoreTable(output).provenance)
    except ConfigurationError:
        return False
