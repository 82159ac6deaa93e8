"""The original bytes of rows: read by their recorded ranges, and checked against what was scored."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import xxhash

from tastemaker.errors import UnreadableImageError
from tastemaker.imaging.folders import FolderReader
from tastemaker.imaging.keys import MAX_IMAGE_BYTES, MAX_SIDECAR_BYTES, is_unsafe_name
from tastemaker.imaging.pictures import PictureTable
from tastemaker.imaging.readers import Section, open_shard
from tastemaker.imaging.tables import is_table
from tastemaker.imaging.tars import is_header_of
from tastemaker.scores.named import NamedPlaces
from tastemaker.scores.schema import original_name
from tastemaker.storage import is_remote, public_url
from tastemaker.storage.place import Place
from tastemaker.storage.ranges import Ranges

NEEDED_COLUMNS = ("image_id", "image_path", "shard", "offset", "size", "sidecars", "reason", "xxh3")
"""Columns that are needed to find an original again; ``reason`` and ``xxh3`` may be missing."""

NOT_NAMED = "is in no place that you named; if you trust these rows, say --originals PLACE"
"""Why an original is refused; its name comes before this text."""

_HEADER = 512
_BEFORE = 2048
"""Bytes in front of a member that are read with it: its header, and pax records that may tell its size."""

_MAX_GAP = 2**15
"""Ranges that lie closer together are read at once."""

_MAX_READ = 2**23
_MAX_CHUNK_SAMPLES = 256
_CHUNK_BYTES = 2**24
_REMOTE_READERS = 8


class SkippedError(UnreadableImageError):
    """An original that cannot be read as it was scored.

    Attributes:
        kind: ``missing``, ``changed`` or ``refused``.
        problem: What it is or has, without its name: ``is gone``.
    """

    def __init__(self, kind: str, name: str, problem: str) -> None:
        super().__init__(f"{name} {problem}")
        self.kind, self.problem = kind, problem


@dataclass(frozen=True)
class Part:
    """One file of a sample: its name in the output, and where its bytes lie. ``shard`` is empty for a loose file."""

    name: str
    path: str
    offset: int
    size: int
    shard: str

    @property
    def source(self) -> str:
        """What identifies the bytes."""
        return f"{self.path}:{self.offset}"


@dataclass(frozen=True)
class Original:
    """The files of one row, the image first.

    Attributes:
        parts: Where they lie.
        xxh3: Of the image; empty in rows of older runs.
        members: Once they were read: name -> bytes. Large sidecars are yet to be read.
    """

    parts: list[Part]
    xxh3: str
    members: dict[str, bytes | Section] = field(default_factory=dict)


def _original_of(row: Mapping[str, Any], named: NamedPlaces) -> Original:
    """Return where the original of a row with `NEEDED_COLUMNS` lies.

    Raises:
        SkippedError: The row has none, or a file of it lies elsewhere.
    """
    if row.get("size") is None or row.get("offset") is None or not row["image_path"]:
        raise SkippedError(
            "missing", "the original", "was not recorded" + (f": {row['reason']}" if row.get("reason") else "")
        )
    path, shard = original_name(row["image_path"]), original_name(row.get("shard") or "")
    root = f"{shard}/" if shard else _root_of(path, original_name(row.get("image_id") or ""))
    places = [(path, row["offset"], row["size"])]
    places += [(original_name(s["member"] or ""), s["offset"], s["size"]) for s in row.get("sidecars") or () if s]
    parts = [Part(p.removeprefix(root), shard or p, *_checked(p, *at), shard) for p, *at in places]
    if parts[0].size > MAX_IMAGE_BYTES:
        raise SkippedError("refused", repr(path), f"cannot have {parts[0].size:,} bytes: the row was changed")
    unnamed = next((part.path for part in parts if part.path not in named), None)
    if unnamed is not None:
        raise SkippedError("refused", public_url(unnamed), NOT_NAMED)
    return Original(parts, row.get("xxh3") or "")


def _checked(name: str, offset: Any, size: Any) -> tuple[int, int]:  # noqa: ANN401 - another program may have written it
    """Return offset and size as integers. Pandas turns a column of integers with nulls into floats."""
    is_place = all(isinstance(number, int | float) and number == number // 1 for number in (offset, size))
    if "\0" in name or not is_place or not (0 <= offset < 2**62 and 0 <= size < 2**62):
        raise SkippedError("refused", repr(name), f"cannot have {size} bytes at {offset}: the row was changed")
    return int(offset), int(size)


def _root_of(path: str, key: str) -> str:
    """Return what lies in front of a loose file's key, which is its path below the input folder."""
    for whole in (path, os.path.splitext(path)[0]):  # the key of a raw keeps the extension
        if whole.endswith(key):
            return whole.removesuffix(key)
    return path[: len(path) - len(os.path.basename(path))]


