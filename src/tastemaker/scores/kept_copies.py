"""Copies of originals that are there already: found by their rows, removed, or moved out of the kept."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from tastemaker.scores.files import read_rows, write_whole
from tastemaker.scores.originals import KEPT_FOLDER
from tastemaker.scores.schema import original_name
from tastemaker.storage import is_remote

DELETED_FOLDER = "deleted"
"""Folder below the output directory for copies of pictures that are gone: out of ``kept``, and not lost."""

COPY_COLUMNS = ["image_path", "shard", "sidecars", "tar_file", "member_name"]
"""What tells where the copies of a row are."""

Row = dict[str, Any]
"""A row with ``image_path``, ``sidecars``, ``tar_file`` and ``member_name``."""


def copied_files(output_dir: Path, row: Row, root: str) -> dict[str, Path]:
    """Return name -> path of the plain files that one row's image and sidecars were copied to; empty for none.

    Args:
        output_dir: Directory of the results, wherever it was when the row was written.
        row: The row.
        root: Input folder of loose files; empty for a shard.
    """
    if not row["tar_file"] or not row["member_name"] or is_in_tar(row):
        return {}
    tar_file, name = original_name(row["tar_file"]), original_name(row["member_name"])
    folder = output_dir / KEPT_FOLDER / tar_file.removesuffix(name).rstrip("/").rpartition("/")[2]
    if f"/{DELETED_FOLDER}/" in tar_file.removesuffix(name):
        return {}
    return {member: folder / member for member in member_names(row, root)}


def is_in_tar(row: Row) -> bool:
    """Return whether a row's copy lies in a tar, and is no plain file, whose path ends in its name."""
    return not str(row["tar_file"]).endswith(str(row["member_name"]))


def member_names(row: Row, root: str) -> list[str]:
    """Return the names of a row's image and sidecars in a tar or a folder, the image first."""
    sidecars = [original_name(part["member"]) for part in row["sidecars"] or ()]
    if not row["shard"]:
        sidecars = [os.path.relpath(member, root or ".").replace(os.sep, "/") for member in sidecars]
    return [original_name(row["member_name"]), *sidecars]


def remove_copies(output_dir: Path, before: list[Row], after: list[Row], root: str) -> None:
    """Delete the plain files that rows were copied to before, and no row is after.

    Args:
        output_dir: Directory of the results.
        before: The rows of one partition as they were.
        after: The same rows as they will be.
        root: Input folder of loose files; empty for a shard.
    """
    wanted = {path for row in after for path in copied_files(output_dir, row, root).values()}
    for row in before:
        for path in copied_files(output_dir, row, root).values():
            if path not in wanted:
                path.unlink(missing_ok=True)


def read_copied(path: Path) -> list[Row]:
    """Return the rows of a local file whose images were copied to plain files; none where there is no such file."""
    try:
        rows = [] if is_remote(str(path)) else read_rows(path, COPY_COLUMNS).to_pylist()
    except (OSError, pa.ArrowException):
        return []
    return [row for row in rows if set(row) == set(COPY_COLUMNS) and row["tar_file"] and not is_in_tar(row)]


def remove_outdated_copies(path: Path, output_dir: Path, before: list[Row], root: str) -> None:
    """Delete copies of images that a partition was written with before, and that its rows do not keep any more.

    An image that is in its rows no more may be in those of another partition by now: its copy stays.

    Args:
        path: The partition's rows as they are now.
        output_dir: Directory of the results.
        before: What `read_copied` returned before.
        root: Input folder of loose files; empty for a shard.
    """
    if not before:
        return
    after = read_rows(path, COPY_COLUMNS).to_pylist()
    known = {row["image_path"] for row in after}
    remove_copies(output_dir, [row for row in before if row["image_path"] in known], after, root)


def retire_copies(output_dir: Path, folder: str, row: Row, root: str, tars: Path) -> Path | None:
    """Move the copies of a picture that is gone below ``deleted``; return where its image is then, None for no copy.

    Args:
        output_dir: Directory of the results.
        folder: Of the partition, below ``kept`` and ``deleted``.
        row: The row as it was.
        root: Input folder of loose files.
        tars: Folder of the partition's tars.
    """
    target = output_dir / DELETED_FOLDER / folder
    found = copied_files(output_dir, row, root)
    for name, path in found.items():
        if path.exists():
            write_whole(target / name, path.read_bytes())
            path.unlink()
    if not found and row["tar_file"] and is_in_tar(row):
        for name, data in _read_tar(tars / original_name(row["tar_file"]).rpartition("/")[2], member_names(row, root)):
            write_whole(target / name, data)
    image = target / original_name(row["member_name"] or "")
    return image if row["member_name"] and image.exists() else None


def _read_tar(path: Path, names: list[str]) -> Iterator[tuple[str, bytes]]:
    if not path.exists():
        return
    with path.open("rb") as file, tarfile.open(fileobj=file) as tar:
        for member in tar:
            if member.name in names and (content := tar.extractfile(member)) is not None:
                yield member.name, content.read()
