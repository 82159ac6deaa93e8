"""Temporary files of this machine: a folder for each process, and the next one clears what a killed one left."""

from __future__ import annotations

import atexit
import os
import platform
import shutil
import tempfile
from functools import cache
from pathlib import Path

from tastemaker.machine import is_running

_DRAFTS = "tastemaker-drafts-"


def draft_folder() -> Path:
    """Return this process's folder for temporary files. What killed processes left in theirs is deleted."""
    return _make_draft_folder(os.getpid())


def make_durable(path: Path) -> None:
    """Have a local file's bytes written to the disk itself: they outlive a power cut."""
    with path.open("rb" if os.name == "posix" else "rb+") as file:  # a link to a picture may be read only
        os.fsync(file.fileno())


@cache
def _make_draft_folder(process: int) -> Path:
    _remove_old_drafts()
    folder = Path(tempfile.mkdtemp(prefix=f"{_DRAFTS}{platform.node()}-{process}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _remove_old_drafts() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_DRAFTS}{platform.node()}-*-*"):
        process = folder.name.split("-")[-2]
        if process.isdecimal() and not is_running(int(process)):
            shutil.rmtree(folder, ignore_errors=True)  # those of other users stay: they cannot be deleted
