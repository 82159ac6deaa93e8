"""Loose image files: their keys, their sidecars, their bytes."""

from __future__ import annotations

import os
import stat
from collections import defaultdict

from tastemaker.imaging.decode import EXTENSIONS
from tastemaker.imaging.heif import HEIF_EXTENSIONS
from tastemaker.imaging.raws import RAW_EXTENSIONS
from tastemaker.imaging.shards import MAX_MEMBER_BYTES, Member, Sample

_PAIRED_EXTENSIONS = HEIF_EXTENSIONS | RAW_EXTENSIONS
_KEPT_LISTINGS = 16
"""Folders whose listings are remembered: a sorted walk leaves a folder for those below it, and comes back."""


class FolderReader:
    """Reads loose images as samples. Remembers the last folders' listings, so that files in order cost one listing."""

    def __init__(self) -> None:
        self._listings: dict[str, dict[str, list[str]]] = {}  # folder -> stem -> sidecars

    def read_sample(self, path: str, root: str) -> tuple[Sample, dict[str, bytes]]:
        """Return one image file as a sample: key, picture and sidecars, with the bytes by name.

        The key is the path below ``root`` without the last extension; that of a raw or a HEIF file keeps it, because
        cameras write a JPEG of the same stem beside it. Sidecars are the files beside it that are no
        images and are called ``<stem>.<extension>`` or ``<whole name>.<extension>``.

        Args:
            path: The image file.
            root: The input folder that it was found in.
        """
        stem, extension = os.path.splitext(path)
        named = path if extension[1:].lower() in _PAIRED_EXTENSIONS else stem
        key = os.path.relpath(named, root or ".").replace(os.sep, "/")
        sample = Sample(key)
        data: dict[str, bytes] = {}
        sample.image = _read(path, sample, data)
        for sidecar in self._sidecars(path):
            extension = os.path.basename(sidecar)[len(os.path.basename(stem)) + 1 :]
            sample.sidecars[extension] = _read(sidecar, sample, data)
        return sample, data

    def _sidecars(self, path: str) -> list[str]:
        folder, base = os.path.split(path)
        if folder not in self._listings:
            while len(self._listings) >= _KEPT_LISTINGS:
                del self._listings[next(iter(self._listings))]
            self._listings[folder] = _list_sidecars(folder)
        by_stem, stem = self._listings[folder], os.path.splitext(base)[0]
        return sorted(os.path.join(folder, name) for name in {*by_stem.get(stem, ()), *by_stem.get(base, ())})


def _list_sidecars(folder: str) -> dict[str, list[str]]:
    by_stem: dict[str, list[str]] = defaultdict(list)
    try:
        with os.scandir(folder or ".") as entries:
            names = [entry.name for entry in entries if entry.is_file()]
    except OSError:
        return by_stem
    for name in names:
        stem, extension = os.path.splitext(name)
        if extension and extension[1:].lower() not in EXTENSIONS and not name.startswith("."):
            by_stem[stem].append(name)
    return by_stem


def _read(path: str, sample: Sample, data: dict[str, bytes]) -> Member:
    """Read a whole file into ``data``; what cannot be read becomes the sample's problem."""
    member, name = Member(path, 0, 0), os.path.basename(path)
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for a writer, for ever perhaps
            sample.problem = sample.problem or f"{name} is no file"
        elif status.st_size > MAX_MEMBER_BYTES:
            member = Member(path, 0, status.st_size)
            sample.problem = sample.problem or f"{name} has {status.st_size:,} bytes, too many for an image"
        else:
            with open(path, "rb") as file:
                data[path] = file.read()
            member = Member(path, 0, len(data[path]))
    except OSError as error:
        sample.problem = sample.problem or f"{name} cannot be read: {error.strerror}"
    return member
