"""Listings with paths as text."""

from __future__ import annotations

from typing import NamedTuple

from tastemaker.storage import Options
from tastemaker.storage.place import Entry, Place


class File(NamedTuple):
    """A remote file: its URL, and its size in bytes."""

    path: str
    size: int


def list_files(url: str, options: Options | None = None) -> list[File]:
    """Return all files below a folder, see `Place.list`."""
    return _as_text(Place.at(url, options).list())


def glob_files(url: str, options: Options | None = None) -> list[File]:
    """Return the files that a pattern fits, see `Place.glob`."""
    return _as_text(Place.at(url, options).glob())


def _as_text(entries: list[Entry]) -> list[File]:
    return [File(entry.place.address, entry.size) for entry in entries]
