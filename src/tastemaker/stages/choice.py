"""Which of the files that were found are read, and what is passed over."""

from __future__ import annotations

import contextlib
import posixpath
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import NamedTuple

from tastemaker.errors import UnreadableImageError
from tastemaker.imaging.kinds import (
    BESIDE,
    HEAD_BYTES,
    advise,
    extension_of,
    is_known_other,
    is_picture_name,
    junk_above,
    sniff_kind,
)
from tastemaker.imaging.pictures import holds_pictures
from tastemaker.imaging.shards import is_shard
from tastemaker.imaging.tables import is_table
from tastemaker.storage import base_name, relative_to
from tastemaker.storage.inputs import map_places
from tastemaker.storage.place import Entry, Place

_PICTURE, _SHARD = "picture", "shard"
_SHOWN_KINDS = 8


class Chosen(NamedTuple):
    """The files that are read: shards, and loose pictures."""

    shards: list[Entry]
    loose: list[Entry]


@dataclass
class Choice:
    """Chooses files by their names, and by their first bytes where the name does not tell.

    Args:
        extensions: Only files with these extensions; None for all that is read.
        exclude: Patterns of what is left out. One without a slash fits names of files and folders, one with a slash
            paths below the input folder.
        column: Of tables, the column with the pictures.

    Attributes:
        passed_over: What was not chosen and is no sidecar -> number of files.
    """

    extensions: list[str] | None = None
    exclude: list[str] | None = None
    column: str | None = None
    passed_over: Counter[str] = field(default_factory=Counter, init=False)

    def choose(self, found: Iterable[Entry]) -> Chosen:
        """Return the files that are read, and count the others."""
        files = list(found)
        kinds = [self._by_path(file) or self._by_name(file) for file in files]
        unknown = [file for file, kind in zip(files, kinds, strict=True) if not kind]
        looks = map_places(self._by_content, (file.place for file in unknown))
        looked = {file.path: self._judge(file, kind) for file, kind in zip(unknown, looks, strict=True)}
        kinds = [kind or looked[file.path] for file, kind in zip(files, kinds, strict=True)]
        by_kind = {
            wanted: [file for file, kind in zip(files, kinds, strict=True) if kind == wanted]
            for wanted in (_SHARD, _PICTURE)
        }
        pictures = {posixpath.splitext(file.path)[0] for file in by_kind[_PICTURE]}
        for file, kind in zip(files, kinds, strict=True):
            is_beside = kind.startswith(".") and posixpath.splitext(file.path)[0] in pictures
            if kind not in (_SHARD, _PICTURE) and not is_beside:
                self.passed_over[kind] += 1
        return Chosen(by_kind[_SHARD], by_kind[_PICTURE])

    def is_named_so(self, path: str) -> bool:
        """Return whether a file's name says that it is read."""
        if self.extensions is not None:
            wanted = tuple("." + extension.lower().lstrip(".") for extension in self.extensions)
            return base_name(path).lower().endswith(wanted)
        return (is_shard(path) and not is_table(path)) or is_picture_name(path)

    def _by_path(self, file: Entry) -> str:
        """Return why a file is passed over wherever its kind; empty where it is not."""
        below = relative_to(file.path, file.root)
        if file.passed_over:
            return file.passed_over
        if self.exclude and any(_fits(below, pattern) for pattern in self.exclude):
            return "excluded"
        junk = None if file.is_named else junk_above(below)
        if junk is not None:
            return f"in {junk}"
        is_hidden = base_name(file.path).startswith(".") and not file.is_named
        return "hidden file" if is_hidden else ""

    def _by_name(self, file: Entry) -> str:
        """Return the kind of a file, or why it is passed over; empty where only its content tells."""
        if self.is_named_so(file.path) or file.problem:
            return _SHARD if is_shard(file.path) else _PICTURE
        if self.extensions is not None and not file.is_named:
            return _label(file.path)
        is_other = is_known_other(file.path) and not is_table(file.path)
        return _label(file.path) if is_other and not (file.is_named and self.extensions is not None) else ""

    def _by_content(self, place: Place) -> str:
        """Return `_SHARD`, `_PICTURE`, the extension of another kind of file, or nothing."""
        try:
            if is_table(place.name):
                return _SHARD if holds_pictures(place, self.column) else extension_of(place.name)
            with contextlib.closing(place.open_ranges()) as file:
                kind = sniff_kind(file.read_at(0, HEAD_BYTES))
        except UnreadableImageError:
            return _SHARD  # its row says what is wrong with it
        except OSError:
            return ""
        return _SHARD if kind == "tar" else kind

    def _judge(self, file: Entry, kind: str) -> str:
        """Return what becomes of a file whose content was looked at; one that the user named is read if in doubt."""
        if kind in (_SHARD, _PICTURE):
            return kind
        if file.is_named and not kind:
            return _PICTURE
        return kind or _label(file.path)


def describe(passed_over: Mapping[str, int], *, with_sidecars: bool = False) -> str:
    """Return what was passed over, in a line, with what helps to have it read.

    Args:
        passed_over: Kind -> number of files.
        with_sidecars: Name files, too, that usually lie beside pictures.

    Example:
        >>> describe({".zip": 2, "in @eaDir": 12})
        '12 in @eaDir, 2 .zip (unpack archives first, or make tars of them)'
    """
    counted = passed_over if with_sidecars else without_sidecars(passed_over)
    counted = dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))
    shown = [_count(kind, number) for kind, number in list(counted.items())[:_SHOWN_KINDS]]
    if len(counted) > _SHOWN_KINDS:
        rest = sum(list(counted.values())[_SHOWN_KINDS:])
        shown.append(f"{rest:,} other files")
    advice = advise(counted)
    return ", ".join(shown) + (f" ({'; '.join(advice)})" if advice else "")


def without_sidecars(passed_over: Mapping[str, int]) -> dict[str, int]:
    """Return what was passed over without what usually lies beside pictures, such as ``.txt``."""
    return {kind: number for kind, number in passed_over.items() if kind[1:] not in BESIDE}


def _count(kind: str, number: int) -> str:
    plural = "s" if number > 1 and kind.endswith(("folder", "file")) else ""
    return f"{number:,} {kind}{plural}"


def _label(path: str) -> str:
    return extension_of(path) or "without extension"


def _fits(below: str, pattern: str) -> bool:
    if "/" in pattern:
        return fnmatchcase(below, pattern.strip("/")) or fnmatchcase(below, pattern.strip("/") + "/*")
    return any(fnmatchcase(part, pattern) for part in below.split("/"))
