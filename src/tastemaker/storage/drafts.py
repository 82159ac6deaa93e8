"""Temporary files of this machine: each process has a folder, and clears those of processes that were killed."""

from __future__ import annotations

import atexit
import errno
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from tastemaker.errors import DiskFullError
from tastemaker.machine import is_running
from tastemaker.storage.place import Place

_DRAFTS = "tastemaker-drafts-"

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The system's numbers of errors for a full disk, a quota that is used up, and a limit on the size of files."""


def draft_folder() -> Path:
    """Return the folder of this process for temporary files. The folders of killed processes are deleted first."""
    return _make_draft_folder(os.getpid())


def make_durable(path: Path) -> None:
    """Write the bytes of a local file to the disk itself, so that they outlive a power cut."""
    with path.open("rb" if os.name == "posix" else "rb+") as file:  # a link to a picture may be read only
        os.fsync(file.fileno())


@contextmanager
def explain_full_disk(place: Place) -> Iterator[None]:
    """Turn whatever a full disk raised in the block, however deep, into one error that says what to do.

    Args:
        place: Where the results go.

    Raises:
        DiskFullError: There is no room.
    """
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, OSError) and cause.errno in FULL:
                where = str(place)
                if place.local_path is None:
                    where = f"{tempfile.gettempdir()}, where files for {where} are made"
                raise DiskFullError(
                    f"there is no room left for the results in {where} ({cause.strerror or cause}). What is finished "
                    "stays; make room, and the same command goes on from here"
                ) from error
            cause = cause.__cause__ or cause.__context__
        raise


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
