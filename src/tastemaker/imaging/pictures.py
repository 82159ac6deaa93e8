"""Tables with pictures in them, as Hugging Face's datasets and img2dataset write: a sample for each row.

A column of pictures holds encoded bytes, or structs ``{bytes, path}``. A row becomes the sample that the same picture
would be in a shard: ``<key>.jpg`` with the caption as ``<key>.txt`` and all other columns as ``<key>.json``. The
position of its members is the number of the row.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import pyarrow as pa

from tastemaker.errors import ConfigurationError, Problem, ReasonKind
from tastemaker.imaging.formats import EXTENSIONS, sniff_format
from tastemaker.imaging.keys import Sample, is_unsafe_name
from tastemaker.imaging.tables import CAPTION_COLUMNS, Table, carried_columns, is_bytes, is_text
from tastemaker.imaging.tars import Member
from tastemaker.storage import base_name
from tastemaker.storage.place import Place

PICTURE_COLUMNS = ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp")
"""Names of columns of pictures; of several columns with pictures the first in this order is meant."""

KEY_COLUMNS = ("__key__", "key")

_BLOCK_ROWS = 16
"""Rows that are read together: a picture may have some megabytes."""

_LOOKED_AT_ROWS = 64
"""Rows in which it is looked for a picture, to tell pictures from other bytes."""

_FILE_EXTENSIONS = {"JPEG": "jpg", "TIFF": "tif"}
_NO_PICTURE = Problem(ReasonKind.NOT_AN_IMAGE, "this row of the table has no picture")


class _Picture(NamedTuple):
    """A column of pictures: its name, and whether its values are structs."""

    name: str
    is_struct: bool


class PictureTable(Table):
    """The pictures of a table, as samples. Use it as a context.

    Args:
        place: The table.
        wanted: Name of the column with the pictures; None to recognise it. The other pictures of a row are sidecars.

    Raises:
        UnreadableImageError: The file is no sound table.
        OSError: It is not there or cannot be read.

    Attributes:
        names: Of the columns with pictures.
        chosen: The one whose pictures are scored; None where several could be meant.
    """

    def __init__(self, place: Place, wanted: str | None = None) -> None:
        super().__init__(place)
        self._stem = os.path.splitext(place.name)[0]
        try:
            self._pictures = self._find_columns()
        except BaseException:
            self.close()
            raise
        self.names = [picture.name for picture in self._pictures]
        self._usual = _usual(self.names)
        self.chosen = self._usual if wanted is None else wanted
        named = {column.name.lower(): column.name for column in self.schema if is_text(column.type)}
        self._caption = next((named[name] for name in CAPTION_COLUMNS if name in named), None)
        structs = {picture.name for picture in self._pictures if picture.is_struct}
        others = [name for name in carried_columns(self.schema).names if name not in structs]
        self._columns = [*self.names, *others]

    def samples(self) -> Iterator[tuple[Sample, dict[str, bytes]]]:
        """Yield every row as a sample with the bytes of its members, in the order of the table.

        Raises:
            UnreadableImageError: The table is damaged; the rows before have been given out.
        """
        if not self.names:
            yield Sample("", problem=Problem(ReasonKind.NOT_AN_IMAGE, f"no pictures. {self.describe()}")), {}
        elif not self.rows:
            yield Sample("", problem=Problem(ReasonKind.DAMAGED_SHARD, "empty table: it has no rows")), {}
        else:
            blocks = self.blocks(self._columns, _BLOCK_ROWS)
            rows = (values for block in blocks for values in block.to_pylist())
            yield from (self._make(row, values) for row, values in enumerate(rows))

    def read(self, rows: Sequence[int]) -> Iterator[tuple[int, Sample, dict[str, bytes]]]:
        """Yield some rows as samples, each with its number, in the order of the table.

        Raises:
            UnreadableImageError: The table is damaged.
        """
        wanted = sorted(set(rows))
        for first, block in self.at(self._columns, wanted, _BLOCK_ROWS):
            for row in wanted:
                if first <= row < first + len(block):
                    (values,) = block.slice(row - first, 1).to_pylist()
                    yield row, *self._make(row, values)

    def _find_columns(self) -> list[_Picture]:
        candidates = [_Picture(column.name, _is_struct(column.type)) for column in self.schema]
        candidates = [c for c in candidates if c.is_struct or is_bytes(self.schema.field(c.name).type)]
        if not candidates:
            return []
        block = next(self.blocks([c.name for c in candidates], _LOOKED_AT_ROWS), None)
        rows: list[dict[str, Any]] = block.to_pylist() if block is not None else []
        return [c for c in candidates if _holds_pictures(c, [row[c.name] for row in rows])]

    @cached_property
    def _keys(self) -> list[str]:
        """The key of each row: what the table says, where that is one row's alone and a safe name; else its number."""
        named = {column.name: column for column in self.schema}
        name = next((name for name in KEY_COLUMNS if name in named), None)
        first = self._usual or self.names[0]
        if name is not None:
            given = self._read_texts(name)
        elif _Picture(first, is_struct=True) in self._pictures:
            given = [os.path.splitext(path)[0] for path in self._read_texts(f"{first}.path", "path")]
        else:
            given = [""] * self.rows
        safe = [base_name(key) if "://" in key or is_unsafe_name(key) else key for key in given]
        times = Counter(safe)
        return [key if key and times[key] == 1 else f"{self._stem}/{row:09d}" for row, key in enumerate(safe)]

    def _read_texts(self, column: str, field: str = "") -> list[str]:
        texts: list[str] = []
        for block in self.blocks([column], 2**16):
            values = block.column(0).to_pylist()
            values = [value and value.get(field) for value in values] if field else values
            texts += ["" if value is None else str(value) for value in values]
        return texts

    def _make(self, row: int, values: dict[str, Any]) -> tuple[Sample, dict[str, bytes]]:
        sample = Sample(self._keys[row])
        data: dict[str, bytes] = {}
        for picture in self._pictures:
            content, path = _content(values.pop(picture.name), is_struct=picture.is_struct)
            if content is None:
                continue
            extension = _extension_of(content, path, picture.name)
            if picture.name != self._usual:
                extension = f"{picture.name}.{extension}"
            _add(sample, extension, content, row, data)
            if picture.name == self.chosen:
                sample.image = sample.sidecars.pop(extension)
        caption = values.get(self._caption) if self._caption else None
        if caption is not None:
            _add(sample, "txt", str(caption).encode("utf-8", "surrogateescape"), row, data)
        if values:
            _add(sample, "json", _as_json(values), row, data)
        sample.problem = None if sample.image else _NO_PICTURE
        return sample, data


