"""Tars as they are found: a walk over the headers that goes on behind damage."""

from __future__ import annotations

import posixpath
import re
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple
from zlib import adler32

from tastemaker.errors import Problem, ReasonKind
from tastemaker.imaging.formats import EXTENSIONS, sniff_format
from tastemaker.imaging.readers import STEP_BACK_BYTES
from tastemaker.storage.ranges import Ranges

_BLOCK = 512
_READ_AHEAD = 2**14
"""Bytes that the walk reads at once: many headers where members are small, little for nothing where they are large."""
_SEARCHED_BYTES = STEP_BACK_BYTES
_HEAD = 32
_MAX_EXTENSION_BYTES = 2**20
"""More of a long name or of pax records is not read."""
_REGULAR, _EXTENSIONS, _WITHOUT_DATA = frozenset((b"0", b"\0", b"7")), b"LKx", b"123456"
_LINKS = (b"1", b"2")
_SPARSE = Problem(ReasonKind.UNSUPPORTED_MEMBER, "a sparse file, which is not supported")
_OVERLAID = Problem(ReasonKind.DAMAGED_SHARD, "damaged shard: another member begins inside this one")
_PLAIN_HEADER = struct.Struct("100s 24x 12s 12x 8s c 188x ? 166x")
"""Of a header: name, size, checksum and kind, and whether the name has a prefix."""
_PAX_RECORD = re.compile(rb"([0-9]{1,9}) ([^=]*)=")
_TELLING = frozenset(EXTENSIONS) | frozenset(
    {"txt", "json", "caption", "cls", "npy", "npz", "pt", "pth", "pkl", "csv", "xml", "yaml", "xmp"}
)
"""Extensions that say whether a member is an image."""


class Member(NamedTuple):
    """One file in a tar.

    Attributes:
        name: Its full name, as stored.
        offset: Where its bytes begin, in bytes from the start of the (uncompressed) tar.
        size: Their number.
        problem: Why it cannot be read; None if it can.
        looks_like_image: Told from its first bytes, and only where its extension does not tell.
        link: Name of the member whose bytes these are, where it is a link that has not been followed.
    """

    name: str
    offset: int
    size: int
    problem: Problem | None = None
    looks_like_image: bool = False
    link: str = ""


class HeaderWalk:
    """The members of a tar, one by one. The last read lies at most one member ahead.

    Long names of GNU and pax archives are resolved. Where a header is damaged, or promises more bytes than there are,
    the walk goes on at the next sound one, wherever that is.

    Attributes:
        damage: What is wrong with the tar, empty if nothing is; complete after the last member.
    """

    def __init__(self, reader: Ranges) -> None:
        self._reader = reader
        self.damage = ""

    def __iter__(self) -> Iterator[Member]:
        """Yield the members; one is known once the header behind it is, which may show that it is damaged."""
        waiting: list[Member] = []
        try:
            for found in self._walk():
                yield from waiting
                waiting = found
        except OSError:
            yield from waiting
            raise
        yield from waiting

    def _walk(self) -> Iterator[list[Member]]:
        """Yield members, a few at a time; the last one may still change until the next are yielded."""
        reader = self._reader
        latest: list[Member] = []
        position, data = 0, 0
        extra: dict[str, str] = {}  # what the headers in front of a member's own say of it
        while True:
            if not extra and not reader.compressed and (plain := _read_plain_members(reader, position)):
                latest, data = plain, plain[-1].offset
                yield latest
                position = data + _padded(plain[-1].size)
                continue
            block = reader.read_at(position, _BLOCK + _HEAD)
            header, head = block[:_BLOCK], block[_BLOCK:]
            if not _is_header(header):
                if not any(header):
                    position = _skip_zeros(reader, position)
                    if _is_header(reader.read_at(position, _BLOCK)):  # an archive behind the end mark of another
                        extra = {}
                        continue
                # Where bytes went missing, the next header begins before this position.
                is_shifted = any(header) and not reader.compressed
                following = _find_header(reader, data if is_shifted else position)
                if following is None:
                    self.damage = self.damage or _judge_end(header, position)
                    return
                self._note(f"no sound header at byte {position:,}; the walk went on at {following:,}")
                if latest and latest[-1].offset == data and following < data + latest[-1].size:
                    latest[-1] = latest[-1]._replace(problem=_OVERLAID)
                position, extra = following, {}
                continue
            kind, data, size = header[156:157], position + _BLOCK, _size(header, extra)
            # Read before it is asked for the end of the member: to go back in a compressed file is to begin anew.
            body = reader.read_at(data, min(size, _MAX_EXTENSION_BYTES)) if kind in _EXTENSIONS and size > 0 else b""
            is_whole = size >= 0 and reader.holds(data + size)
            if not is_whole:
                self._note(f"the header at byte {position:,} promises more than there is")
            if kind in _EXTENSIONS:
                if is_whole:
                    extra.update(_parse_extension(kind, body))
            else:
                if kind in _REGULAR or kind in _LINKS or kind == b"S":
                    latest = [_make_member(header, extra, data, size if is_whole else -1, head)]
                    yield latest
                extra = {}
            position = data + _padded(size) if is_whole else data

    def _note(self, damage: str) -> None:
        self.damage = self.damage or f"damaged shard: {damage}"


