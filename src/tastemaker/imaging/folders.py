"""Loose image files: their keys, their sidecars, their bytes."""

from __future__ import annotations

import os
from collections import defaultdict

from tastemaker.imaging.decode import EXTENSIONS
from tastemaker.imaging.shards import MAX_MEMBER_BYTES, Member, Sample


class FolderReader:
    """Reads loose images as samples. Remembers the last folder's listing, so that files in order cost one listing."""

    def __init__(self) -> None:
        self._folder: str | None = None
        self._by_stem: dict[str, list[str]] = {}

    def read_sample(self, path: str, root: str) -> tuple[Sample, dict[str, bytes]]:
        """Return one image file as a sample: key, picture and sidecars, with the bytes by name.

        The key is the path below ``root`` without the last extension. Sidecars are the files beside it that are no
        images and are called ``<stem>.<extension>`` or ``<whole name>.<extension>``.

        Args:
            path: The image file.
            root: The input folder that it was found in.
        """
        stem = os.path.splitext(path)[0]
        key = os.path.relpath(stem, root or ".").replace(os.sep, "/")
        sample = Sample(key)
        data: dict[str, bytes] = {}
        sample.image = _read(path, sample, data)
        for sidecar in self._sidecars(path):
            extension = os.path.basename(sidecar)[len(os.path.basename(stem)) + 1 :]
            sample.sidecars[extension] = _read(sidecar, sample, data)
        return sample, data

    def _sidecars(self, path: str) -> list[str]:
        folder, base = os.path.split(path)
        if folder != self._folder:
            self._folder, self._by_stem = folder, _list_sidecars(folder)
        stem = os.path.splitext(base)[0]
        return sorted(os.path.join(folder, name) for name in {*self._by_stem[stem], *self._by_stem[base]})


def _list_sidecars(folder: str) -> dict[str, list[str]]:
    by_stem: dict[str, list[str]] = defaultdict(list)
    try:
        names = os.listdir(folder or ".")
    except OSError:
        return by_stem
    for name in names:
        stem, extension = os.path.splitext(name)
        if extension and extension[1:].lower() not in EXTENSIONS and not name.startswith("."):
            by_stem[stem].append(name)
    return by_stem


def _read(path: str, sample: Sample, data: dict[str, bytes]) -> Member:
    """Read a whole file into ``data``; what cannot be read becomes the sample's problem."""
    member = Member(path, 0, 0)
    try:
        member = Member(path, 0, os.path.getsize(path))
        if member.size > MAX_MEMBER_BYTES:
            sample.problem = sample.problem or f"the file has {member.size:,} bytes, too many for an image"
            return member
        with open(path, "rb") as file:
            data[path] = file.read()
    except OSError as error:
        sample.problem = sample.problem or f"{os.path.basename(path)} cannot be read: {error.strerror}"
    return member
