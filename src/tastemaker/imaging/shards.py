"""WebDataset shards: a walk over the headers of a tar, samples by key, and their bytes.

The headers are read first, so a sample is complete wherever its members lie, and members that nobody wants are
never read. A damaged archive yields what is whole in it, and says what is not.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Protocol

from tastemaker.imaging.decode import EXTENSIONS, sniff_format

COMPRESSED_EXTENSIONS = (".tar.gz", ".tgz")
TAR_EXTENSIONS = (".tar", *COMPRESSED_EXTENSIONS)
MAX_MEMBER_BYTES = 2**31
"""A larger member is recorded as unreadable: no image is, and a damaged header may claim any size."""

_BLOCK = 512
_LARGEST_FILE = 2**48
_REGULAR, _LINKS = b"0\x007", b"12"
_NEVER_IMAGES = frozenset(
    {"txt", "json", "caption", "cls", "npy", "npz", "pt", "pth", "pkl", "csv", "xml", "yaml", "xmp"}
)
_PREFERENCE = ("jpg", "jpeg", "png", "webp")


@dataclass(frozen=True, slots=True)
class Member:
    """One file in a tar.

    Attributes:
        name: Its full name, as stored.
        offset: Where its bytes begin, in bytes from the start of the (uncompressed) tar.
        size: Their number.
        problem: Why it cannot be read; empty if it can.
    """

    name: str
    offset: int
    size: int
    problem: str = ""


@dataclass(slots=True)
class Sample:
    """The members that share a key.

    Attributes:
        key: The WebDataset key: the member's name up to the first dot of its base name, folders kept.
        image: The member that is the picture; None where there is none.
        sidecars: Extension (after that first dot, as stored) -> every other member.
        problem: Why there is nothing to score; empty if there is.
    """

    key: str
    image: Member | None = None
    sidecars: dict[str, Member] = field(default_factory=dict)
    problem: str = ""

    def members(self) -> list[Member]:
        """Return all members, the image first."""
        return ([self.image] if self.image else []) + list(self.sidecars.values())


class ShardReader(Protocol):
    """Bytes of a tar by position."""

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``offset``: fewer where the file ends."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class PlainReader:
    """An uncompressed file. Any position costs the same."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``offset``."""
        data = os.pread(self._file, size, offset)
        while data and len(data) < size and (more := os.pread(self._file, size - len(data), offset + len(data))):
            data += more
        return data

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class GzipReader:
    """A gzip file, cheap to read forwards only. Ends where it is cut or damaged.

    Attributes:
        damage: What stopped the decompression early; empty if nothing did.
    """

    def __init__(self, path: str) -> None:
        self._file = gzip.open(path, "rb")  # noqa: SIM115 - closed by close()
        self.damage = ""

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``offset``."""
        parts: list[bytes] = []
        try:
            self._file.seek(offset)
            while size > 0 and (part := self._file.read1(min(size, 2**20))):
                parts.append(part)
                size -= len(part)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            self.damage = str(error)
        return b"".join(parts)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def open_shard(path: str) -> PlainReader | GzipReader:
    """Return a reader for a shard: gzip or not is told from its first bytes.

    Raises:
        OSError: The file cannot be opened.
    """
    plain = PlainReader(path)
    if plain.read_at(0, 2) != b"\x1f\x8b":
        return plain
    plain.close()
    return GzipReader(path)


def split_key(name: str) -> tuple[str, str]:
    """Return the WebDataset key and the extension of a member's name.

    Example:
        >>> split_key("a.b/0001.left.jpg")
        ('a.b/0001', 'left.jpg')
    """
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension


def read_samples(path: str) -> Iterator[tuple[Sample, dict[str, bytes]]]:
    """Yield every sample of a shard with the bytes of its members, in the order of the shard.

    A cut or damaged shard, and an empty one, end with a sample of an empty key whose ``problem`` says so.

    Args:
        path: ``.tar``, or ``.tar.gz`` / ``.tgz``.

    Yields:
        The sample, and member name -> bytes. A member that the shard ends in the middle of is missing there and
        named in ``problem``.

    Raises:
        OSError: The file cannot be opened.
    """
    reader = open_shard(path)
    try:
        members, damage = walk_headers(reader)
        samples = group_samples(members, lambda member: reader.read_at(member.offset, 32))
        pick = _read_in_one_pass if isinstance(reader, GzipReader) else _read_each
        yield from pick(reader, samples)
        if isinstance(reader, GzipReader) and reader.damage:
            damage = f"damaged shard: {reader.damage}"
        if not samples and not damage:
            damage = "empty shard: there are no images in it"
        if damage:
            yield Sample("", problem=damage), {}
    finally:
        reader.close()


def walk_headers(reader: ShardReader) -> tuple[list[Member], str]:
    """Return the members of a tar, and what is wrong with it (empty if nothing is).

    Long names of GNU and pax archives are resolved. After a damaged header the walk goes on at the next sound one.
    """
    members: list[Member] = []
    damage = ""
    position, long_name, pax = 0, "", dict[str, str]()
    while True:
        header = reader.read_at(position, _BLOCK)
        if len(header) < _BLOCK:
            return members, damage or f"damaged shard: it ends at byte {position + len(header):,} without an end mark"
        if header[0] == 0 and not any(header):
            return members, damage
        if not _is_header(header):
            if position == 0:
                return members, "not a tar archive"
            damage = damage or f"damaged shard: no sound header at byte {position:,}; the walk went on behind it"
            position += _BLOCK
            continue
        kind, size = header[156:157], _number(header[124:136])
        data = position + _BLOCK
        if kind == b"L":
            long_name = _text(reader.read_at(data, min(size, 2**16)).split(b"\0")[0])
        elif kind == b"x":
            pax = _parse_pax(reader.read_at(data, min(size, 2**20)))
        else:
            size = int(pax["size"]) if pax.get("size", "").isdigit() else size
            name = pax.get("path") or long_name or _name(header)
            if kind in _REGULAR:
                too_large = f"the shard says that it has {size:,} bytes" if size > MAX_MEMBER_BYTES else ""
                members.append(Member(name, data, size, too_large))
            elif kind in _LINKS:
                members.append(Member(name, data, 0, "a link, not a file"))
            long_name, pax = "", {}
        position = data + -(-size // _BLOCK) * _BLOCK


def group_samples(members: list[Member], read_head: Callable[[Member], bytes]) -> list[Sample]:
    """Return the samples of a shard, in the order of their first members.

    Names without a key (hidden files) and WebDataset's own ``__meta__`` names are left out. A second member with
    the same name begins a second sample, which carries a problem.

    Args:
        members: All members of the shard.
        read_head: Returns the first 32 bytes of a member; asked only where no extension marks an image.
    """
    current: dict[str, Sample] = {}
    grouped: list[tuple[Sample, dict[str, Member]]] = []
    extensions: dict[str, dict[str, Member]] = {}
    for member in members:
        key, extension = split_key(member.name)
        base = key.rpartition("/")[2]
        is_nameless = not base or (base.startswith("__") and base.endswith("__"))
        if is_nameless and not is_unsafe_name(member.name):
            continue
        if key not in current or extension in extensions[key]:
            problem = f"duplicate key: another sample of this shard is called {key!r}" if key in current else ""
            current[key], extensions[key] = Sample(key, problem=problem), {}
            grouped.append((current[key], extensions[key]))
        extensions[key][extension] = member
    for sample, by_extension in grouped:
        _choose_image(sample, by_extension, read_head)
    return [sample for sample, _ in grouped]


def is_unsafe_name(name: str) -> bool:
    """Return whether a member's name leads out of the folder that it is unpacked to."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or "\0" in name or re.match(r"[A-Za-z]:/", str(path)) is not None


