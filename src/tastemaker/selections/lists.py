"""Selected rows as files that other programs read: manifests and lists of keys."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from tastemaker.errors import ConfigurationError

MANIFESTS = (".parquet", ".csv", ".jsonl")
UIDS = (".txt", ".npy")
_UID = np.dtype("u8,u8")


def write_manifest(path: Path, name: str, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    """Write rows by the extension of the name: Parquet, CSV (with lists as JSON) or a line of JSON each."""
    if name.endswith(".csv"):
        flat = pa.schema([(f.name, pa.string() if pa.types.is_nested(f.type) else f.type) for f in schema])
        with path.open("wb") as file, pyarrow.csv.CSVWriter(file, flat) as writer:
            for table in tables:
                writer.write_table(_flatten(table, flat))
    elif name.endswith(".jsonl"):
        with path.open("w", encoding="utf-8") as lines:
            for table in tables:
                rows = map(_finite, table.to_pylist())
                lines.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
    else:
        with path.open("wb") as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for table in tables:
                writer.write_table(table)


def write_uids(path: Path, name: str, tables: Iterable[pa.Table]) -> None:
    """Write the keys of rows, one a line; or DataComp's array of uids, sorted, where the name ends with ``.npy``.

    Raises:
        ConfigurationError: A row has no uid of 32 hexadecimal digits in its JSON, or a key has a line break.
    """
    if name.endswith(".npy"):
        uids = [_uid(row) for table in tables for row in table.to_pylist()]
        array = np.array([(int(uid[:16], 16), int(uid[16:], 16)) for uid in uids], _UID)
        array.sort()
        with path.open("wb") as file:
            np.save(file, array)
        return
    with path.open("w", encoding="utf-8") as file:
        for table in tables:
            for key in table["image_id"].to_pylist():
                if "\n" in key:
                    raise ConfigurationError(f"the key {key!r} has a line break; write a manifest instead")
                file.write(key + "\n")


def _uid(row: dict[str, Any]) -> str:
    try:
        uid = str(json.loads(row["json"] or "{}").get("uid") or row["image_id"])
        if len(uid) == 32 and int(uid, 16) >= 0:
            return uid
    except (ValueError, AttributeError, RecursionError):
        pass
    raise ConfigurationError(
        f"{row['image_path']} has no DataComp uid (32 hexadecimal digits, `uid` of its JSON); write to a .txt for keys"
    )


def _flatten(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        pa.array([None if v is None else json.dumps(v, ensure_ascii=False) for v in column.to_pylist()], pa.string())
        if pa.types.is_nested(column.type)
        else column
        for column in table.columns
    ]
    return pa.table(columns, schema=schema)


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
