"""Weights at a URL: fetched once to the user's cache, for each version of the file."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import filelock

from tastemaker.errors import ModelError, RemoteError, WeightsNotFoundError
from tastemaker.storage import Options
from tastemaker.storage.drafts import make_durable
from tastemaker.storage.place import Place

logger = logging.getLogger(__name__)


def fetch_weights(
    url: str,
    options: Options | None,
    cache: Path,
    find_problems: Callable[[Path], list[str]] = lambda _: [],
) -> Path:
    """Return the local copy of a weights file, fetched if this version of it is not there yet.

    Processes and threads that ask at the same time share one download. One that was interrupted goes on. Each call asks
    the server for the version, so that a file that was replaced is fetched anew.

    Args:
        url: The file.
        options: Arguments of its file system.
        cache: Local directory of such copies.
        find_problems: Says why a file cannot be used; nothing of such a file is kept.

    Raises:
        WeightsNotFoundError: The file is not there or cannot be read.
        ModelError: It is no such file.
    """
    try:
        place = Place.at(url, options)
        entry = place.stat()
        if entry is None:
            raise WeightsNotFoundError(f"weights: {place} does not exist")
        identity = f"{place}\n{entry.size}\n{entry.version}\n"
        folder = cache / hashlib.sha256(identity.encode()).hexdigest()[:32]
        path = folder / place.name
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / ".lock"):
            if not path.is_file():
                _fetch(place, path, find_problems)
    except RemoteError as error:
        raise WeightsNotFoundError(f"weights: {error}") from error
    return path


def _fetch(place: Place, path: Path, find_problems: Callable[[Path], list[str]]) -> None:
    logger.info("fetching %s to %s", place, path)
    part = path.with_name(f".part.{path.name}")
    place.fetch(part)
    if problems := find_problems(part):
        part.unlink()
        raise ModelError(f"{place} cannot be used: {'; '.join(problems[:3])}")
    make_durable(part)
    part.replace(path)
