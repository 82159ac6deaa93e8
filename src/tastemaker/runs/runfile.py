"""``run.json`` says what a run is doing, what came of it, and how the runs before it ended."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from tastemaker.machine import describe_machine
from tastemaker.runs.fingerprint import Fingerprint
from tastemaker.runs.options import Slice
from tastemaker.runs.summary import RunSummary
from tastemaker.scores.layout import STATE_FOLDER, read_note
from tastemaker.scores.named import note_inputs
from tastemaker.storage.place import Place

RUN_FILE = f"{STATE_FOLDER}/run.json"
"""Path below the output directory. The file of a slice is called ``run-0-of-8.json``."""

EARLIER_RUNS = 50
"""So many earlier runs are listed; the oldest are dropped."""

_SAVE_EVERY_S = 30.0


class RunFile:
    """The file of one run. It is written when the run starts, twice a minute while images are done, and when it ends.

    Args:
        output_dir: Directory of the results.
        part: The slice that the run does; None for all.
        inputs: As they were given.
        options: The same.
        fingerprint: What its rows are made with.
    """

    def __init__(
        self,
        output_dir: Place,
        part: Slice | None,
        inputs: list[str],
        options: dict[str, Any],
        fingerprint: Fingerprint,
    ) -> None:
        self.path = run_file(output_dir, part)
        self._started = datetime.now(UTC)
        self._per_minute: Counter[int] = Counter()  # minute from the start -> images
        self._lock = threading.Lock()
        self._saved = 0.0
        before = read_note(self.path)
        self._record: dict[str, Any] = {
            "state": "running",
            "started": self._started.isoformat(timespec="seconds"),
            "ended": None,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "inputs": inputs,
            "originals": note_inputs(inputs, before.get("originals")),
            "options": options,
            "slice": str(part) if part else None,
            "fingerprint": fingerprint,
            "machine": describe_machine(),
            "images_done": 0,
            "rates": {},
            "images_per_minute": [],
            "summary": None,
            "earlier_runs": _list_earlier(before),
        }

    def start(self) -> None:
        """Write the file."""
        self._save()

    def count(self, images: int) -> None:
        """Count images that were done just now, and write the file if that was half a minute ago."""
        with self._lock:
            self._per_minute[int((datetime.now(UTC) - self._started).total_seconds() // 60)] += images
        if time.monotonic() - self._saved >= _SAVE_EVERY_S:
            with suppress(OSError):
                self._save()

    def finish(self, summary: RunSummary) -> None:
        """Write the summary of a run that has finished."""
        done = summary.images_scored_now
        rates = {stage.name: round(done / stage.busy_s, 2) for stage in summary.stages if done and stage.busy_s}
        self._record |= {"rates": rates, "summary": summary.as_json()}
        self._end("finished")

    def stop(self, error: BaseException) -> None:
        """Write what stopped the run, unless it has ended already. On a full disk, nothing is written."""
        if self._record["state"] == "running":
            self._record["error"] = f"{type(error).__name__}: {error}"
            with suppress(OSError):
                self._end("stopped")

    def _end(self, state: str) -> None:
        self._record |= {"state": state, "ended": datetime.now(UTC).isoformat(timespec="seconds")}
        self._save()

    def _save(self) -> None:
        with self._lock:  # a thread of the run may be at it when the run ends, and the end is to be written last
            self._saved = time.monotonic()
            minutes = [self._per_minute[minute] for minute in range(max(self._per_minute, default=-1) + 1)]
            record = self._record | {"images_done": sum(minutes), "images_per_minute": minutes}
            self.path.write((json.dumps(record, indent=2) + "\n").encode())


def run_file(output_dir: Place, part: Slice | None) -> Place:
    """Return where the file of a run lies."""
    return output_dir / STATE_FOLDER / f"run-{part}.json" if part else output_dir / RUN_FILE


def _list_earlier(last: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the runs before this one, the latest first. One that never said that it ended was killed."""
    if "started" not in last:
        return []
    summary, earlier = last.get("summary"), last.get("earlier_runs")
    summary = summary if isinstance(summary, dict) else {}
    entry = {
        "started": last["started"],
        "ended": last.get("ended"),
        "state": "killed" if last.get("state") == "running" else last.get("state", "finished"),
        "host": last.get("host"),
        "images_done": last.get("images_done", summary.get("images_scored_now")),
        "seconds": summary.get("seconds"),
    }
    return [entry, *(earlier if isinstance(earlier, list) else [])][:EARLIER_RUNS]
