"""What lies in an output directory: one listing, and for each rows file what its metadata says.

The files are the truth. What was read from their metadata is noted in ``_tastemaker/index*.json``, and a note counts
only where the listing shows the same size and time of the rows file: 100,000 of them are then checked in seconds.
"""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from pyarrow import ArrowException

from tastemaker.errors import RemoteError
from tastemaker.runs.fingerprint import canonical
from tastemaker.scores.files import read_metadata
from tastemaker.scores.layout import ROWS_FOLDER, ROWS_SUFFIX, STATE_FOLDER, read_note
from tastemaker.scores.schema import COUNTS_KEY, SOURCES_KEY, provenance_of
from tastemaker.storage.inputs import map_places
from tastemaker.storage.place import Place


class RowsNote(NamedTuple):
    """What a rows file says of itself.

    Attributes:
        size: Of the rows file, in bytes.
        version: Its time of change in nanoseconds; in an object store its ETag or time.
        fingerprint: What made it, as JSON; empty where it carries none.
        sources: The input files that it was made from, as JSON; empty where it does not say.
        counts: Rows by status and by reason.
    """

    size: int
    version: str
    fingerprint: str
    sources: str
    counts: dict[str, dict[str, int]]

    @property
    def failed(self) -> int:
        """Rows with the status ``failed``."""
        return self.counts.get("statuses", {}).get("failed", 0)

    @property
    def rows(self) -> int:
        """All rows."""
        return sum(self.counts.get("statuses", {}).values())


@dataclass
class RowsIndex:
    """The rows files of an output directory, by the name of their partition.

    Attributes:
        output_dir: The directory; the rows lie in its folder ``rows``.
        name: Of the file of notes. Runs beside each other write different ones, and read all.
    """

    output_dir: Place
    name: str = "index"
    _listed: dict[str, tuple[int, str]] = field(default_factory=dict, init=False, repr=False)
    _notes: dict[str, RowsNote] = field(default_factory=dict, init=False, repr=False)
    _is_saved: bool = field(default=True, init=False, repr=False)

    def load(self) -> None:
        """List the rows files, read the notes, and forget the notes of files that have changed."""
        rows = self.output_dir / ROWS_FOLDER
        self._listed = {
            entry.place.relative_to(rows).removesuffix(ROWS_SUFFIX): (entry.size, entry.version)
            for entry in rows.list()
            if entry.place.name.endswith(ROWS_SUFFIX) and not entry.place.name.startswith(".")
        }
        found: dict[str, RowsNote] = {}
        for entry in (self.output_dir / STATE_FOLDER / "index*.json").glob():
            found |= _read_notes(entry.place)
        found |= self._notes
        self._notes = {n: note for n, note in found.items() if self._listed.get(n) == (note.size, note.version)}

    def __contains__(self, name: str) -> bool:
        return name in self._listed

    def names(self) -> list[str]:
        """Return the names of all partitions that have rows."""
        return list(self._listed)

    def notes(self, names: Iterable[str]) -> dict[str, RowsNote]:
        """Return what the rows files of these partitions say of themselves; those without rows are left out.

        A file that is no whole Parquet file counts as not there.
        """
        wanted = [name for name in names if name in self._listed]
        unknown = [name for name in wanted if name not in self._notes]
        found = map_places(self._read, (rows_path(self.output_dir, name) for name in unknown))
        for name, note in zip(unknown, found, strict=True):
            if note is not None:
                self._notes[name] = note
                self._is_saved = False
        return {name: self._notes[name] for name in wanted if name in self._notes}

    def save(self, names: Iterable[str]) -> None:
        """Write the notes of these partitions. The notes of a whole run replace those of its slices.

        If they cannot be written, nothing is said: the next run can make them again.
        """
        if self._is_saved:
            return
        notes = {name: note for name in names if (note := self._notes.get(name))}
        fingerprints = list(dict.fromkeys(note.fingerprint for note in notes.values()))
        number = {fingerprint: at for at, fingerprint in enumerate(fingerprints)}
        rows = [[n, size, version, number[by], *more] for n, (size, version, by, *more) in notes.items()]
        path = self.output_dir / STATE_FOLDER / f"{self.name}.json"
        with contextlib.suppress(OSError):
            path.write(json.dumps({"fingerprints": fingerprints, "notes": rows}).encode("ascii"))
            for other in (path.parent / "index-*.json").glob() if self.name == "index" else ():
                other.place.delete()
        self._is_saved = True

    def _read(self, path: Place) -> RowsNote | None:
        name = path.relative_to(self.output_dir / ROWS_FOLDER).removesuffix(ROWS_SUFFIX)
        size, version = self._listed[name]
        try:
            metadata = read_metadata(path)
        except (OSError, ArrowException) as error:
            if isinstance(error, RemoteError) or getattr(error, "errno", None) not in (None, errno.ENOENT):
                raise  # the file may be whole: it was not read
            return None
        fingerprint = provenance_of(metadata).get("fingerprint")
        return RowsNote(
            size,
            version,
            canonical(fingerprint) if fingerprint else "",
            metadata.get(SOURCES_KEY, b"").decode(),
            json.loads(metadata.get(COUNTS_KEY, b"{}")),
        )


def rows_path(output_dir: Place, name: str) -> Place:
    """Return where the rows of a partition lie."""
    return output_dir / ROWS_FOLDER / f"{name}{ROWS_SUFFIX}"


def _read_notes(path: Place) -> dict[str, RowsNote]:
    """Return the notes in a file, by partition; none if the file is damaged."""
    found = read_note(path)
    try:
        made_by = found["fingerprints"]
        return {
            name: RowsNote(size, version, str(made_by[number]), str(sources), dict(counts))
            for name, size, version, number, sources, counts in found["notes"]
        }
    except (ValueError, TypeError, LookupError):
        return {}
