"""Loose image files: their keys, their sidecars, their bytes."""

from __future__ import annotations

import errno
import os
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing

from tastemaker.errors import ConfigurationError, Problem, ReasonKind, RemoteError
from tastemaker.imaging.formats import EXTENSIONS, HEIF_EXTENSIONS, RAW_EXTENSIONS
from tastemaker.imaging.image_metadata import Record, read_records
from tastemaker.imaging.keys import MAX_IMAGE_BYTES, Sample, gives_a_column, too_large, too_long
from tastemaker.imaging.takeout import names_of, picture_of
from tastemaker.imaging.tars import Member
from tastemaker.storage import Options, base_name, folder_of, public_url, relative_to
from tastemaker.storage.inputs import map_places
from tastemaker.storage.place import Place

_PAIRED_EXTENSIONS = HEIF_EXTENSIONS | RAW_EXTENSIONS
_KEPT_LISTINGS = 16
"""Folders whose listings are remembered: a sorted walk leaves a folder for those below it, and comes back."""


class FolderReader:
    """Reads loose images as samples. Remembers the last folders' listings, so that files in order cost one listing.

    Args:
        options: Settings of the store of images at URLs.
    """

    def __init__(self, options: Options | None = None) -> None:
        self._options = options
        self._listings: dict[str, dict[str, dict[str, int]]] = {}  # folder -> stem -> name -> size
        self._lock = threading.RLock()
        self._records: dict[str, dict[str, tuple[str, str]]] = {}  # folder -> picture -> metadata file and record

    def read_samples(
        self, paths: Iterable[str], root: str | None = None
    ) -> Iterator[tuple[str, Sample, dict[str, bytes]]]:
        """Yield path, sample and bytes by name of each image, in order; of remote images several are read at a time.

        Args:
            paths: The image files.
            root: The input folder that they were found in; their own where it is None.
        """

        def read(place: Place) -> tuple[str, Sample, dict[str, bytes]]:
            path = place.address
            return path, *self.read_sample(path, folder_of(path) if root is None else root)

        return map_places(read, (Place.at(path, self._options) for path in paths))

    def read_sample(self, path: str, root: str) -> tuple[Sample, dict[str, bytes]]:
        """Return one image file as a sample: key, picture and sidecars, with the bytes by name.

        The key is the path below ``root`` without the last extension; that of a raw or a HEIF file keeps it, because
        cameras write a JPEG of the same stem beside it. Sidecars are the files beside it that are no
        images and are called ``<stem>.<extension>`` or ``<whole name>.<extension>``, and the JSON of Google Takeout.
        Only those that give a column are read. One that cannot be read is a note of the sample, and the picture is
        scored without it. What a metadata file of the folder says is in ``described``.

        Args:
            path: The image file.
            root: The input folder that it was found in.
        """
        sample = Sample(key_of(path, root))
        data: dict[str, bytes] = {}
        beside: Mapping[str, int] = {}
        try:
            beside = self._list_beside(path)
        except RemoteError as error:  # the picture must not lose its captions because a connection failed
            sample.problem = Problem(ReasonKind.MISSING, str(error))
        except OSError as error:
            sample.notes.append(f"its folder cannot be listed, so that captions may lack: {error.strerror or error}")
        sample.image, problem = self._read_image(path, beside.get(base_name(path), 0), data)
        sample.problem = problem or sample.problem
        for sidecar in _sidecars_of(path, beside):
            self._read_sidecar(sidecar, beside[base_name(sidecar)], path, sample, data)
        try:
            record = self.record_of(path, root)
            sample.described = record.sidecars() if record else {}
        except OSError as error:
            sample.notes.append(f"the metadata of its folder cannot be read: {error.strerror or error}")
        return sample, data

    def list_sidecars(self, path: str) -> list[str]:
        """Return the paths of an image's sidecars, sorted.

        Raises:
            OSError: The folder cannot be listed.
        """
        return _sidecars_of(path, self._list_beside(path))

    def record_of(self, path: str, root: str) -> Record | None:
        """Return what a metadata file of the folder, or of the nearest above up to ``root``, says of a picture.

        Raises:
            OSError: There is such a file, and it cannot be read.
        """
        parts = relative_to(public_url(path), root).split("/")
        with self._lock:
            for depth in range(len(parts) - 1, -1, -1):
                above = "/".join(parts[:depth])
                found = self._records_in(root, above).get("/".join(parts[depth:]))
                if found is not None:
                    return Record(f"{above}/{found[0]}".lstrip("/"), found[1])
        return None

    def _records_in(self, root: str, below: str) -> dict[str, tuple[str, str]]:
        folder = Place.at(root, self._options) / below if below else Place.at(root, self._options)
        if folder.address not in self._records:
            names = self._list(folder.address).get("metadata", {})
            self._records[folder.address] = read_records(folder, names)
        return self._records[folder.address]

    def _read_image(self, path: str, size: int, data: dict[str, bytes]) -> tuple[Member, Problem | None]:
        """Read an image into ``data``; return where it lies, and why it cannot be read where that is so."""
        name = base_name(path)
        if size <= MAX_IMAGE_BYTES:
            try:
                content = self._read(path, MAX_IMAGE_BYTES + 1)
            except OSError as error:
                kind = ReasonKind.UNSUPPORTED if error.errno == errno.EINVAL else ReasonKind.MISSING
                why = error.strerror if kind == ReasonKind.UNSUPPORTED else f"cannot be read: {error.strerror or error}"
                return Member(path, 0, 0), Problem(kind, f"{name} {why}")
            size = len(content)
        if size > MAX_IMAGE_BYTES:
            return Member(path, 0, size), too_large(name, size)
        data[path] = content
        return Member(path, 0, size), None

    def _read_sidecar(self, path: str, size: int, image: str, sample: Sample, data: dict[str, bytes]) -> None:
        name, stem = base_name(path), os.path.splitext(base_name(image))[0]
        extension = name[len(stem) + 1 :] if name.startswith(f"{stem}.") else name  # Takeout spelt it otherwise
        try:
            if gives_a_column(extension, size):
                data[path] = self._read(path, size)
            elif gives_a_column(extension):
                sample.notes.append(too_long(name, size))
        except OSError as error:
            sample.notes.append(f"{name} cannot be read: {error.strerror or error}")
            if not size:  # nothing is known of it, as of a link that leads to itself
                return
        sample.sidecars[extension] = Member(path, 0, size)

    def _read(self, path: str, most: int) -> bytes:
        with closing(Place.at(path, self._options).open_ranges()) as ranges:
            return ranges.read_at(0, most)

    def _list_beside(self, path: str) -> dict[str, int]:
        """Return name -> size of the files in an image's folder that are called like it, or after it."""
        base, by_stem = base_name(path), self._list(folder_of(path))
        found = {**by_stem.get(os.path.splitext(base)[0], {}), **by_stem.get(base, {})}
        if not any(name.lower().endswith(".json") for name in found):
            others = (by_stem.get(other, {}) for other in names_of(base))
            found |= {name: size for other in others for name, size in other.items() if name.endswith(".json")}
        return found

    def _list(self, folder: str) -> dict[str, dict[str, int]]:
        """Return stem -> name -> size of the files in a folder."""
        with self._lock:
            if folder not in self._listings:
                while len(self._listings) >= _KEPT_LISTINGS:
                    del self._listings[next(iter(self._listings))]
                self._listings[folder] = _list_by_stem(Place.at(folder, self._options))
            return self._listings[folder]


def key_of(path: str, root: str) -> str:
    """Return the key of an image file, see `FolderReader.read_sample`."""
    stem, extension = os.path.splitext(public_url(path))
    is_paired = extension[1:].lower() in _PAIRED_EXTENSIONS
    return relative_to(public_url(path) if is_paired else stem, root)


def _sidecars_of(path: str, names: Iterable[str]) -> list[str]:
    folder = path[: len(path) - len(base_name(path))]
    return sorted(folder + name for name in names if os.path.splitext(name)[1][1:].lower() not in {"", *EXTENSIONS})


def _list_by_stem(folder: Place) -> dict[str, dict[str, int]]:
    by_stem: dict[str, dict[str, int]] = defaultdict(dict)
    try:
        entries = folder.list(recursive=False)
    except ConfigurationError:  # a web server has no listings
        return by_stem
    for name, size in ((entry.place.name, entry.size) for entry in entries):
        if not name.startswith("."):
            by_stem[picture_of(name) or os.path.splitext(name)[0]][name] = size
    return by_stem