class OriginalsReader:
    """Reads originals of rows. Use it in a `with` block, and give it the rows of a shard together: it keeps that open.

    What is read is what was scored: size and hash are compared, and in a shard the header in front of the bytes. Only
    XMP beside a loose image is read as it is now. One thread at a time may use it.

    Args:
        named: Where originals may be read, with the options of their stores.
        remote: Read several at once, as a network wants it.
        with_new_xmp: Read XMP sidecars that have come since the image was scored, too.
        for_links: Read no loose file: look at its size, and give it as a section.
    """

    def __init__(
        self,
        named: NamedPlaces,
        *,
        remote: bool = False,
        with_new_xmp: bool = False,
        for_links: bool = False,
    ) -> None:
        self._named, self._options = named, named.options
        self._folders, self._for_links = FolderReader() if with_new_xmp else None, for_links
        self._workers = _REMOTE_READERS if remote else 1
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="originals")
        self._path = ""
        self._reader: Ranges | None = None

    def __enter__(self) -> OriginalsReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        if self._reader is not None:
            self._reader.close()

    def read_image(self, row: Mapping[str, Any]) -> bytes:
        """Return the encoded bytes of a row's image, without its sidecars.

        Args:
            row: With ``image_path``, ``shard``, ``offset``, ``size``, and ``xxh3`` where it is to be compared.

        Raises:
            SkippedError: They are gone, or not what was scored.
        """
        original = _original_of(row, self._named)
        return self._read_part(Original(original.parts[:1], original.xxh3))

    def read_sidecar(self, row: Mapping[str, Any], number: int) -> bytes:
        """Return the bytes of one sidecar.

        Args:
            row: With `NEEDED_COLUMNS`.
            number: Which of its ``sidecars``.

        Raises:
            SkippedError: It is gone, or has another size.
        """
        parts = [_as_it_is(part) for part in _original_of(row, self._named).parts[number + 1 :][:1]]
        return self._read_part(Original(parts, ""))

    def _read_part(self, original: Original) -> bytes:
        (found,) = self._read_chunk([original])
        if isinstance(found, SkippedError):
            raise found
        content = next(iter(found.members.values()))
        assert isinstance(content, bytes)
        return content

    def read_rows(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[Original | SkippedError]:
        """Yield the original of each row with its sidecars, or why there is none; the next are read meanwhile.

        Args:
            rows: With `NEEDED_COLUMNS`.
        """
        originals = [find_original(row, self._named, self._folders) for row in rows]
        samples = self._read([original for original in originals if isinstance(original, Original)])
        for original in originals:
            yield original if isinstance(original, SkippedError) else next(samples)

    def _read(self, originals: Sequence[Original]) -> Iterator[Original | SkippedError]:
        chunks = _chunks(originals)
        pending = deque(self._pool.submit(self._read_chunk, chunk) for chunk in islice(chunks, self._workers + 1))
        while pending:
            yield from pending.popleft().result()
            pending.extend(self._pool.submit(self._read_chunk, chunk) for chunk in islice(chunks, 1))

    def _read_chunk(self, originals: list[Original]) -> list[Original | SkippedError]:
        """Read originals of one shard, or a loose one."""
        first = originals[0].parts[0]
        try:
            found = self._read_shard(first.shard, originals) if first.shard else self._read_files(originals[0].parts)
        except SkippedError as problem:
            return [problem]
        except OSError as error:
            return [_as_skipped(error, first.path)] * len(originals)
        except UnreadableImageError as error:
            return [SkippedError("changed", first.path, f"has changed since it was scored: {error}")] * len(originals)
        return [_check(original, found) for original in originals]

    def _read_shard(self, shard: str, originals: list[Original]) -> dict[Part, bytes | Section | None]:
        """Return the bytes of all members. A member that is not there any more is missing."""
        parts = sorted((p for original in originals for p in original.parts), key=lambda part: part.offset)
        if is_table(shard):
            return self._read_table(shard, parts)
        found: dict[Part, bytes | Section | None] = {}
        reader, images = self._open(shard), {original.parts[0].offset for original in originals}
        before = _HEADER if reader.compressed else _BEFORE  # to go back in a compressed file is to begin anew
        try:
            for span in _spans(parts):
                start = max(0, span[0].offset - before)
                if span[0].size > MAX_SIDECAR_BYTES and span[0].offset not in images:
                    header = reader.read_at(start, span[0].offset - start)
                    if is_header_of(header, span[0].size) and reader.holds(span[0].offset + span[0].size):
                        found[span[0]] = self._section(span[0])
                    continue
                data = reader.read_at(start, max(p.offset + p.size for p in span) - start)
                for part in span:
                    at = part.offset - start
                    content = data[at : at + part.size]
                    if len(content) == part.size and is_header_of(data[max(0, at - _BEFORE) : at], part.size):
                        found[part] = content
        finally:
            if self._workers > 1:
                reader.close()
        return found

    def _section(self, part: Part) -> Section:
        return Section(part.path, part.offset, part.size, self._options)

    def _read_files(self, parts: list[Part]) -> dict[Part, bytes | Section | None]:
        """Return a loose image with its sidecars; a large or unreadable sidecar is left to who copies it."""
        found: dict[Part, bytes | Section | None] = {parts[0]: self._read_file(parts[0], MAX_IMAGE_BYTES)}
        for part in parts[1:]:
            found[part] = self._section(part)
            with suppress(OSError):
                found[part] = self._read_file(part, MAX_SIDECAR_BYTES)
        return found

    def _read_file(self, part: Part, most_bytes: int) -> bytes | Section:
        if self._for_links or part.size > most_bytes:
            if not is_remote(part.path):
                _check_file(part)
            return self._section(part)
        with closing(Place.at(part.path, self._options).open_ranges()) as file:
            return file.read_at(0, part.size + 1)

    def _read_table(self, shard: str, parts: list[Part]) -> dict[Part, bytes | Section | None]:
        with PictureTable(Place.at(shard, self._options)) as table:
            rows = {row: data for row, _, data in table.read([part.offset for part in parts])}
        return {part: rows.get(part.offset, {}).get(part.name) for part in parts}

    def _open(self, shard: str) -> Ranges:
        if self._workers > 1:
            return open_shard(shard, self._options)
        if shard != self._path or self._reader is None:
            if self._reader is not None:
                self._reader.close()
            self._path, self._reader = "", None
            self._reader = open_shard(shard, self._options)
            self._path = shard
        return self._reader


def _as_skipped(error: OSError, path: str) -> SkippedError:
    """Return why a file that cannot be opened is skipped."""
    is_gone = isinstance(error, FileNotFoundError)
    return SkippedError("missing", path, "is gone" if is_gone else f"cannot be read: {error.strerror or error}")


def _check_file(part: Part) -> None:
    """Raise `SkippedError` if a loose file is no regular file any more, or has another size."""
    status = os.stat(part.path)
    if not stat.S_ISREG(status.st_mode) or status.st_size != part.size:
        raise SkippedError("changed", part.path, f"has changed since it was scored: it had {part.size:,} bytes")


def find_original(
    row: Mapping[str, Any], named: NamedPlaces, folders: FolderReader | None = None
) -> Original | SkippedError:
    """Return where the original of a row lies, to be copied, or why it cannot be.

    Args:
        row: As `OriginalsReader.read_rows` takes it.
        named: Where originals may be read.
        folders: Finds XMP beside a loose image that the row does not know; None to leave that where it is.
    """
    try:
        original = _original_of(row, named)
        unsafe = next((part.name for part in original.parts if is_unsafe_name(part.name)), None)
        if unsafe is not None:
            return SkippedError("refused", f"unsafe name {unsafe!r}:", "it leads out of the output folder")
        image = original.parts[0]
        return original if image.shard or is_remote(image.path) else _with_present_xmp(original, folders)
    except SkippedError as problem:
        return problem
    except OSError as error:
        return _as_skipped(error, original_name(row["image_path"]))


def _with_present_xmp(original: Original, folders: FolderReader | None) -> Original:
    """Return a loose original with its XMP as it is: photographers' programs, and stars, write it at any time."""
    image = original.parts[0]
    paths = folders.list_sidecars(image.path) if folders else [part.path for part in original.parts]
    folder = image.name.removesuffix(os.path.basename(image.path))
    present = [path for path in paths if _is_xmp(path) and os.path.isfile(path)]
    found = [_as_it_is(Part(folder + os.path.basename(path), path, 0, 0, "")) for path in present]
    return Original([*(part for part in original.parts if not _is_xmp(part.path)), *found], original.xxh3)


def _is_xmp(path: str) -> bool:
    return path[-4:].lower() == ".xmp"


def _as_it_is(part: Part) -> Part:
    """Return XMP beside a loose image with its present size, and any other part unchanged."""
    if part.shard or is_remote(part.path) or not _is_xmp(part.path):
        return part
    return replace(part, size=os.path.getsize(part.path))


def _check(original: Original, read: Mapping[Part, bytes | Section | None]) -> Original | SkippedError:
    """Return an original whose files are there with their sizes, and its image with its hash; else what is wrong."""
    found: dict[str, bytes | Section] = {}
    for part in original.parts:
        content = read.get(part)
        if content is None or len(content) != part.size:
            what = "is not there" if part.shard else "has another size"
            return SkippedError("changed", part.path, f"has changed since it was scored: {part.name!r} {what}")
        found[part.name] = content
    image = original.parts[0]
    content = found[image.name]
    if original.xxh3 and isinstance(content, bytes) and xxhash.xxh3_64_hexdigest(content) != original.xxh3:
        return SkippedError("changed", image.path, f"has changed since it was scored: {image.name!r} has other bytes")
    return replace(original, members=found)


def _chunks(originals: Sequence[Original]) -> Iterator[list[Original]]:
    """Yield what is read at once: a loose original, or some that follow each other in one shard."""
    chunk: list[Original] = []
    total = 0
    for original in originals:
        shard = original.parts[0].shard
        is_full = total >= _CHUNK_BYTES or len(chunk) == _MAX_CHUNK_SAMPLES
        if chunk and (is_full or not shard or shard != chunk[0].parts[0].shard):
            yield chunk
            chunk, total = [], 0
        chunk.append(original)
        total += sum(part.size for part in original.parts)
    if chunk:
        yield chunk


def _spans(parts: list[Part]) -> Iterator[list[Part]]:
    """Yield runs of members that lie close together, so that each run is one read."""
    span: list[Part] = []
    for part in parts:
        if span and (
            part.offset - _BEFORE - (span[-1].offset + span[-1].size) > _MAX_GAP
            or part.offset + part.size - span[0].offset > _MAX_READ
        ):
            yield span
            span = []
        span.append(part)
    if span:
        yield span
