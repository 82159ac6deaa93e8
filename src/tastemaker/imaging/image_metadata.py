"""``metadata.jsonl`` and ``metadata.csv`` of image folders, as Hugging Face's ``imagefolder`` reads them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tastemaker.imaging.tables import caption_in
from tastemaker.storage.place import Place

METADATA_FILES = ("metadata.jsonl", "metadata.csv")

FILE_NAME = "file_name"
"""The column that names the picture, by its path below the folder of the file."""

_MAX_BYTES = 2**30
"""A larger file is left out: all of it is held in memory."""


@dataclass(frozen=True)
class Record:
    """What a metadata file says of one picture.

    Attributes:
        file: Path of the metadata file below the input folder.
        text: The record as JSON.
    """

    file: str
    text: str

    @property
    def values(self) -> dict[str, Any]:
        """The record: column -> value."""
        values: dict[str, Any] = json.loads(self.text)
        return values

    def sidecars(self) -> dict[str, bytes]:
        """Return the record as the sidecars that say the same: extension -> content."""
        found = {"json": _encode(self.text)}
        caption = caption_in(self.values)
        return found if caption is None else {**found, "txt": _encode(caption)}


def _encode(text: str) -> bytes:
    """Return text as UTF-8. Half of a surrogate pair, which JSON can name and UTF-8 cannot, is written out."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace")


def read_records(folder: Place, names: Collection[str]) -> dict[str, tuple[str, str]]:
    """Return what the metadata files of a folder say: path of a picture below it -> name of the file, and the record.

    Args:
        folder: The folder.
        names: Of the files in it.

    Raises:
        OSError: A metadata file is there and cannot be read.
    """
    records: dict[str, tuple[str, str]] = {}
    for file in (folder / name for name in METADATA_FILES if name in names):
        entry = file.stat()
        if entry is not None and entry.size <= _MAX_BYTES:
            version = f"{entry.size} {entry.modified} {entry.version}"
            records = {picture: (file.name, text) for picture, text in _read_file(file, version).items()} | records
    return records


def write_records(name: str, records: Iterable[Record]) -> bytes:
    """Return a metadata file of some records, in the form that its name says."""
    records = list(records)
    if not name.endswith(".csv"):
        return "".join(f"{record.text}\n" for record in records).encode("utf-8", "surrogateescape")
    rows = [record.values for record in records]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(column for row in rows for column in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")


@lru_cache(maxsize=4)
def _read_file(place: Place, _version: str) -> dict[str, str]:
    """Return picture -> record of a metadata file. Remembered, for each partition of a large folder asks for it."""
    text = place.read().decode("utf-8-sig", "surrogateescape")
    return dict(_read_csv(text) if place.name.endswith(".csv") else _read_lines(text))


def _read_lines(text: str) -> Iterator[tuple[str, str]]:
    for line in text.split("\n"):
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            continue  # an empty line, or one that is no JSON: its picture has no record
        if isinstance(values, dict) and isinstance(values.get(FILE_NAME), str):
            yield _plain(values[FILE_NAME]), line.strip()


def _read_csv(text: str) -> Iterator[tuple[str, str]]:
    try:
        for row in csv.DictReader(io.StringIO(text, newline="")):
            if row.get(FILE_NAME):
                values = {column: value for column, value in row.items() if column is not None}
                yield _plain(str(row[FILE_NAME])), json.dumps(values, ensure_ascii=False)
    except csv.Error:  # a field of more than 128 KiB, or a NUL: what comes before it counts
        return


def _plain(name: str) -> str:
    return name.replace("\\", "/").removeprefix("./")
