"""Changes to rows files: new rows for some images, new paths of files that moved, marks on pictures that are gone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from tastemaker.errors import ReasonKind
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
_VERDICT = ["status", "reason_kind", "reason"]


def merge_rows(path: AnyPlace, redone: pa.Table) -> None:
    """Put rows into a rows file, in the places of the old rows of the same images, and write the file anew.

    The metadata of ``redone`` counts from then on: its fingerprint, and its sources, in which files of the size -1 are
    gone. The rows of these are marked as ``deleted``.

    Args:
        path: The rows file. One that is not there yet is made.
        redone: The new rows; none where no picture was read.
    """
    old = read_rows(path) if Place.of(path).is_file() else None
    _write(path, old, redone if old is None else _with_added_scores(old, redone))


def _write(path: AnyPlace, old: pa.Table | None, redone: pa.Table) -> None:
    table = redone if old is None else _put_in_place(old, redone)
    metadata = redone.schema.metadata or {}
    sources = json.loads(metadata.get(SOURCES_KEY, b'{"files": []}'))
    table = _mark_gone(table, {name for name, size, _ in sources["files"] if size < 0})
    rows = RowsFile(path, table.schema.with_metadata(metadata))
    try:
        rows.add_rows(table)
        rows.commit()
    except BaseException:
        rows.discard()
        raise


def update_rows(
    path: AnyPlace,
    fingerprint: Mapping[str, Any],
    sources: Mapping[str, Any],
    moved: Mapping[str, tuple[str, str | None]],
) -> None:
    """Bring rows up to date where no picture is scored: note files that moved, and mark rows of those that are gone.

    Args:
        path: The rows file.
        fingerprint: Of the run. Rows that another one made lose what its models made: all their pictures are gone.
        sources: The files of the partition as they are now; those that are gone have the size -1.
        moved: Path of an image or shard in the rows -> its path now, and the new key of an image.
    """
    old = _follow(read_rows(path), moved)
    made_by = rows_metadata({"fingerprint": fingerprint, "sources": sources})
    if _fingerprint(old) == fingerprint:
        made_by = {**(old.schema.metadata or {}), SOURCES_KEY: made_by[SOURCES_KEY]}
    _write(path, old, old.schema.with_metadata(made_by).empty_table())


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
    new_at = {_identity(row): number for number, row in enumerate(redone.select(_IDENTITY).to_pylist())}
    kept = _align(old, redone.schema, same_models=_fingerprint(old) == _fingerprint(redone))
    order = [
        len(old) + new_at.pop(identity) if (identity := _identity(row)) in new_at else number
        for number, row in enumerate(old.select(_IDENTITY).to_pylist())
    ]
    order += [len(old) + number for number in new_at.values()]
    return pa.concat_tables([kept, redone.replace_schema_metadata(None)]).take(pa.array(order, pa.int64()))


def _follow(table: pa.Table, moved: Mapping[str, tuple[str, str | None]]) -> pa.Table:
    """Return the rows with the paths and keys that their files have now."""
    if not moved:
        return table
    names = ["image_id", "image_path", "shard", "sidecars"]
    rows = table.select(names).to_pylist()
    for row in rows:
        old = original_name(row["shard"] or row["image_path"])
        if old not in moved:
            continue
        path, key = moved[old]
        row["image_path"] = printable(path + original_name(row["image_path"]).removeprefix(old))
        if row["shard"]:
            row["shard"] = printable(path)
            continue
        row["image_id"] = row["image_id"] if key is None else printable(key)
        folder = old[: len(old) - len(base_name(old))]
        for part in row["sidecars"] or ():
            part["member"] = printable(_in_folder_of(path, original_name(part["member"]).removeprefix(folder)))
    return _with_columns(table, rows, names)


def _in_folder_of(path: str, name: str) -> str:
    return path[: len(path) - len(base_name(path))] + name


def _identity(row: dict[str, Any]) -> tuple[str, int | None]:
    return row["image_path"], row["offset"] if row["shard"] else None


def _fingerprint(table: pa.Table) -> object:
    return provenance_of(table.schema.metadata).get("fingerprint")


def _align(table: pa.Table, schema: pa.Schema, *, same_models: bool) -> pa.Table:
    """Return a table with the columns of a schema and no metadata. Columns that it lacks are null."""
    by_models = () if same_models else (*score_columns(provenance_of(table.schema.metadata)), "embedding")
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names and field.name not in by_models
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema.remove_metadata())


def _mark_gone(table: pa.Table, gone: set[str]) -> pa.Table:
    """Return the rows; those whose files are gone get the status ``deleted``."""
    if not gone:
        return table
    rows = table.select(["image_path", *_VERDICT]).to_pylist()
    for row in rows:
        if original_name(row["image_path"]) in gone:
            row |= {"status": DELETED, "reason_kind": ReasonKind.DELETED, "reason": DELETED_REASON}
    return _with_columns(table, rows, _VERDICT)


def _with_columns(table: pa.Table, rows: list[dict[str, Any]], names: list[str]) -> pa.Table:
    """Return a table with the values that ``rows`` have in some of its columns."""
    for name in names:
        number = table.schema.get_field_index(name)
        field = table.schema.field(number)
        table = table.set_column(number, field, pa.array([row[name] for row in rows], field.type))
    return table
