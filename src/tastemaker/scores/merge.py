"""Changes to rows files: new rows for some images, new paths of files that moved, marks on pictures that are gone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from tastemaker.errors import ReasonKind
from tastemaker.imaging.folders import key_of
from tastemaker.scores.files import RowsFile, read_rows
from tastemaker.scores.schema import (
    DELETED,
    DELETED_REASON,
    METADATA_KEY,
    SOURCES_KEY,
    original_name,
    printable,
    provenance_of,
    rows_metadata,
    score_columns,
)
from tastemaker.storage import base_name
from tastemaker.storage.place import AnyPlace, Place

_IDENTITY = ["image_path", "shard", "offset"]
_PLACE = ["image_id", "image_path", "shard", "sidecars"]
_VERDICT = ["status", "reason_kind", "reason"]


def merge_rows(path: AnyPlace, redone: pa.Table) -> None:
    """Put rows into a rows file, in the places of the old rows of the same images, and write the file anew.

    Args:
        path: The rows file. One that is not there yet is made.
        redone: The new rows. Their metadata counts from then on: what made them, and the input files.
    """
    if Place.of(path).is_file():
        old = read_rows(path)
        redone = _put_in_place(old, _with_added_scores(old, redone))
    _write(path, redone)


def update_rows(
    path: AnyPlace, sources: Mapping[str, Any], moved: Mapping[str, str], ratings: Mapping[str, int | None]
) -> None:
    """Bring rows up to date where no picture is scored: note files that moved or are gone, and new ratings.

    Args:
        path: The rows file.
        sources: The files of the partition as they are now; those that are gone have the size -1.
        moved: Path of an image or shard in the rows -> its path now.
        ratings: Path of an image now -> what its sidecars say now.
    """
    table = read_rows(path)
    changing = [*_PLACE, *_VERDICT, *(["rating"] if ratings else [])]
    rows = table.select(changing).to_pylist()
    gone = {name for name, size, _ in sources["files"] if size < 0}
    for row in rows:
        _follow(row, moved, sources["root"])
        name = original_name(row["image_path"] or "")
        if name in ratings:
            row["rating"] = ratings[name]
        if name in gone:
            row |= {"status": DELETED, "reason_kind": ReasonKind.DELETED, "reason": DELETED_REASON}
    for name in changing:
        number = table.schema.get_field_index(name)
        field = table.schema.field(number)
        table = table.set_column(number, field, pa.array([row[name] for row in rows], field.type))
    made_by = rows_metadata({"sources": sources})[SOURCES_KEY]
    _write(path, table.replace_schema_metadata({**(table.schema.metadata or {}), SOURCES_KEY: made_by}))


def _write(path: AnyPlace, table: pa.Table) -> None:
    rows = RowsFile(path, table.schema)
    try:
        rows.add_rows(table)
        rows.commit()
    except BaseException:
        rows.discard()
        raise


def _with_added_scores(old: pa.Table, redone: pa.Table) -> pa.Table:
    """Return the new rows with the columns of scores that were added to the old rows later, empty.

    Their entries in the provenance say that they are not in all rows, so that `tastemaker.runs.rescore` fills them.
    """
    before, now = provenance_of(old.schema.metadata), provenance_of(redone.schema.metadata)
    if before.get("fingerprint") != now.get("fingerprint"):
        return redone
    added = {name: made for name, made in before.get("scores", {}).items() if name not in score_columns(now)}
    for name in added:
        redone = redone.append_column(old.schema.field(name), pa.nulls(len(redone), pa.float32()))
    scores = {**now.get("scores", {}), **{name: {**made, "is_partial": True} for name, made in added.items()}}
    entry = {METADATA_KEY: json.dumps({**now, "scores": scores}).encode()} if added else {}
    return redone.replace_schema_metadata({**(redone.schema.metadata or {}), **entry})


def _put_in_place(old: pa.Table, redone: pa.Table) -> pa.Table:
    """Return the old rows, each replaced by the new row of the same image if there is one; other new rows come last.

    Old rows that stay though other models made them lose what these made: the file states one fingerprint.
    """
    made_by = provenance_of(old.schema.metadata)
    if made_by.get("fingerprint") != provenance_of(redone.schema.metadata).get("fingerprint"):
        old = old.drop_columns([*{*score_columns(made_by), "embedding"} & {*old.column_names}])
    new_at = {_identity(row): number for number, row in enumerate(redone.select(_IDENTITY).to_pylist())}
    order = [
        len(old) + new_at.pop(identity) if (identity := _identity(row)) in new_at else number
        for number, row in enumerate(old.select(_IDENTITY).to_pylist())
    ]
    order += [len(old) + number for number in new_at.values()]
    both = pa.concat_tables([old, redone], promote_options="permissive").select(redone.column_names)
    return both.take(pa.array(order, pa.int64())).cast(redone.schema)


def _follow(row: dict[str, Any], moved: Mapping[str, str], root: str) -> None:
    """Give a row the paths and the key that its file has now, below its input folder."""
    old = original_name(row["shard"] or row["image_path"] or "")
    if old not in moved:
        return
    path = moved[old]
    row["image_path"] = printable(path + original_name(row["image_path"]).removeprefix(old))
    if row["shard"]:
        row["shard"] = printable(path)
        return
    row["image_id"] = printable(key_of(path, root))
    folder, now_in = (name[: len(name) - len(base_name(name))] for name in (old, path))
    for part in row["sidecars"] or ():
        part["member"] = printable(now_in + original_name(part["member"]).removeprefix(folder))


def _identity(row: dict[str, Any]) -> tuple[str, int | None]:
    return row["image_path"], row["offset"] if row["shard"] else None
