"""The metadata segments of a JPEG: read, and the rating in them set without touching the coded picture."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tastemaker.errors import MetadataError
from tastemaker.imaging.tiff_tags import RATING, RATING_PERCENT, TiffDirectory, read_directories
from tastemaker.imaging.xmp import check_rating, make_xmp, read_rating, set_rating

EXIF_MARK = b"Exif\0\0"
XMP_MARK = b"http://ns.adobe.com/xap/1.0/\0"
_MAX_SEGMENT_BYTES = 2**16 - 1 - 2
_APP0, _APP1, _START, _END, _SCAN = 0xE0, 0xE1, 0xD8, 0xD9, 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PACKET_BEGIN = b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
_PACKET_END = b'<?xpacket end="w"?>'
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])", re.DOTALL)
_PERCENT = (0, 1, 25, 50, 75, 99)
"""Stars as Windows counts them, in the tag that it keeps beside the rating."""


class Segment(NamedTuple):
    """A segment of a JPEG's header.

    Attributes:
        marker: Its second marker byte.
        start: Where its marker begins.
        end: Where the next segment begins.
    """

    marker: int
    start: int
    end: int

    def body(self, data: bytes) -> bytes:
        """Return what is in it, behind marker and length."""
        return data[self.start + 4 : self.end]


def jpeg_header(data: bytes) -> bytes:
    """Return the part of a JPEG in front of its picture, where all metadata lie, as far as it is sound."""
    end = 2
    for segment in read_segments(data):
        end = segment.end
    return data[:end]


class Scans(NamedTuple):
    """How the picture of a JPEG is coded.

    Attributes:
        frames: Its frame headers, with their markers: one.
        headers: Its scan headers, with their markers.
        is_closed: Whether the end mark is there.
    """

    frames: list[bytes]
    headers: list[bytes]
    is_closed: bool


def read_scans(data: bytes) -> Scans:
    """Return the frame and scans of a JPEG, up to its end mark: behind it may be the film of a live photo."""
    frames: list[bytes] = []
    headers: list[bytes] = []
    at = 0
    while marker := _MARKER.search(data, at):
        code = marker[1][0]
        if code == _END:
            return Scans(frames, headers, is_closed=True)
        at = marker.end()
        if code != _START:
            at += int.from_bytes(data[at : at + 2])
        if code == _SCAN:
            headers.append(data[marker.start() : at])
        elif code in _FRAMES:
            frames.append(data[marker.start() : at])
    return Scans(frames, headers, is_closed=False)


def read_segments(data: bytes) -> Iterator[Segment]:
    """Yield the segments of a JPEG in front of its picture. What is damaged ends the reading."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if marker == _SCAN or end < at + 4 or end > len(data):
            return
        yield Segment(marker, at, end)
        at = end


def read_jpeg_metadata(data: bytes) -> tuple[bytes, bytes]:
    """Return the XMP packet and the EXIF block (a TIFF structure) of a JPEG; each empty where there is none."""
    xmp = exif = b""
    for segment in read_segments(data):
        if segment.marker == _APP1:
            body = segment.body(data)
            if body.startswith(XMP_MARK):
                xmp = xmp or body[len(XMP_MARK) :]
            elif body.startswith(EXIF_MARK):
                exif = exif or body[len(EXIF_MARK) :]
    return xmp, exif


def embed_rating(jpeg: bytes, rating: int, *, overwrite: bool = False, by_score: bool = False) -> bytes:
    """Return a JPEG with this rating in its XMP packet, and in its EXIF where that has one.

    Nothing is encoded again: the coded picture and all other segments are the same bytes. A packet that is there keeps
    its other content, and its size where its padding allows; extended XMP is left alone.

    Args:
        jpeg: The whole file.
        rating: -1 (rejected), 0, or 1 to 5 stars.
        overwrite: Replace a rating that is there. Without, such a file comes back as it is.
        by_score: Say in a new packet that nobody gave these stars.

    Raises:
        MetadataError: It is no JPEG, its XMP is damaged, or the packet has no room left.
    """
    check_rating(rating)
    if jpeg[:3] != b"\xff\xd8\xff":
        raise MetadataError(f"a rating can be embedded in JPEG only, not in a file that starts with {jpeg[:4]!r}")
    xmp, exif = read_jpeg_metadata(jpeg)
    if not overwrite and ((read_rating(xmp) or exif_rating(read_directories(exif))) not in (None, 0)):
        return jpeg
    parts, at, done = [jpeg[:2]], 2, not xmp
    for segment in read_segments(jpeg):
        body = segment.body(jpeg)
        if segment.marker == _APP1 and body.startswith(EXIF_MARK):
            body = EXIF_MARK + _set_exif_rating(body[len(EXIF_MARK) :], rating)
        elif segment.marker == _APP1 and body.startswith(XMP_MARK) and not done:
            body, done = XMP_MARK + _keep_length(set_rating(xmp, rating), len(xmp)), True
        parts += [jpeg[at : segment.start + 2], _length(body), body]
        at = segment.end
    result = b"".join([*parts, jpeg[at:]])
    return result if xmp else _insert_packet(result, rating, by_score=by_score)


def exif_rating(directories: Iterable[TiffDirectory]) -> int | None:
    """Return the rating in the first directory of an EXIF block, where Windows keeps it; None if there is none."""
    value = next((directory.integers(RATING)[:1] for directory in directories), ())
    return value[0] if value and 0 <= value[0] <= 5 else None


def _set_exif_rating(exif: bytes, rating: int) -> bytes:
    """Return the block with its rating changed in place; as it is where it has none."""
    changed = bytearray(exif)
    for directory in read_directories(exif):
        for tag, value in ((RATING, max(rating, 0)), (RATING_PERCENT, _PERCENT[max(rating, 0)])):
            kind, count, at = directory.tags.get(tag, (0, 0, 0))
            if kind == 3 and count == 1:
                changed[at : at + 2] = struct.pack(f"{directory.order}H", value)
        break
    return bytes(changed)


def _insert_packet(jpeg: bytes, rating: int, *, by_score: bool) -> bytes:
    """Return the JPEG with a packet of its own behind its JFIF and EXIF segments."""
    at = 2
    for segment in read_segments(jpeg):
        is_exif = segment.marker == _APP1 and segment.body(jpeg).startswith(EXIF_MARK)
        if segment.marker != _APP0 and not is_exif:
            break
        at = segment.end
    _, _, packet = make_xmp(rating, by_score=by_score).partition(b"?>\n")  # a packet has a declaration of its own
    body = XMP_MARK + _PACKET_BEGIN + packet + _PACKET_END
    return jpeg[:at] + b"\xff\xe1" + _length(body) + body + jpeg[at:]


def _keep_length(packet: bytes, length: int) -> bytes:
    """Return the packet as long as it was, by its padding: other parts of the file may count on their position."""
    end = packet.rfind(b"<?xpacket end=")
    start, more = len(packet[: max(end, 0)].rstrip()), len(packet) - length
    if end < 0 or end - start <= more:
        return packet
    kept = packet[start : end - max(more, 0)] + b" " * -min(more, 0)
    return packet[:start] + kept + packet[end:]


def _length(body: bytes) -> bytes:
    if len(body) > _MAX_SEGMENT_BYTES:
        raise MetadataError(f"there is no room for a rating in the XMP packet: {len(body):,} bytes are too many")
    return (len(body) + 2).to_bytes(2)
