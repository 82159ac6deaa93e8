"""Where originals may be read. Rows may come from others, and a row may name any file of this machine or any URL.

Originals are read only from places that the user named: as an input of a run of their own, or by ``--originals``. A run
notes its inputs beside its rows, with a mark that only the key of this user can make.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import platformdirs

from tastemaker.errors import ConfigurationError
from tastemaker.scores.layout import STATE_FOLDER, read_note, results_of
from tastemaker.storage import is_remote, public_url, with_one_scheme
from tastemaker.storage.place import Place

_KEY_BYTES = 32
_MAX_CHARACTERS = 10_000
"""No file system or server takes a longer path, and to look at one takes time that grows with its square."""


class NamedPlaces:
    """The places that originals may be read from, and the options to read them with.

    Args:
        places: Files, folders, globs and URLs. A file stands for its sidecars, too.
        notes: What `find_noted` returned.
        options: Of the stores of URLs.

    Attributes:
        options: The same.
    """

    def __init__(
        self, places: Iterable[str] = (), notes: Iterable[str] = (), options: Mapping[str, Any] | None = None
    ) -> None:
        self.options = dict(options or {})
        self._beginnings = {*notes, *beginnings_of(places)}

    def __contains__(self, path: object) -> bool:
        """Return whether a path or URL that a row names lies in one of the places."""
        if not isinstance(path, str) or len(path) > _MAX_CHARACTERS:
            return False
        return not self._beginnings.isdisjoint(_candidates(path))


def note_inputs(inputs: Iterable[str], earlier: object) -> dict[str, Any]:
    """Return what the file of a run says of the places that the user named.

    Args:
        inputs: Of the run.
        earlier: What the file said before; what this user noted there stays.
    """
    places = sorted(beginnings_of(inputs) | _read_places(earlier))
    return {"places": places, "mark": _mark(places, make_key=True)}


def find_noted(rows_files: Iterable[str], options: Mapping[str, Any] | None) -> set[str]:
    """Return the inputs that runs of this user noted beside rows, as `NamedPlaces` takes them."""
    found: set[str] = set()
    for folder in {Place.at(path, options).parent for path in rows_files}:
        with suppress(OSError, ConfigurationError):  # a web server has no listing; a folder may be unreadable
            for entry in (results_of(folder) / STATE_FOLDER).list(recursive=False):
                if re.fullmatch(r"run.*\.json", entry.place.name):
                    found |= _read_places(read_note(entry.place).get("originals"))
    return found


def _read_places(note: object) -> set[str]:
    """Return the places of a note; none where somebody else wrote it."""
    if not isinstance(note, dict) or not isinstance(note.get("mark"), str) or not isinstance(note.get("places"), list):
        return set()
    mark = _mark(note["places"])
    return set(note["places"]) if mark and hmac.compare_digest(note["mark"].encode(), mark.encode()) else set()


def _mark(places: list[str], *, make_key: bool = False) -> str | None:
    """Return what proves that this user noted some places; None where there is no key."""
    path = Path(platformdirs.user_data_dir("tastemaker")) / "runs.key"
    try:
        if make_key and not path.exists():
            _make_key(path)
        key = path.read_bytes()
    except OSError:
        return None
    return hmac.digest(key, json.dumps(places).encode(), "sha256").hex() if len(key) == _KEY_BYTES else None


def _make_key(path: Path) -> None:
    """Make the key of this user; of several processes that do, one is first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent) as draft:  # only its owner can read it
        draft.write(secrets.token_bytes(_KEY_BYTES))
        draft.flush()
        with suppress(FileExistsError):
            os.link(draft.name, path)


def beginnings_of(places: Iterable[str]) -> set[str]:
    """Return how the paths begin that lie in some places: with ``folder/``, or with a file's name up to its dot.

    Example:
        >>> sorted(beginnings_of(["s3://bucket/a/b.tar", "https://host/*/c.jpg"]))
        ['https://host/', 's3://bucket/a/b.', 's3://bucket/a/b.tar', 's3://bucket/a/b.tar/']
    """
    return {beginning for place in places for beginning in _beginnings_of(place)}


def _beginnings_of(place: str) -> Iterator[str]:
    local = Place.of(place).local_path
    pattern = re.search(r"[*?\[{]", place if local is None else str(local))
    if local is None:
        url = with_one_scheme(place if pattern and pattern[0] != "?" else public_url(place))
        if (pattern := re.search(r"[*\[{]", url)) is not None:
            yield url[: url.rindex("/", 0, pattern.start()) + 1]
            return
        yield from _of_file(url.rstrip("/"))
        yield f"{url.rstrip('/')}/"
        return
    text = str(local)
    if pattern and not os.path.lexists(text):
        text = os.path.dirname(text[: pattern.start()]) or "."
    for path in {os.path.abspath(text), os.path.realpath(text)}:
        yield from [os.path.join(path, "")] if os.path.isdir(path) else _of_file(path)


def _of_file(path: str) -> Iterator[str]:
    folder, slash, name = path.rpartition("/")
    yield path
    if "." in name[1:] and not folder.endswith(":/"):
        yield f"{folder}{slash}{name.rpartition('.')[0]}."


def _candidates(path: str) -> Iterator[str]:
    """Yield with what a path might begin in `beginnings_of`; nothing of a URL that may lead upwards."""
    if is_remote(path):
        path = with_one_scheme(public_url(path))
        if {".", ".."} & {*re.split(r"[/\\;]", unquote(unquote(path)))}:
            return
    else:
        path = os.path.realpath(path) if ".." in path.split("/") else os.path.abspath(path)
    yield path
    name = path.rindex("/") + 1
    yield from (path[: at + 1] for at, letter in enumerate(path) if letter == "/" or (letter == "." and at > name))