def _choose_image(sample: Sample, by_extension: dict[str, Member], read_head: Callable[[Member], bytes]) -> None:
    chosen = _image_extension(by_extension, read_head)
    if chosen is None:
        sample.problem = sample.problem or "no image among the members of this key"
    else:
        sample.image = by_extension[chosen]
        sample.problem = sample.problem or sample.image.problem
        if is_unsafe_name(sample.image.name):
            sample.problem = "unsafe name: it leads out of the folder that the shard is unpacked to"
    sample.sidecars = {extension: m for extension, m in by_extension.items() if extension != chosen}


def _image_extension(by_extension: dict[str, Member], read_head: Callable[[Member], bytes]) -> str | None:
    """Return the extension of the picture: ``jpg`` before ``seg.png``, any known one before a look at the content."""
    known = [e for e in by_extension if e.rpartition(".")[2].lower() in EXTENSIONS]
    if known:
        return min(known, key=lambda e: ("." in e, _PREFERENCE.index(e.lower()) if e.lower() in _PREFERENCE else 9))
    unknown = (e for e in by_extension if e.rpartition(".")[2].lower() not in _NEVER_IMAGES)
    return next((e for e in unknown if sniff_format(read_head(by_extension[e]))), None)


def _read_each(reader: ShardReader, samples: list[Sample]) -> Iterator[tuple[Sample, dict[str, bytes]]]:
    for sample in samples:
        wanted = [] if sample.problem else sample.members()
        data = {member.name: _read_member(reader, member, sample) for member in wanted}
        yield sample, {name: content for name, content in data.items() if content is not None}