def _read_plain_members(reader: Ranges, position: int) -> list[Member]:
    """Return the members from a position on whose headers are read at once, up to the first that is not ordinary.

    They are what `HeaderWalk` makes of them one by one, in half the time. Not for compressed files, where to ask
    whether a member is whole is to read on.
    """
    data, holds = reader.read_at(position, _READ_AHEAD), reader.holds
    members: list[Member] = []
    at = 0
    while len(block := data[at : at + _BLOCK]) == _BLOCK:
        raw_name, digits, checksum, kind, prefix = _PLAIN_HEADER.unpack(block)
        if prefix or kind not in _REGULAR or adler32(block) & 0xFFFF != _adler_of(checksum):
            break
        try:
            name, size = raw_name.partition(b"\0")[0].decode(), int(digits.rstrip(b"\0"), 8)
        except ValueError:
            break
        at += _BLOCK
        is_whole = size >= 0 and holds(position + at + size)
        if not is_whole or name[:1] == "/" or name.rpartition(".")[2].lower() not in _TELLING:
            break
        members.append(tuple.__new__(Member, (name, position + at, size, None, False, "")))  # in a quarter of the time
        at += -(-size // _BLOCK) * _BLOCK
    return members


def _padded(size: int) -> int:
    """Return how many bytes a member of that size takes up."""
    return -(-size // _BLOCK) * _BLOCK


def _skip_zeros(reader: Ranges, position: int) -> int:
    """Return where the first block from ``position`` on begins that is not all zeros; the end if there is none."""
    while piece := reader.read_at(position, _SEARCHED_BYTES):
        rest = piece.lstrip(b"\0")
        if rest:
            return position + (len(piece) - len(rest)) // _BLOCK * _BLOCK
        position += len(piece)
    return position


def _find_header(reader: Ranges, position: int) -> int | None:
    """Return where the next sound header from ``position`` on begins, None if there is none."""
    while len(piece := reader.read_at(position, _SEARCHED_BYTES)) >= _BLOCK:
        magic = piece.find(b"ustar", 257)  # stands at byte 257 of a header
        while 0 <= magic <= len(piece) - 255:
            if _is_header(piece[magic - 257 : magic + 255]):
                return position + magic - 257
            magic = piece.find(b"ustar", magic + 1)
        position += len(piece) - _BLOCK + 1
    return None


def _is_header(block: bytes) -> bool:
    """Return whether a block has a header's checksum: the sum of its bytes, those of the checksum taken as spaces."""
    return len(block) == _BLOCK and adler32(block) & 0xFFFF == _adler_of(block[148:156])


@lru_cache(maxsize=8192)
def _adler_of(checksum: bytes) -> int:
    """Return the lower half of the adler32 of a header with this checksum: 1 + the sum of its bytes, modulo 65521.

    zlib finds it ten times as fast as `sum` does. -1, which none has, where the checksum is no number.
    """
    stated = _number(checksum)
    return (stated - 8 * 32 + sum(checksum) + 1) % 65521 if stated > 0 else -1


def starts_tar(head: bytes) -> bool:
    """Return whether the first 512 bytes of a file are those of a tar that is not compressed."""
    return _is_header(head[:_BLOCK])


def is_header_of(before: bytes, size: int) -> bool:
    """Return whether bytes end with the header of a member with so many, as it or pax records before it say."""
    header, records = before[-_BLOCK:], before[:-_BLOCK]
    return _is_header(header) and (_number(header[124:136]) == size or b" size=%d\n" % size in records)


def _judge_end(block: bytes, position: int) -> str:
    """Return what is wrong with the end of a tar, behind which no header was found; empty if it is the end mark."""
    if len(block) == _BLOCK and not any(block):
        return ""
    if position == 0:
        return f"not a tar archive (it starts with {block[:8]!r})" if block else "the file is empty"
    if len(block) == _BLOCK:
        return f"damaged shard: no sound header at byte {position:,} or behind it"
    return f"damaged shard: it ends at byte {position + len(block):,} without an end mark"


def _make_member(header: bytes, extra: dict[str, str], data: int, size: int, head: bytes) -> Member:
    """Return the member of a header; ``size`` is -1 where its bytes are not all there, ``head`` the first of them."""
    name = (extra.get("GNU.sparse.name") or extra.get("path") or _name(header)).lstrip("/")  # as tar unpacks it
    kind, problem = header[156:157], None
    if kind in _LINKS:
        return _make_link(name, extra.get("linkpath") or _text(header[157:257].partition(b"\0")[0]), data, kind)
    if kind == b"S" or any(key.startswith("GNU.sparse") for key in extra):
        problem = _SPARSE
    elif size < 0:
        problem = Problem(ReasonKind.DAMAGED_SHARD, f"truncated: the shard ends inside {name!r}")
    if problem or name.rpartition(".")[2].lower() in _TELLING:
        return Member(name, data, max(size, 0), problem)
    return Member(name, data, size, looks_like_image=sniff_format(head[:size]) is not None)


def _make_link(name: str, target: str, data: int, kind: bytes) -> Member:
    """Return the member of a link: a hard one names a member, a symbolic one a path from its own folder."""
    linked = target.lstrip("/") if kind == b"1" else posixpath.join(posixpath.dirname(name), target)
    if "../" in linked or "/./" in linked:
        linked = posixpath.normpath(linked)
    problem = Problem(ReasonKind.UNSUPPORTED_MEMBER, f"a link to {target!r}, which this shard does not hold before it")
    return Member(name, data, 0, problem, link=linked)


def _size(header: bytes, extra: dict[str, str]) -> int:
    """Return how many bytes follow a header; -1 where it does not say so."""
    if header[156] in _WITHOUT_DATA:
        return 0
    if "size" in extra and header[156] not in _EXTENSIONS and re.fullmatch("[0-9]{1,18}", extra["size"]):
        return int(extra["size"])
    return _number(header[124:136])


def _number(digits: bytes) -> int:
    """Return a number field: octal digits, or base 256 where its first bit is set; -1 where it is neither."""
    if digits[0] & 0x80:
        return int.from_bytes(digits, "big", signed=True) if digits[0] == 0xFF else int.from_bytes(digits[1:], "big")
    octal = digits.partition(b"\0")[0]
    try:
        return int(octal, 8)  # takes spaces around the digits
    except ValueError:
        return -1 if octal.strip() else 0


def _name(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    if header[345] and header[257:263] == b"ustar\0":
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    return _text(name)


def _parse_extension(kind: bytes, data: bytes) -> dict[str, str]:
    """Return what GNU's long names (``L``, of a link's target ``K``) or pax records (``x``) say of the next member."""
    if kind == b"x":
        return _parse_pax(data)
    return {"path" if kind == b"L" else "linkpath": _text(data.split(b"\0")[0])}


def _parse_pax(data: bytes) -> dict[str, str]:
    """Return the records of a pax header, each ``<length> <key>=<value>``; what is malformed ends the reading."""
    records: dict[str, str] = {}
    at = 0
    while (match := _PAX_RECORD.match(data, at)) and match.end() < at + int(match[1]) <= len(data):
        at += int(match[1])
        records[_text(match[2])] = _text(data[match.end() : at - 1])
    return records


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
