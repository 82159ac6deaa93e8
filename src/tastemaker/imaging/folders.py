"""Loose image files: their keys, their sidecars, their bytes."""

from __future__ import annotations

import os
import stat
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing

from tastemaker.errors import Problem, ReasonKind
from tastemaker.imaging.decode import EXTENSIONS
from tastemaker.imaging.heif import HEIF_EXTENSIONS
from tastemaker.imaging.image_metadata import ImageMetadata, Record
from tastemaker.imaging.keys import MAX_IMAGE_BYTES, Sample, gives_a_column, too_large, too_long
from tastemaker.imaging.raws import RAW_EXTENSIONS
from tastemaker.imaging.takeout import names_of, picture_of
from tastemaker.imaging.tars import Member
from tastemaker.storage import Options, base_name, folder_of, is_remote, public_url, relative_to
from tastemaker.storage.place import Place

_PAIRED_EXTENSIONS = HEIF_EXTENSIONS | RAW_EXTENSIONS
_KEPT_LISTINGS = 16
"""Folders whose listings are remembered: a sorted walk leaves a folder for those below it, and comes back."""


_IN_FLIGHT = 16
"""Remote images that are read at the same time: most of the time goes into waiting for answers."""


class FolderReader:
    """Reads loose images as samples. Remembers the last folders' listings, so that files in order cost one listing.

    Args:
        options: Arguments of the file system of images at URLs.
    """

    def __init__(self, options: Options | None = None) -> None:
        self._options = options
        self._listings: dict[str, dict[str, list[str]]] = {}  # folder -> stem -> sidecars
        self._records = ImageMetadata(options, lambda folder: self._list(folder).get("metadata", ()))

    def read_samples(
        self, paths: Iterable[str], root: str | None = None
    ) -> Iterator[tuple[str, Sample, dict[str, bytes]]]:
        """Yield path, sample and bytes by name of each image, in order; of remote images several are read at a time.

        Args:
            paths: The image files.
            root: The input folder that they were found in; their own where it is None.
        """
        following = iter(paths)
        waiting: deque[tuple[str, Future[tuple[Sample, dict[str, bytes]]]]] = deque()
        with ExitStack() as stack:
            pool: ThreadPoolExecutor | None = None
            for path in following:
                place = folder_of(path) if root is None else root
                if not is_remote(path):
                    yield path, *self.read_sample(path, place)
                    continue
                if pool is None:
                    pool = ThreadPoolExecutor(_IN_FLIGHT, thread_name_prefix="read")
                    stack.callback(pool.shutdown, wait=False, cancel_futures=True)
                waiting.append((path, pool.submit(self._read_listed, path, place, *self._try_to_list(path))))
                if len(waiting) == _IN_FLIGHT:
                    path, sample = waiting.popleft()
                    yield path, *sample.result()
            for path, sample in waiting:
                yield path, *sample.result()

    def read_sample(self, path: str, root: str, sidecars: list[str] | None = None) -> tuple[Sample, dict[str, bytes]]:
        """Return one image file as a sample: key, picture and sidecars, with the bytes by name.

        The key is the path below ``root`` without the last extension; that of a raw or a HEIF file keeps it, because
        cameras write a JPEG of the same stem beside it. Sidecars are the files beside it that are no
        images and are called ``<stem>.<extension>`` or ``<whole name>.<extension>``, and the JSON of Google Takeout.
        Only those that give a column are read. One that cannot be read is a note of the sample, and the picture is
        scored without it. What a metadata file of the folder says is in ``described``.

        Args:
            path: The image file.
            root: The input folder that it was found in.
            sidecars: Their paths, where they are known already.
        """
        stem = os.path.splitext(public_url(path))[0]
        sample = Sample(_key_of(path, root))
        data: dict[str, bytes] = {}
        sample.image, sample.problem = self._read_image(path, data)
        try:
            listed = self.list_sidecars(path) if sidecars is None else sidecars
        except OSError as error:
            listed = []
            sample.notes.append(f"its folder cannot be listed, so that captions may lack: {error.strerror or error}")
        for sidecar in listed:
            extension = _extension_of(base_name(sidecar), base_name(stem))
            try:
                member = sample.sidecars[extension] = Member(sidecar, 0, self._size_of(sidecar))
                if gives_a_column(extension, member.size):
                    data[sidecar] = self._read(sidecar, member.size)
                elif gives_a_column(extension):
                    sample.notes.append(too_long(base_name(sidecar), member.size))
            except OSError as error:
                sample.notes.append(f"{base_name(sidecar)} cannot be read: {error.strerror or error}")
        try:
            record = self.record_of(path, root)
            sample.described = record.sidecars() if record else {}
        except OSError as error:
            sample.notes.append(f"the metadata of its folder cannot be read: {error.strerror or error}")
        return sample, data

    def _try_to_list(self, path: str) -> tuple[list[str], Problem | None]:
        """Return the sidecars of a remote image, and why they are not known where that is so."""
        try:
            return self.list_sidecars(path), None
        except OSError as error:
            return [], Problem(ReasonKind.MISSING, str(error))

    def _read_listed(
        self, path: str, root: str, sidecars: list[str], problem: Problem | None
    ) -> tuple[Sample, dict[str, bytes]]:
        sample, data = self.read_sample(path, root, sidecars)
        sample.problem = sample.problem or problem
        return sample, data

    def _read_image(self, path: str, data: dict[str, bytes]) -> tuple[Member, Problem | None]:
        """Read an image into ``data``; return where it lies, and why it cannot be read where that is so."""
        name, size = base_name(path), 0
        try:
            if not is_remote(path):
                status = os.stat(path)
                if stat.S_ISDIR(status.st_mode):
                    os.scandir(path).close()  # raises why a folder is among the pictures: it cannot be read
                if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for a writer, for ever perhaps
                    return Member(path, 0, 0), Problem(ReasonKind.UNSUPPORTED, f"{name} is no file")
                size = status.st_size
            if size <= MAX_IMAGE_BYTES:
                content = self._read(path, MAX_IMAGE_BYTES + 1 if is_remote(path) else -1)
                size = len(content)
        except OSError as error:
            return Member(path, 0, 0), Problem(ReasonKind.MISSING, f"{name} cannot be read: {error.strerror or error}")
        if size > MAX_IMAGE_BYTES:
            return Member(path, 0, size), too_large(name, size)
        data[path] = content
        return Member(path, 0, size), None

    def _size_of(self, path: str) -> int:
        if not is_remote(path):
            return os.stat(path).st_size
        entry = Place.at(path, self._options).stat()
        if entry is None:
            raise FileNotFoundError("it is gone")
        return entry.size

    def _read(self, path: str, most: int) -> bytes:
        """Return the content of a file, up to so many bytes; -1 for all of a local one."""
        if not is_remote(path):
            with open(path, "rb") as file:
                return file.read(most)
        with closing(Place.at(path, self._options).open_ranges()) as ranges:
            return ranges.read_at(0, most)

    def list_sidecars(self, path: str) -> list[str]:
        """Return the paths of an image's sidecars, sorted.

        Raises:
            OSError: The folder cannot be listed.
        """
        folder, base = folder_of(path), base_name(path)
        by_stem, stem = self._list(folder), os.path.splitext(base)[0]
        joined = f"{folder}/" if is_remote(path) else os.path.join(folder, "")
        names = {*by_stem.get(stem, ()), *by_stem.get(base, ())}
        if not any(name.lower().endswith(".json") for name in names):
            names |= {name for other in names_of(base) for name in by_stem.get(other, ()) if name.endswith(".json")}
        return sorted(joined + name for name in names)

    def record_of(self, path: str, root: str) -> Record | None:
        """Return what a metadata file of the folder, or of one above up to ``root``, says of a picture.

        Raises:
            OSError: There is such a file, and it cannot be read.
        """
        return self._records.record_of(root, relative_to(public_url(path), root))

    def _list(self, folder: str) -> dict[str, list[str]]:
        """Return stem -> names of the files in a folder that are no pictures."""
        if folder not in self._listings:
            while len(self._listings) >= _KEPT_LISTINGS:
                del self._listings[next(iter(self._listings))]
            self._listings[folder] = _list_sidecars(folder, self._options)
        return self._listings[folder]


