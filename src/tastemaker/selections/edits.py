"""What Tastemaker wrote into files beside a person's pictures, so that it can be taken back.

Each change is noted before it is made: what the file held, and the hash of what it will hold. A file that is in another
state now was changed by somebody since, and is left alone.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from tastemaker.storage.drafts import make_durable
from tastemaker.storage.owned import xxh3_of
from tastemaker.storage.place import Place
from tastemaker.storage.unfinished import DRAFT_PREFIX, Draft


@dataclass
class TakenBack:
    """What became of the files of a selection that was taken back.

    Attributes:
        files: How many are as they were before, or gone where they were new.
        left: Path of a file -> why it was left as it is.
        dry_run: True where nothing was done, and the others say what would be.
    """

    files: int = 0
    left: dict[str, str] = field(default_factory=dict)
    dry_run: bool = False

    def lines(self, examples: int = 5) -> list[str]:
        """Return it in words, with that many of the files that were left."""
        would = "would be " if self.dry_run else ""
        files = "1 file" if self.files == 1 else f"{self.files:,} files"
        lines = [f"{files} {would}taken back" if self.files or self.left else "There is nothing to take back."]
        if self.left:
            left = "1 left as it is" if len(self.left) == 1 else f"{len(self.left):,} left as they are"
            lines += [left, *list_some(self.left.items(), examples)]
        return lines


def list_some(found: Collection[tuple[str, str]], most: int) -> list[str]:
    """Return a line for each of the first of these files, and how many more there are."""
    lines = [f"  {path}: {what}" for path, what in islice(found, most)]
    return lines + ([f"  and {len(found) - most:,} more; --json has them all"] if len(found) > most else [])


class _Edit(NamedTuple):
    """A change of one file.

    Attributes:
        path: Of the file.
        before: Its bytes before the change, as Latin-1; None where there was no file.
        after: XXH3-64 of its bytes after it.
        by_score: The stars were made of a score: nobody gave them.
    """

    path: str
    before: str | None
    after: str
    by_score: bool


class Edits:
    """The record of such changes.

    Args:
        record: The file that they are noted in. It is made with the first.
    """

    def __init__(self, record: Path) -> None:
        self._record = record
        self._edits: list[_Edit] = []
        self._separator = b""
        with suppress(FileNotFoundError):
            stored = record.read_bytes()
            self._separator = b"" if stored.endswith(b"\n") else b"\n"
            for line in stored.splitlines():
                with suppress(ValueError, TypeError, RecursionError):  # half a line, of a process that was killed
                    self._edits.append(_Edit(*json.loads(line)))
        self._last = {edit.path: edit for edit in self._edits}

    def is_by_score(self, path: Path, content: bytes) -> bool:
        """Return whether a file is as the last change left it, which gave it the stars of a score."""
        last = self._last.get(os.path.abspath(path))
        return last is not None and last.by_score and last.after == xxh3_of(content)

    def note(self, changes: list[tuple[Path, bytes | None, bytes]], *, by_score: bool) -> None:
        """Note changes that are about to be made.

        Args:
            changes: Of each, the file, what it holds (None for no file), and what it will hold.
            by_score: The stars are of a score.
        """
        edits = [
            _Edit(os.path.abspath(path), None if old is None else old.decode("latin-1"), xxh3_of(new), by_score)
            for path, old, new in changes
        ]
        self._record.parent.mkdir(parents=True, exist_ok=True)
        with self._record.open("ab") as file:  # what was noted by a process that was killed is not noted again
            new = b"".join(_as_line(edit) for edit in edits if self._last.get(edit.path) != edit)
            file.write(self._separator + new if new else b"")
        self._separator = b""
        self._last |= {edit.path: edit for edit in edits}

    def take_back(self, may_change: Any, *, dry_run: bool = False) -> TakenBack:  # noqa: ANN401 - a container of paths
        """Undo all changes, the last one first, and forget those that are undone.

        Args:
            may_change: Says by ``in`` which paths may be changed: the record may come from somebody else.
            dry_run: Change nothing.
        """
        report = TakenBack(dry_run=dry_run)
        by_path: dict[str, list[_Edit]] = {}
        for edit in reversed(self._edits):
            by_path.setdefault(edit.path, []).append(edit)
        ours = {path for path in by_path if path in may_change and path.lower().endswith(".xmp")}
        if not dry_run:
            remove_drafts_of_sidecars({Path(path).parent for path in ours})
        for path, edits in by_path.items():
            try:
                why = "it is no sidecar of these pictures"
                if path in ours:
                    why = self._take_back_one(Path(path), edits, dry_run=dry_run)
            except OSError as error:
                why = error.strerror or str(error)
            if why:
                report.left[path] = why
            else:
                report.files += 1
        if not dry_run:
            _remove_drafts(self._record.parent, self._record.name)
            if report.left:
                left = (edit for edit in self._edits if edit.path in report.left)
                Place.of(self._record).write(b"".join(map(_as_line, left)))
            else:
                self._record.unlink(missing_ok=True)
        return report

    def _take_back_one(self, path: Path, edits: list[_Edit], *, dry_run: bool) -> str:
        """Return why a file is left alone; empty once it is as it was."""
        content: bytes | None = path.read_bytes() if path.is_file() else None
        for edit in edits:
            before = None if edit.before is None else edit.before.encode("latin-1")
            if content is not None and xxh3_of(content) == edit.after:
                content = before
            elif content != before:  # else it was noted, and not made any more
                return "somebody changed it since" if content is not None else "somebody deleted it"
        if dry_run:
            return ""
        if content is None:
            path.unlink(missing_ok=True)
        elif content != path.read_bytes():
            replace_files([(path, content)])
        return ""


def _as_line(edit: _Edit) -> bytes:
    return json.dumps(edit).encode("ascii") + b"\n"


def remove_drafts_of_sidecars(folders: Iterable[Path]) -> None:
    """Delete the unfinished sidecars that a killed process left in folders."""
    for folder in folders:
        _remove_drafts(folder, "*.[xX][mM][pP]")


def _remove_drafts(folder: Path, name: str) -> None:
    for leftover in folder.glob(f"{DRAFT_PREFIX}*-{name}"):
        with suppress(OSError):
            leftover.unlink()


def replace_files(changes: list[tuple[Path, bytes]]) -> None:
    """Replace files that lie beside a picture, all but at once: with one of two there, it would count as rated."""
    drafts: list[Draft] = []
    try:
        for path, content in changes:
            target = Path(os.path.realpath(path))  # a link stays a link
            drafts.append(Place.of(target).draft())
            drafts[-1].path.write_bytes(content)
            if target.exists():
                shutil.copymode(target, drafts[-1].path)
            make_durable(drafts[-1].path)
        for pending in drafts:
            pending.commit()
    finally:
        for pending in drafts:
            pending.discard()
