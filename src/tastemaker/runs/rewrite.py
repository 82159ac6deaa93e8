"""Rows that change in place: of single images that were done again, and of pictures that are gone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from tastemaker.errors import UnreadableImageError
from tastemaker.runs.best import open_originals
from tastemaker.runs.fingerprint import Fingerprint
from tastemaker.runs.index import ROWS_SUFFIX
from tastemaker.runs.input_files import Sources, read_sources
from tastemaker.runs.resume import REDO_FOLDER
from tastemaker.scores.files import RowsFile, read_rows
from tastemaker.scores.kept_copies import Row, UnkeptCopies, retire_copies
from tastemaker.scores.originals import OriginalsWriter, finished_together
from tastemaker.scores.schema import CUT_KEY, DELETED, DELETED_REASON, METADATA_KEY, SOURCES_KEY, original_name
from tastemaker.scores.sources import SkippedError
from tastemaker.tasks import FileGroupTask

_PLACES = ["image_id", "image_path", "shard", "offset", "size", "sidecars"]
_VERDICTS = ["kept", "status", "reason", "tar_file", "member_name"]
_MADE_BY_MODELS = ("aesthetic_score", "embedding")


@dataclass(frozen=True)
class Place:
    """Where the results of one partition lie.

    Attributes:
        output_dir: Directory of the results.
        group: The partition.
        name: Of it.
        folder: Below ``kept``, for plain files.
        root: Input folder of loose files; empty for a shard.
        originals: ``shards``, ``folder`` or ``none``.
        images_per_tar: Samples in a tar at most.
        is_cut_later: A cut over the whole run follows, and copies the kept then.
    """

    output_dir: Path
    group: FileGroupTask
    name: str
    folder: str
    root: str
    originals: str
    images_per_tar: int
    is_cut_later: bool

    @property
    def rows(self) -> Path:
        """The rows file."""
        return self.output_dir / f"{self.name}{ROWS_SUFFIX}"

    @property
    def redone(self) -> Path:
        """The rows of images that were done again, until they are merged."""
        return self.output_dir / REDO_FOLDER / f"{self.name}{ROWS_SUFFIX}"


def merge_redone(place: Place, *, is_leftover: bool = False) -> bool:
    """Put the rows of images that were done again in the places of the old ones; return whether there were any.

    Can be repeated after a kill at any point: the new rows are deleted last.

    Args:
        place: Of the partition.
        is_leftover: The rows are of a run that was killed. They count only if they were made as the old ones.
    """
    if not place.redone.exists():
        return False
    if place.rows.exists():
        old, redone = read_rows(place.rows), read_rows(place.redone)
        sources = read_sources((redone.schema.metadata or {}).get(SOURCES_KEY, b"").decode())
        if sources is not None and not (is_leftover and _fingerprint(old) != _fingerprint(redone)):
            _rewrite(place, old, redone, sources)
    place.redone.unlink(missing_ok=True)
    return True


def mark_deleted(place: Place, sources: Sources, fingerprint: Fingerprint) -> None:
    """Mark the rows of pictures that are gone, where no picture of the partition is read.

    Args:
        place: Of the partition.
        sources: Its files as they are now; those that are gone have the size -1.
        fingerprint: Of the run: rows that another one made lose their scores (all of their pictures are gone then).
    """
    old = read_rows(place.rows)
    if _fingerprint(old) == fingerprint:
        _rewrite(place, old, None, sources)
    else:
        metadata = {METADATA_KEY: json.dumps({"fingerprint": fingerprint}).encode()}
        _rewrite(place, old, old.schema.with_metadata(metadata).empty_table(), sources)


def _rewrite(place: Place, old: pa.Table, redone: pa.Table | None, sources: Sources) -> None:
    """Write a partition's rows again, and what copies it has of the kept."""
    like = old if redone is None else redone
    table, replaced = (old, []) if redone is None else _replace_rows(old, redone)
    before = old.select([*_PLACES, *_VERDICTS]).to_pylist()
    after = table.select([*_PLACES, *_VERDICTS]).to_pylist()
    _mark_gone(place, before, after, {path for path, size, _ in sources.files if size < 0})
    writer = OriginalsWriter(place.output_dir, place.name, place.folder, place.originals, place.images_per_tar)
    metadata = {key: value for key, value in (like.schema.metadata or {}).items() if key != CUT_KEY}
    metadata[SOURCES_KEY] = json.dumps(sources.as_json()).encode()
    rows = RowsFile(place.rows, table.schema.with_metadata(metadata))
    with finished_together(rows, writer, with_tars=place.originals == "shards" and not place.is_cut_later) as unkept:
        if place.originals != "none" and not place.is_cut_later:
            _copy_kept(after, replaced, writer, place)
        if place.originals == "folder":
            unkept += UnkeptCopies(place.output_dir).find(place.folder, after, place.root)
        rows.add_rows(_with_verdicts(table, after))