def _read_in_one_pass(reader: ShardReader, samples: list[Sample]) -> Iterator[tuple[Sample, dict[str, bytes]]]:
    """Read members in the order of the file, and give out each sample once it is complete.

    What waits in memory is what lies between the members of one sample: nothing in an ordinary shard.
    """
    waiting: list[tuple[int, Member, Sample]] = sorted(
        ((m.offset, m, sample) for sample in samples if not sample.problem for m in sample.members()),
        key=lambda m: -m[0],
    )
    held: dict[int, dict[str, bytes]] = {id(sample): {} for sample in samples}
    for sample in samples:
        last = max((member.offset for member in sample.members()), default=-1)
        while waiting and waiting[-1][0] <= last:
            _, member, owner = waiting.pop()
            content = _read_member(reader, member, owner)
            if content is not None:
                held[id(owner)][member.name] = content
        yield sample, held.pop(id(sample))


def _read_member(reader: ShardReader, member: Member, sample: Sample) -> bytes | None:
    """Return a member's bytes, or None (and a problem in ``sample``) where it cannot be read whole."""
    if member.problem:
        return None
    content = reader.read_at(member.offset, member.size)
    if len(content) == member.size:
        return content
    sample.problem = sample.problem or f"truncated: the shard ends inside {member.name!r}"
    return None


def _is_header(header: bytes) -> bool:
    """Return whether a block has a header's checksum, and a size that a file can have."""
    stated = _number(header[148:156])
    is_sound = stated == sum(header) - sum(header[148:156]) + 8 * 32
    return is_sound and 0 <= _number(header[124:136]) < _LARGEST_FILE


def _number(digits: bytes) -> int:
    """Return a number field: octal digits, or base 256 where its first bit is set; -1 where it is neither."""
    if digits[0] & 0x80:
        return int.from_bytes(digits[1:], "big")
    try:
        return int(digits.split(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        return -1


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].split(b"\0")[0] + b"/" + name
    return _text(name)


def _parse_pax(data: bytes) -> dict[str, str]:
    """Return the records of a pax header, each ``<length> <key>=<value>``; what is malformed ends the reading."""
    records: dict[str, str] = {}
    while data:
        digits, _, rest = data.partition(b" ")
        if not digits.isdigit() or int(digits) <= len(digits) + 1:
            break
        record, data = rest[: int(digits) - len(digits) - 2], data[int(digits) :]
        key, _, value = record.partition(b"=")
        records[_text(key)] = _text(value)
    return records


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
