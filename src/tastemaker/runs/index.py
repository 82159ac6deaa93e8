"""What lies in an output directory: one listing, and for each rows file what its metadata says.

The files are the truth. What was read from their metadata is noted in ``_tastemaker/index*.jsonl``, and a note counts
only where the listing shows the same size and time of the rows file: 100,000 of them are then checked in seconds.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pyarrow.parquet as pq
from pyarrow import ArrowException

from tastemaker.errors import RemoteError
from tastemaker.runs.fingerprint import canonical
from tastemaker.scores.layout import ROWS_FOLDER, ROWS_SUFFIX, STATE_FOLDER
from tastemaker.scores.schema import COUNTS_KEY, METADATA_KEY, SOURCES_KEY
from tastemaker.storage.inputs import map_places
from tastemaker.storage.place import Place

_STALE_LINES = 2
"""Notes are written anew once there are so many times as many lines as rows files."""


@dataclass(frozen=True, slots=True)
class RowsNote:
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
        name: Of the file of notes: runs beside each other write different ones, and read all.
    """

    output_dir: Place
    name: str = "index"
    _listed: dict[str, tuple[int, str]] = field(default_factory=dict, init=False, repr=False)
    _notes: dict[str, RowsNote] = field(default_factory=dict, init=False, repr=False)
    _unsaved: set[str] = field(default_factory=set, init=False, repr=False)
    _fingerprints: set[str] = field(default_factory=set, init=False, repr=False)
    _lines: int = field(default=0, init=False, repr=False)

    def load(self) -> None:
        """List the rows files, and read the notes that still hold."""
        self._listed = list_rows(self.output_dir / ROWS_FOLDER)
        self._notes.clear()
        for entry in (self.output_dir / STATE_FOLDER / "index*.jsonl").glob():
            for name, note in _read_notes(entry.place):
                self._lines += 1
                if self._listed.get(name) == (note.size, note.version):
                    self._notes[name] = note

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
                self._unsaved.add(name)
        return {name: self._notes[name] for name in wanted if name in self._notes}

    def look_again(self) -> None:
        """List the directory again, and forget what changed."""
        self._listed = list_rows(self.output_dir / ROWS_FOLDER)
        self._notes = {
            name: note for name, note in self._notes.items() if self._listed.get(name) == (note.size, note.version)
        }

    def refresh(self, names: Iterable[str]) -> None:
        """Look at the rows files of these partitions again: they were written since."""
        for name in names:
            self._notes.pop(name, None)
            entry = rows_path(self.output_dir, name).stat()
            if entry is None:
                self._listed.pop(name, None)
            else:
                self._listed[name] = (entry.size, entry.version)

    def save(self) -> None:
        """Write what was read since. A failure is not told: the notes can be made again."""
        with contextlib.suppress(OSError):
            if self._lines > _STALE_LINES * len(self._listed) + 1000 and self.name == "index":
                self._write_anew()
            elif self._unsaved:
                self._append(sorted(self._unsaved))
            self._unsaved.clear()

    def _append(self, names: list[str]) -> None:
        path = self.output_dir / STATE_FOLDER / f"{self.name}.jsonl"
        path.append("".join(self._lines_of(names)).encode("ascii"))
        self._lines += len(names)

    def _write_anew(self) -> None:
        self._fingerprints.clear()
        path = self.output_dir / STATE_FOLDER / f"{self.name}.jsonl"
        path.write("".join(self._lines_of(sorted(self._notes))).encode("ascii"))
        for other in (path.parent / "index-*.jsonl").glob():
            other.place.delete()
        self._lines = len(self._notes)

    def _lines_of(self, names: list[str]) -> Iterator[str]:
        """Yield a line for each note, behind one for each fingerprint that no line before it has."""
        yield "\n"  # ends a line that a kill cut short
        for name in names:
            note = self._notes[name]
            identity = hashlib.sha256(note.fingerprint.encode()).hexdigest()[:16]
            if identity not in self._fingerprints:
                self._fingerprints.add(identity)
                yield json.dumps([identity, note.fingerprint]) + "\n"
            yield json.dumps([name, note.size, note.version, identity, note.sources, note.counts]) + "\n"

    def _read(self, path: Place) -> RowsNote | None:
        name = path.relative_to(self.output_dir / ROWS_FOLDER).removesuffix(ROWS_SUFFIX)
        size, version = self._listed[name]
        try:
            metadata = read_metadata(path)
        except (OSError, ArrowException) as error:
            if isinstance(error, RemoteError) or getattr(error, "errno", None) not in (None, errno.ENOENT):
                raise  # the file may be whole: it was not read
            return None
        fingerprint = json.loads(metadata.get(METADATA_KEY, b"{}")).get("fingerprint")
        return RowsNote(
            size,
            version,
            canonical(fingerprint) if fingerprint else "",
            metadata.get(SOURCES_KEY, b"").decode(),
            json.loads(metadata.get(COUNTS_KEY, b"{}")),
        )


def read_metadata(path: Place) -> dict[bytes, bytes]:
    """Return the metadata of a rows file without reading its rows."""
    with path.open() as file:  # pyarrow itself takes no path that is no UTF-8
        found = pq.read_metadata(file).metadata
    return dict(found or {})


def rows_path(output_dir: Place, name: str) -> Place:
    """Return where the rows of a partition lie."""
    return output_dir / ROWS_FOLDER / f"{name}{ROWS_SUFFIX}"


def list_rows(rows_dir: Place) -> dict[str, tuple[int, str]]:
    """Return the name of every partition that has a rows file -> its size and version."""
    return {
        entry.place.relative_to(rows_dir).removesuffix(ROWS_SUFFIX): (entry.size, entry.version)
        for entry in rows_dir.list()
        if entry.place.name.endswith(ROWS_SUFFIX) and not entry.place.name.startswith(".")
    }


def _read_notes(path: Place) -> Iterator[tuple[str, RowsNote]]:
    """Yield the notes of a file; a line that a kill cut short, and all that is no note, is passed over."""
    fingerprints: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in path.read().decode("ascii", "replace").splitlines():
            try:
                values = json.loads(line)
                if len(values) == 2:
                    fingerprints[values[0]] = values[1]
                else:
                    name, size, version, made_by, sources, counts = values
                    yield name, RowsNote(size, version, fingerprints[made_by], sources, counts)
            except (ValueError, TypeError, KeyError):
                continue