def _replace_rows(old: pa.Table, redone: pa.Table) -> tuple[pa.Table, list[int]]:
    """Return the rows with the new ones in the places of the old, and which ones are new.

    Old rows that stay though other models made them lose what these made: the file states one fingerprint.
    """
    new_at = {_identity(row): number for number, row in enumerate(redone.select(_PLACES).to_pylist())}
    kept = _align(old, redone.schema, same_models=_fingerprint(old) == _fingerprint(redone))
    together = pa.concat_tables([kept, redone.replace_schema_metadata(kept.schema.metadata)])
    order = [
        len(old) + new_at.pop(identity) if (identity := _identity(row)) in new_at else number
        for number, row in enumerate(old.select(_PLACES).to_pylist())
    ]
    order += [len(old) + number for number in new_at.values()]
    return together.take(pa.array(order, pa.int64())), [n for n, place in enumerate(order) if place >= len(old)]


def _identity(row: Row) -> tuple[str, int | None]:
    return row["image_path"], row["offset"] if row["shard"] else None


def _fingerprint(table: pa.Table) -> object:
    return json.loads((table.schema.metadata or {}).get(METADATA_KEY, b"{}")).get("fingerprint")


def _align(table: pa.Table, schema: pa.Schema, *, same_models: bool) -> pa.Table:
    """Return a table with the columns of a schema; what it lacks is null."""
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names and (same_models or field.name not in _MADE_BY_MODELS)
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _mark_gone(place: Place, before: list[Row], after: list[Row], gone: set[str]) -> None:
    """Set the verdict of the rows whose pictures are gone, and move their copies out of the kept."""
    old = {_identity(row): row for row in before}
    for row in after:
        if original_name(row["image_path"]) in gone and row["status"] != DELETED:
            copy = retire_copies(place.output_dir, place.folder, old[_identity(row)], place.root, place.rows.parent)
            row |= {"kept": False, "status": DELETED, "reason": DELETED_REASON}
            row |= {"tar_file": str(copy) if copy else None, "member_name": row["member_name"] if copy else None}


def _copy_kept(rows: list[Row], replaced: list[int], writer: OriginalsWriter, place: Place) -> None:
    """Copy the kept originals: of all rows into tars, which cannot change in part; of new ones into a folder."""
    numbers = replaced if place.originals == "folder" else range(len(rows))
    kept = [rows[number] for number in numbers if rows[number]["kept"]]
    with open_originals(place.group) as originals:
        for row, sample in zip(kept, originals.read_rows(kept), strict=True):
            try:
                if isinstance(sample, SkippedError):
                    raise sample
                row["tar_file"], row["member_name"] = writer.add(sample.members)
            except UnreadableImageError as error:
                row |= {"kept": False, "status": "failed", "reason": f"unreadable: {error}"}
                row |= {"tar_file": None, "member_name": None}


def _with_verdicts(table: pa.Table, rows: list[Row]) -> pa.Table:
    for name in _VERDICTS:
        number = table.schema.get_field_index(name)
        field = table.schema.field(number)
        table = table.set_column(number, field, pa.array([row[name] for row in rows], field.type))
    return table
