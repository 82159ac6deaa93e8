"""Copies of originals that are there already: found by their rows, removed, or moved out of the kept."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tastemaker.imaging.shards import is_unsafe_name
from tastemaker.scores.files import write_whole
from tastemaker.scores.originals import KEPT_FOLDER
from tastemaker.scores.schema import DELETED, original_name
from tastemaker.storage import is_remote, open_result

DELETED_FOLDER = "deleted"
"""Folder below the output directory for copies of pictures that are gone: out of ``kept``, and not lost."""

COPY_COLUMNS = ["image_path", "shard", "sidecars", "status", "tar_file", "member_name"]
"""What tells where the copies of a row are."""

Row = dict[str, Any]
"""A row with the `COPY_COLUMNS`."""


def copied_files(output_dir: Path, folder: str, row: Row, root: str) -> dict[str, Path]:
    """Return name -> path of the plain files that one row's image and sidecars were copied to; empty for none.

    Args:
        output_dir: Directory of the results, wherever it was when the row was written.
        folder: Of the partition, below ``kept``.
        row: The row.
        root: Input folder of loose files; empty for a shard.
    """
    if not row["tar_file"] or not row["member_name"] or is_in_tar(row):
        return {}
    tar_file, name = original_name(row["tar_file"]), original_name(row["member_name"])
    pattern = rf"(?:^|/){KEPT_FOLDER}/({re.escape(folder)}(~\d+)?)/$"  # a name that is taken goes to a numbered one
    if (found := re.search(pattern, tar_file.removesuffix(name), re.DOTALL)) is None:
        return {}
    below = output_dir / KEPT_FOLDER / found[1]
    return {member: below / member for member in member_names(row, root)}


def is_in_tar(row: Row) -> bool:
    """Return whether a row's copy lies in a tar, and is no plain file, whose path ends in its name."""
    return not str(row["tar_file"]).endswith(str(row["member_name"]))


def member_names(row: Row, root: str) -> list[str]:
    """Return the names of a row's image and sidecars in a tar or a folder, the image first."""
    parts = [original_name(part["member"]) for part in row["sidecars"] or ()]
    if row["shard"]:
        image = original_name(row["image_path"]).removeprefix(f"{original_name(row['shard'])}/")
    else:
        image, *parts = [
            os.path.relpath(part, root or ".").replace(os.sep, "/")
            for part in [original_name(row["image_path"]), *parts]
        ]
    return [original_name(row["member_name"] or "") or image, *parts]


class UnkeptCopies:
    """Finds plain copies of images that are not kept: of an earlier cut, or of a run that was killed.

    Args:
        output_dir: Directory of the results.
    """

    def __init__(self, output_dir: Path) -> None:
        self._output_dir = output_dir
        self._listed: dict[str, set[str]] = {}
        self._is_any: bool | None = None

    def find(self, folder: str, rows: list[Row], root: str) -> list[Path]:
        """Return the copies that rows of one partition do not speak of, though they have the names of their images.

        Args:
            folder: Of the partition, below ``kept``.
            rows: All of its rows, as they will be.
            root: Input folder of loose files; empty for a shard.
        """
        below = self._output_dir / KEPT_FOLDER / folder
        if not self.may_be(folder):
            return []
        wanted = {path for row in rows for path in copied_files(self._output_dir, folder, row, root).values()}
        unkept = []
        for row in rows:
            names = member_names(row, root)
            image = below / names[0]
            if row["status"] == DELETED or any(map(is_unsafe_name, names)) or image in wanted:
                continue
            if self._is_there(folder, image):
                unkept += [path for name in reversed(names) if (path := below / name) not in wanted]  # the image last
        return unkept

    def may_be(self, folder: str) -> bool:
        """Return whether there is a folder of copies at all."""
        kept = self._output_dir / KEPT_FOLDER
        if not is_remote(str(kept)):
            return (kept / folder).is_dir()
        if self._is_any is None:  # most often there are none, and then not every partition asks
            self._is_any = kept.exists()
        return self._is_any and bool(self._list(folder))

    def _is_there(self, folder: str, path: Path) -> bool:
        return str(path) in self._list(folder) if is_remote(str(path)) else path.exists()

    def _list(self, folder: str) -> set[str]:
        """Return the URLs of all copies below a folder as they were when it was first asked for."""
        if folder not in self._listed:
            from tastemaker.storage.files import list_below

            self._listed[folder] = {entry.path for entry in list_below(self._output_dir / KEPT_FOLDER / folder)}
        return self._listed[folder]


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
    found = copied_files(output_dir, folder, row, root)
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
    with open_result(path) as file, tarfile.open(fileobj=file) as tar:
        for member in tar:
            if member.name in names and (content := tar.extractfile(member)) is not None:
                yield member.name, content.read()
