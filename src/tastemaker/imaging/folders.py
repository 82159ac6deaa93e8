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
from tastemaker.imaging.raws import RAW_EXTENSIONS
from tastemaker.imaging.shards import MAX_MEMBER_BYTES, Member, Sample
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
        images and are called ``<stem>.<extension>`` or ``<whole name>.<extension>``.

        Args:
            path: The image file.
            root: The input folder that it was found in.
            sidecars: Their paths, where they are known already.
        """
        stem = os.path.splitext(public_url(path))[0]
        sample = Sample(_key_of(path, root))
        data: dict[str, bytes] = {}
        sample.image = self._read(path, sample, data)
        for sidecar in self.list_sidecars(path) if sidecars is None else sidecars:
            extension = base_name(sidecar)[len(base_name(stem)) + 1 :]
            sample.sidecars[extension] = self._read(sidecar, sample, data)
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

    def _read(self, path: str, sample: Sample, data: dict[str, bytes]) -> Member:
        """Read a whole file into ``data``; what cannot be read becomes the sample's problem."""
        if is_remote(path):
            return _read_remote(path, sample, data, self._options)
        return _read(path, sample, data)

    def list_sidecars(self, path: str) -> list[str]:
        """Return the paths of an image's sidecars, sorted; none where its folder cannot be listed."""
        folder, base = folder_of(path), base_name(path)
        if folder not in self._listings:
            while len(self._listings) >= _KEPT_LISTINGS:
                del self._listings[next(iter(self._listings))]
            self._listings[folder] = _list_sidecars(folder, self._options)
        by_stem, stem = self._listings[folder], os.path.splitext(base)[0]
        joined = f"{folder}/" if is_remote(path) else os.path.join(folder, "")
        return sorted(joined + name for name in {*by_stem.get(stem, ()), *by_stem.get(base, ())})


def _key_of(path: str, root: str) -> str:
    stem, extension = os.path.splitext(public_url(path))
    is_paired = extension[1:].lower() in _PAIRED_EXTENSIONS
    return relative_to(public_url(path) if is_paired else stem, root)


def _list_sidecars(folder: str, options: Options | None) -> dict[str, list[str]]:
    by_stem: dict[str, list[str]] = defaultdict(list)
    try:
        if is_remote(folder):
            is_listed = not folder.startswith("http")  # a web server has no listings
            listed = Place.at(folder, options).list(recursive=False) if is_listed else []
            names = [entry.place.name for entry in listed]
        else:
            with os.scandir(folder or ".") as entries:
                names = [entry.name for entry in entries if entry.is_file()]
    except OSError:
        if is_remote(folder):  # its pictures must not lose their captions because a connection failed
            raise
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
        if stat.S_ISDIR(status.st_mode):
            os.scandir(path).close()  # raises why a folder is among the pictures: it cannot be read
        if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for a writer, for ever perhaps
            sample.problem = sample.problem or Problem(ReasonKind.UNSUPPORTED, f"{name} is no file")
        elif status.st_size > MAX_MEMBER_BYTES:
            member = Member(path, 0, status.st_size)
            sample.problem = sample.problem or _too_large(name, f"{status.st_size:,}")
        else:
            with open(path, "rb") as file:
                data[path] = file.read()
            member = Member(path, 0, len(data[path]))
    except OSError as error:
        sample.problem = sample.problem or Problem(ReasonKind.MISSING, f"{name} cannot be read: {error.strerror}")
    return member


def _too_large(name: str, size: str) -> Problem:
    return Problem(ReasonKind.TOO_LARGE, f"{name} has {size} bytes, too many for an image")


def _read_remote(url: str, sample: Sample, data: dict[str, bytes], options: Options | None) -> Member:
    name = base_name(url)
    try:
        with closing(Place.at(url, options).open_ranges()) as file:
            content = file.read_at(0, MAX_MEMBER_BYTES + 1)
    except OSError as error:
        sample.problem = sample.problem or Problem(ReasonKind.MISSING, f"{name} cannot be read: {error}")
        return Member(url, 0, 0)
    if len(content) > MAX_MEMBER_BYTES:
        sample.problem = sample.problem or _too_large(name, f"more than {MAX_MEMBER_BYTES:,}")
    else:
        data[url] = content
    return Member(url, 0, len(content))
