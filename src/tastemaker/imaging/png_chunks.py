"""The chunks of a PNG that its pixels need: Pillow refuses sound pixels for a damaged or large chunk beside them."""

from __future__ import annotations

import zlib

from tastemaker.errors import UnreadableImageError

NO_END_MARK = "the PNG lacks its end mark, and nothing else"

_MARK_BYTES = 8


def strip_png(data: bytes, kept: tuple[bytes, ...] = (), *, without: bytes = b"") -> tuple[bytes, str]:
    """Return a PNG with its critical chunks only, and a note where its end mark is missing.

    Pillow does not look at the checksums of the pixels, so they are compared here. Where the file is cut inside a
    critical chunk, that comes last, for the decoder to judge.

    Args:
        data: The whole file.
        kept: Names of other chunks to keep where their checksum is right.
        without: Name of critical chunks to leave out.

    Raises:
        UnreadableImageError: The checksum of a critical chunk is wrong.
    """
    view, at = memoryview(data), _MARK_BYTES
    parts = [view[:at]]
    while (end := at + 12 + int.from_bytes(view[at : at + 4])) <= len(data):
        kind = bytes(view[at + 4 : at + 8])
        is_critical = kind[:1].isupper()
        if (is_critical and kind != without) or kind in kept:
            if zlib.crc32(view[at + 4 : end - 4]) == int.from_bytes(view[end - 4 : end]):
                parts.append(view[at:end])
            elif is_critical:
                raise UnreadableImageError(f"damaged PNG: wrong checksum of chunk {kind.decode('ascii', 'replace')}")
        if kind == b"IEND":
            return b"".join(parts), ""
        at = end
    if bytes(view[at + 4 : at + 5]).isupper():
        parts.append(view[at:])
    return b"".join(parts), NO_END_MARK
