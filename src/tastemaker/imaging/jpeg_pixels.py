"""The pixels of a JPEG of which nothing is lost, by libjpeg, which reports damage that Pillow passes over."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

from tastemaker.errors import ReasonKind, UnreadableImageError
from tastemaker.imaging.jpeg_metadata import Scans, jpeg_header, read_scans

NO_END_MARK = "the JPEG lacks its end mark, and nothing else"

_MAX_SCANS = 100
"""Encoders write a dozen. Each goes over all pixels, and may be a few bytes: thousands would take minutes."""

_HARMLESS = re.compile(
    r"extraneous bytes before|unknown JFIF revision|Invalid SOS parameters|Premature end of JPEG file"
)
"""Warnings of libjpeg that also come with a whole picture; whether they do is tried out."""

_END_MARK = b"\xff\xd9"
_PROGRESSIVE = (0xC2, 0xCA)


def decode_jpeg(data: bytes, make_room: Callable[[int, int], None]) -> tuple[npt.NDArray[np.uint8], str] | None:
    """Return RGB pixels, and a note or nothing; None for a JPEG of a kind that only Pillow may know.

    Args:
        data: The whole file.
        make_room: Called with the width and height; raises where they are too large.

    Raises:
        UnreadableImageError: It is damaged, cut, or has too many scans.
    """
    _check_scans(data)
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    except (ValueError, KeyError):
        return None  # a rare kind, or damaged: Pillow decides
    make_room(width, height)
    is_cmyk = colorspace in ("CMYK", "YCCK")
    try:
        pixels, note = _decode_strictly(data, "CMYK" if is_cmyk else "RGB")
    except ValueError as error:
        raise UnreadableImageError(f"damaged or truncated JPEG: {error}") from error
    if is_cmyk:  # stored inverted, as Adobe does; Pillow assumes that of all
        pixels = np.asarray(Image.frombuffer("CMYK", (width, height), pixels, "raw", "CMYK;I", 0, 1).convert("RGB"))
    return pixels, note


def _check_scans(data: bytes) -> None:
    """Raise where a JPEG has too many scans."""
    header = jpeg_header(data)
    is_single = data[len(header) + 4 : len(header) + 5] in (b"\3", b"\4") and b"\xff\xc2" not in header
    if is_single or data.count(b"\xff\xda") <= _MAX_SCANS:
        return  # to count costs a tenth of decoding
    if (scans := len(read_scans(data).headers)) > _MAX_SCANS:
        raise UnreadableImageError(
            f"decompression bomb: {scans:,} scans, the limit is {_MAX_SCANS}", ReasonKind.TOO_LARGE
        )


def _decode_strictly(data: bytes, colorspace: str) -> tuple[npt.NDArray[np.uint8], str]:
    """Return the pixels of a JPEG of which nothing is lost, and a note where its end mark is.

    libjpeg reports its first warning only, so behind a harmless one a grave one may hide. Where it may be harmless, the
    cause is taken out of a copy, and that has to decode without any warning.

    Raises:
        ValueError: It is damaged.
    """
    try:
        return simplejpeg.decode_jpeg(data, colorspace=colorspace, strict=True), ""
    except ValueError as error:
        scans = read_scans(data)
        if not _HARMLESS.search(str(error)) or not (scans.is_closed or _has_all_scans(data, scans)):
            raise
    closed = data if scans.is_closed else data + _END_MARK
    note = "" if scans.is_closed else NO_END_MARK
    return simplejpeg.decode_jpeg(_clean_jpeg(closed), colorspace=colorspace, strict=True), note


def _has_all_scans(data: bytes, scans: Scans) -> bool:
    """Return whether the scans give every coefficient of every component to its last bit: none is behind a cut.

    Source: ITU-T T.81, B.2.2 and B.2.3 for the headers, G.1.1.1 for what a progressive scan brings.
    """
    if len(scans.frames) != 1:
        return False
    (frame,) = scans.frames
    is_progressive = frame[1] in _PROGRESSIVE
    missing = {(component, k) for component in frame[10::3] for k in range(64 if is_progressive else 1)}
    for header in scans.headers:
        end = 5 + 2 * header[4] if len(header) > 4 else 0
        if len(header) != end + 3:
            return False
        first, last, bits = header[end:] if is_progressive else (0, 0, 0)
        if bits & 15 == 0:  # the last bits of these coefficients
            missing -= {(component, k) for component in header[5:end:2] for k in range(first, last + 1)}
    return not missing


def _clean_jpeg(data: bytes) -> bytes:
    """Return a JPEG without what libjpeg warns of though no part of the picture is missing.

    These are bytes between the segments of the header, a JFIF version of the future, wrong parameters of a sequential
    scan (some phones write them), and zeros between the last scan and the end mark.
    """
    end = data.rfind(_END_MARK)
    scan = data[:end].rstrip(b"\0")
    is_stuffed = scan.endswith(b"\xff") and len(scan) < end  # FF 00 is a byte of the picture
    cleaned = bytearray(scan + b"\0" * is_stuffed + data[end:])
    at, is_progressive = 2, False
    while (marker := cleaned.find(b"\xff", at)) >= 0:
        cleaned[at:marker] = b"\xff" * (marker - at)  # fill bytes, which may precede any marker
        code, size = cleaned[marker + 1 : marker + 2], int.from_bytes(cleaned[marker + 2 : marker + 4])
        at = marker + 1 if code == b"\xff" else marker + 2 + size
        is_progressive = is_progressive or code == b"\xc2"
        if code == b"\xe0" and cleaned[marker + 4 : marker + 9] == b"JFIF\0":
            cleaned[marker + 9] = 1
        if code == b"\xda":
            if not is_progressive:
                cleaned[at - 3 : at] = b"\0\x3f\0"  # all 64 coefficients, in one go
            break
    return bytes(cleaned)
