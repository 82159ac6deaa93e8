"""Where kept originals go: into tars, into a folder, or nowhere."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from tastemaker.checks import check_choice, check_positive
from tastemaker.errors import UnreadableImageError
from tastemaker.imaging.shards import is_unsafe_name
from tastemaker.scores.files import PendingFile, RowsFile, TarFile, content_digest, is_too_long, write_whole
from tastemaker.storage import is_remote

if TYPE_CHECKING:
    from tastemaker.storage.uploads import Uploads

ORIGINALS = ("shards", "folder", "none")
"""WebDataset tars, plain files below ``kept``, or rows only."""

KEPT_FOLDER = "kept"
"""Folder below the output directory that plain files go to."""

REPLACING = "replacing-"
"""How the names of the files begin that `replacing_mark` returns."""


class OriginalsWriter:
    """Writes the kept images of one partition, byte for byte, each with its sidecars.

    Args:
        output_dir: Directory of the results, local or remote.
        name: Name of the partition: tars are called ``<name>-000000.tar`` and following.
        folder: Folder below ``kept`` that plain files of this partition go to.
        kind: ``shards``, ``folder`` or ``none``.
        images_per_tar: Samples in a tar at most.

    Raises:
        ConfigurationError: ``kind`` is none of the three, or there is no room for an image in a tar.
    """

    def __init__(self, output_dir: Path, name: str, folder: str, kind: str, images_per_tar: int) -> None:
        check_originals(kind, images_per_tar)
        self.kind = kind
        self.tars: list[TarFile] = []
        self._stem = output_dir / name
        self.output_dir, self.name = output_dir, name
        self._copied: dict[Path, bytes] = {}
        self._with_copies: set[Path] = set()
        self._drafts: list[PendingFile] = []
        self._outdated: set[Path] = set()
        self._mark: Path | None = None
        self._uploads: Uploads | None = None
        self._folder = output_dir / KEPT_FOLDER / folder
        self._images_per_tar = images_per_tar

    def add(self, members: dict[str, bytes]) -> tuple[str, str]:
        """Write one sample; return the path of the file that its image is in, and its name there.

        Args:
            members: Name -> bytes, the image first.

        Raises:
            UnreadableImageError: A name leads out of the folder, or is too long for a file. Nothing is written then.
        """
        unsafe = next((name for name in members if is_unsafe_name(name)), None)
        if unsafe is not None:
            raise UnreadableImageError(f"unsafe name {unsafe!r}: it leads out of the output folder")
        name = next(iter(members))
        if self.kind == "folder":
            return str(self._copy(members) / name), name
        if not self.tars or self.tars[-1].samples == self._images_per_tar or self.tars[-1].has_other(members):
            self.tars.append(TarFile(self._tar_path(len(self.tars))))
        self.tars[-1].add_sample(members)
        return str(self.tars[-1].path), name

    def _copy(self, members: dict[str, bytes]) -> Path:
        """Write one sample as plain files; return the folder that their names are below."""
        long = next(filter(is_too_long, members), None)
        if long is not None:
            raise UnreadableImageError(f"the name {long[:40]!r}... is too long for a file; tars take it")
        folder = self._free_folder(members)
        for member, data in members.items():
            path = folder / member
            if path not in self._copied:  # two images may share a sidecar
                self._write_copy(path, data)
                self._copied[path] = content_digest(data)
                self._with_copies.update(path.parents)
        return folder

    def replace(self, earlier: OriginalsWriter) -> None:
        """Take the place of a writer of the same partition: of what it has written, only what is added here stays.

        Raises:
            RemoteError: What is being uploaded cannot be written.
        """
        earlier.wait()  # else a copy could get there after it was deleted
        earlier.discard()
        self._outdated = {*earlier._outdated, *earlier._copied}

    def _tar_path(self, number: int) -> Path:
        return self._stem.with_name(f"{self._stem.name}-{number:06d}.tar")

    def _write_copy(self, path: Path, data: bytes) -> None:
        if not is_remote(str(path)):
            draft = self._stem.with_name(f"{self._stem.name}-{len(self._drafts):06d}.copy")
            self._drafts.append(PendingFile(path, draft))
            self._drafts[-1].draft.write_bytes(data)
            return
        if self._uploads is None:
            from tastemaker.storage.uploads import Uploads

            self.mark_replaced()  # a copy in a store is seen at once
            self._uploads = Uploads()
        self._uploads.add(data, path)

    def _free_folder(self, members: dict[str, bytes]) -> Path:
        """Return the partition's folder, or ``folder~2`` and so on where a name is taken by another image.

        Not ``folder-2``: so the folder of another shard of that name may be called.
        """
        folders = (self._folder if n == 1 else self._folder.with_name(f"{self._folder.name}~{n}") for n in count(1))
        digests = {member: content_digest(data) for member, data in members.items()}
        return next(f for f in folders if all(self._is_free(f / m, digest) for m, digest in digests.items()))

    def _is_free(self, path: Path, digest: bytes) -> bool:
        """Return whether there is nothing else at a path: no other file, no folder, no file in place of one above."""
        if path in self._with_copies or any(above in self._copied for above in path.parents):
            return False
        return self._copied.get(path, digest) == digest

    def mark_replaced(self) -> None:
        """Write a mark that rows that are there do not count: they say nothing true of the originals meanwhile."""
        if self._mark is None and self._stem.with_name(f"{self._stem.name}.parquet").exists():
            self._mark = replacing_mark(self.output_dir, self.name)
            write_whole(self._mark, b"")

    def remove_mark(self) -> None:
        """Delete the mark: there are new rows."""
        if self._mark is not None:
            self._mark.unlink(missing_ok=True)

    def wait(self) -> None:
        """Wait until all copies are there that go to a URL."""
        if self._uploads is not None:
            self._uploads.finish()

    def commit(self, *, with_tars: bool = True) -> None:
        """Make copies and tars visible, and delete those that an earlier run of the same partition had beyond them.

        Args:
            with_tars: Whether the tars are written anew, too; else those of the partition stay as they are.
        """
        self.wait()
        for path in self._outdated - self._copied.keys():
            path.unlink(missing_ok=True)
        for copy in self._drafts:
            copy.commit()
        if not with_tars:
            return
        for tar in self.tars:
            tar.commit()
        if is_remote(str(self._stem)):
            number = len(self.tars)  # one question a partition, where a listing may be of a million objects
            while (path := self._tar_path(number)).exists():
                self.mark_replaced()
                path.unlink()
                number += 1
            return
        pattern = re.compile(re.escape(self._stem.name) + r"-(\d{6})\.tar")
        for path in self._stem.parent.glob("*.tar"):
            match = pattern.fullmatch(path.name)
            if match and int(match[1]) >= len(self.tars):
                self.mark_replaced()
                path.unlink()

    def discard(self) -> None:
        """Delete what is not visible yet."""
        if self._uploads is not None:
            self._uploads.abandon()
        for pending in [*self.tars, *self._drafts]:
            pending.discard()


def commit_together(rows: RowsFile, originals: OriginalsWriter, unkept: list[Path], *, with_tars: bool = True) -> None:
    """Make originals and the rows of them visible, the rows last.

    Args:
        rows: The rows of a partition.
        originals: Its originals.
        unkept: Copies to be deleted.
        with_tars: As in `OriginalsWriter.commit`.
    """
    if originals.kind == "folder" or (originals.kind == "shards" and with_tars) or unkept:
        originals.mark_replaced()
    originals.commit(with_tars=with_tars)
    for path in unkept:
        path.unlink(missing_ok=True)
    rows.commit()
    originals.remove_mark()


@contextmanager
def finished_together(rows: RowsFile, originals: OriginalsWriter, *, with_tars: bool = True) -> Iterator[list[Path]]:
    """Make originals and the rows of them visible at the end of the block; neither after an error.

    Yields:
        A list for the copies that are to be deleted then.
    """
    unkept: list[Path] = []
    try:
        yield unkept
        commit_together(rows, originals, unkept, with_tars=with_tars)
    except BaseException:
        originals.discard()
        rows.discard()
        raise


def replacing_mark(output_dir: Path, name: str) -> Path:
    """Return the file that is there while the originals of a partition with rows are replaced."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
    return output_dir / "_tastemaker" / f"{REPLACING}{digest}"


def check_originals(kind: str, images_per_tar: int) -> None:
    """Raise `ConfigurationError` for values that `OriginalsWriter` does not take."""
    check_choice("originals", kind, ORIGINALS)
    check_positive("images_per_tar", images_per_tar)