def _extension_of(sidecar: str, stem: str) -> str:
    """Return what follows the stem of the picture in a sidecar's name; all of it where Takeout spelt it otherwise."""
    return sidecar[len(stem) + 1 :] if sidecar.startswith(f"{stem}.") else sidecar


def _key_of(path: str, root: str) -> str:
    stem, extension = os.path.splitext(public_url(path))
    is_paired = extension[1:].lower() in _PAIRED_EXTENSIONS
    return relative_to(public_url(path) if is_paired else stem, root)


def _list_sidecars(folder: str, options: Options | None) -> dict[str, list[str]]:
    by_stem: dict[str, list[str]] = defaultdict(list)
    if is_remote(folder):
        is_listed = not folder.startswith("http")  # a web server has no listings
        listed = Place.at(folder, options).list(recursive=False) if is_listed else []
        names = [entry.place.name for entry in listed]
    else:
        with os.scandir(folder or ".") as entries:
            names = [entry.name for entry in entries if _is_file(entry)]
    for name in names:
        stem, extension = os.path.splitext(name)
        if extension and extension[1:].lower() not in EXTENSIONS and not name.startswith("."):
            by_stem[picture_of(name) or stem].append(name)
    return by_stem


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # such as a link that leads to itself: to read it says so
        return True