def holds_pictures(place: Place, wanted: str | None = None) -> bool:
    """Return whether a table has a column of pictures, and with ``wanted`` whether that is one.

    Raises:
        ConfigurationError: Several columns could be meant.
        UnreadableImageError: The table is damaged.
        OSError: It cannot be read.
    """
    with PictureTable(place, wanted) as table:
        if table.names and table.chosen is None:
            raise ConfigurationError(f"{place} has pictures in {', '.join(table.names)}; say --column NAME")
        return table.chosen in table.names


def _usual(names: list[str]) -> str | None:
    """Return the column that is meant if none is named: the only one, or the first of the usual names."""
    by_name = {name.lower(): name for name in reversed(names)}
    known = [by_name[name] for name in PICTURE_COLUMNS if name in by_name]
    return next(iter(known or (names if len(names) == 1 else ())), None)


def _is_struct(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind):
        return False
    fields = {kind.field(n).name: kind.field(n).type for n in range(kind.num_fields)}
    return "bytes" in fields and is_bytes(fields["bytes"])


def _holds_pictures(picture: _Picture, values: list[Any]) -> bool:
    contents = [content for value in values if (content := _content(value, is_struct=picture.is_struct)[0])]
    if any(sniff_format(content) for content in contents):
        return True
    return not contents and picture.name.lower() in PICTURE_COLUMNS


def _content(value: Any, *, is_struct: bool) -> tuple[bytes | None, str]:  # noqa: ANN401 - of a column of any type
    """Return the bytes of a picture and its path, as far as the row has them."""
    if is_struct:
        return (value["bytes"], value.get("path") or "") if value else (None, "")
    return value, ""


def _extension_of(content: bytes, path: str, column: str) -> str:
    extension = os.path.splitext(base_name(path))[1][1:]
    if extension.lower() in EXTENSIONS:
        return extension
    found = sniff_format(content)
    return _FILE_EXTENSIONS.get(found, found.lower()) if found else column


def _add(sample: Sample, extension: str, content: bytes, row: int, data: dict[str, bytes]) -> None:
    member = Member(f"{sample.key}.{extension}", row, len(content))
    sample.sidecars[extension] = member
    data[member.name] = content


def _as_json(values: dict[str, Any]) -> bytes:
    """Return the other columns of a row as JSON, which has no NaN."""
    plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
    return json.dumps(plain, default=str, ensure_ascii=False).encode("utf-8", "surrogatepass")
