"""The columns that come with embeddings, as columns of the rows. No Python loop over rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.imaging.shots import Shot
from tastemaker.imaging.signals import SIGNAL_NAMES
from tastemaker.imaging.tables import CAPTION_COLUMNS, is_text
from tastemaker.scores.schema import rows_schema

TAKEN_AS_THEY_ARE = ("shard", "offset", "size", "format", "json", "sidecars", "metadata", *Shot._fields)
"""Columns of rows that an earlier run wrote: where the originals lie, and how they were taken, stays known."""

_RESERVED = ("embedding", *SIGNAL_NAMES)

Columns = dict[str, pa.Array | pa.ChunkedArray]


@dataclass
class ColumnPlan:
    """Which column of the rows comes from which given one.

    Args:
        given: The columns that come with the embeddings.
        scores: The columns of scores that the rows will have.
        caption: The column with the captions; None to recognise it.

    Attributes:
        sources: Column of the rows -> given column.
        others: Column of the rows -> given column, for those that only go along; ``given_`` stands before the name
            where the rows have a column of that name already, as ``given_aesthetic_score``.
        fields: The columns of ``others``.
    """

    given: pa.Schema
    scores: Sequence[str]
    caption: str | None = None
    sources: dict[str, str] = field(default_factory=dict, init=False)
    others: dict[str, str] = field(default_factory=dict, init=False)
    fields: list[pa.Field] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        rows = rows_schema(with_embeddings=False, with_signals=False)
        for target, rule in _RULES.items():
            named = {column.name.lower(): column.name for column in self.given if rule.fits(column.type)}
            if source := next((named[name] for name in rule.names if name in named), None):
                self.sources[target] = source
        if self.caption is not None:
            self.sources["caption"] = self.caption
        for name in TAKEN_AS_THEY_ARE:
            if name in self.given.names and self.given.field(name).type.equals(rows.field(name).type):
                self.sources[name] = name
        taken = {name.lower() for name in (*rows.names, *_RESERVED, *self.scores)}
        used = set(self.sources.values())
        for column in self.given:
            if column.name not in used and not column.name.startswith("__"):  # __index_level_0__ of pandas
                name = column.name
                while name.lower() in taken:
                    name = f"given_{name}"
                taken.add(name.lower())
                self.others[name] = column.name
                self.fields.append(pa.field(name, column.type))

    def make(self, given: pa.Table | None, count: int, first: int, stem: str) -> Columns:
        """Return the columns of ``count`` rows.

        Args:
            given: Their part of the given columns; None where there are none.
            count: Rows.
            first: Position of the first of them in the file.
            stem: Identifies the file: ``<stem>/000000123`` is the ``image_id`` where none was given.
        """
        columns: Columns = {}
        if given is not None:
            for target, source in self.sources.items():
                columns[target] = _RULES[target].convert(given[source]) if target in _RULES else given[source]
            columns |= {name: given[source] for name, source in self.others.items()}
        known = columns.get("image_id")
        if known is None or known.null_count:
            numbers = pc.utf8_lpad(pc.cast(pa.arange(first, first + count), pa.string()), 9, "0")
            numbered = pc.binary_join_element_wise(stem, numbers, "/")
            columns["image_id"] = numbered if known is None else pc.coalesce(known, numbered)
        return columns


class _Rule(NamedTuple):
    """From which given columns a column of the rows is made: the first of these names, in any case (``URL``)."""

    names: tuple[str, ...]
    fits: Callable[[pa.DataType], bool]
    convert: Callable[[pa.ChunkedArray], pa.ChunkedArray]


def _is_text_or_integer(kind: pa.DataType) -> bool:
    return is_text(kind) or pa.types.is_integer(kind)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _to_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string())


def _to_pixels(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return int64; what is no number of pixels becomes null (pandas stores missing ones as NaN)."""
    wide = column.cast(pa.float64(), safe=False)
    sound = pc.and_(pc.greater_equal(wide, 0), pc.less(wide, 2**31))  # False for NaN
    return pc.if_else(sound, wide, None).cast(pa.int64(), safe=False)


_RULES = {
    "image_id": _Rule(("key", "image_id", "id", "uid", "hash"), _is_text_or_integer, _to_text),
    "image_path": _Rule(("image_path", "url", "path"), is_text, _to_text),
    "caption": _Rule(CAPTION_COLUMNS, is_text, _to_text),
    "width": _Rule(("width", "original_width"), _is_number, _to_pixels),
    "height": _Rule(("height", "original_height"), _is_number, _to_pixels),
}
