"""Camera raws: the JPEG preview that the camera made, or where there is none the developed picture. Extra ``raw``."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from tastemaker.errors import ReasonKind, UnreadableImageError
from tastemaker.imaging.tiff_tags import DNG_VERSION, MAKE, PHOTOMETRIC, read_directories

if TYPE_CHECKING:
    import rawpy

Pixels = npt.NDArray[np.uint8]

RAW_EXTENSIONS = frozenset(
    {"3fr", "arw", "cr2", "cr3", "crw", "dcr", "dng", "erf", "iiq", "kdc", "mef", "mrw", "nef", "nrw", "orf", "pef"}
    | {"raf", "rw2", "rwl", "sr2", "srf", "srw", "x3f"}
)
"""Not ``raw``, which is what programs call any bytes."""

PREVIEW, DEVELOPED = "preview", "developed"
"""Where the pixels of a raw came from."""

MIN_PREVIEW_SIDE = 224
"""Pixels: a smaller preview is a thumbnail, and the raw is developed instead."""

_BY_START = (
    (0, b"FUJIFILMCCD-RAW", "RAF"),
    (0, b"IIU\0", "RW2"),
    (0, b"IIRO", "ORF"),
    (0, b"IIRS", "ORF"),
    (0, b"MMOR", "ORF"),
    (0, b"FOVb", "X3F"),
    (0, b"\0MRM", "MRW"),
    (4, b"ftypcrx ", "CR3"),
    (6, b"HEAPCCDR", "CRW"),
    (0, b"II*\0\x10\0\0\0CR\x02", "CR2"),
)
_BY_MAKE = (
    *(("NIKON", "NEF"), ("SONY", "ARW"), ("PENTAX", "PEF"), ("RICOH", "PEF"), ("SAMSUNG", "SRW"), ("CANON", "CR2")),
    *(("HASSELBLAD", "3FR"), ("EASTMAN KODAK", "DCR"), ("KODAK", "DCR"), ("SEIKO EPSON", "ERF"), ("EPSON", "ERF")),
    *(("MAMIYA", "MEF"), ("PHASE ONE", "IIQ")),
)
RAW_FORMATS = frozenset({*(name for *_, name in _BY_START), *(name for _, name in _BY_MAKE), "DNG", "RAW"})

_SENSOR_PIXELS = (32803, 34892)
"""Photometric interpretations that only raws have: a colour filter array, and linear raw."""

_FLIP_TO_ORIENTATION = (1, 2, 4, 3, 5, 8, 6, 7)
"""LibRaw's flip (bits: mirrored, upside down, transposed) as an EXIF orientation."""


class RawPicture(NamedTuple):
    """What there is to see of a raw.

    Attributes:
        pixels: uint8 (height, width, 3), as stored: not turned.
        orientation: How to turn them, as an EXIF orientation: 1 to 8.
        source: `PREVIEW` or `DEVELOPED`.
    """

    pixels: Pixels
    orientation: int
    source: str


def sniff_raw(head: bytes) -> str | None:
    """Return the kind of a raw that has a mark of its own in its first 32 bytes, None for anything else.

    Example:
        >>> sniff_raw(b"FUJIFILMCCD-RAW 0201")
        'RAF'
    """
    return next((name for at, mark, name in _BY_START if head[at : at + len(mark)] == mark), None)


def name_raw(data: bytes) -> str | None:
    """Return the kind of raw that a TIFF file is: ``DNG``, ``NEF``, ...; None for an ordinary TIFF.

    Most raws are TIFFs whose first picture is a thumbnail. Those that hold the values of a sensor are raws; the make of
    the camera tells which.
    """
    is_phase_one, is_raw, make = data[8:12] in (b"IIII", b"MMMM"), False, ""  # grey pixels may say so too
    for number, directory in enumerate(read_directories(data)):
        if DNG_VERSION in directory.tags:
            return "DNG"
        make = directory.text(MAKE).upper() if number == 0 else make
        is_raw = is_raw or directory.integers(PHOTOMETRIC)[:1] in [(value,) for value in _SENSOR_PIXELS]
    name = next((name for start, name in _BY_MAKE if make.startswith(start)), "RAW")
    return name if is_raw or (is_phase_one and name == "IIQ") else None


def read_raw(
    data: bytes, name: str, make_room: Callable[[int, int], None], decode_jpeg: Callable[[bytes], Pixels]
) -> RawPicture:
    """Return the camera's preview; where it is missing or a thumbnail, the raw developed at half its size.

    Args:
        data: The whole file.
        name: Its format, for the messages.
        make_room: Called with the width and height of a raw that is to be developed; raises where that is too large.
        decode_jpeg: Returns the pixels of a JPEG, or raises `UnreadableImageError`.

    Raises:
        UnreadableImageError: The extra is not installed; the file is damaged, or of a camera that LibRaw does not know.
    """
    try:
        import rawpy
    except ImportError:
        raise UnreadableImageError(f"{name} needs tastemaker[raw]", ReasonKind.NEEDS_RAW) from None
    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            orientation = _FLIP_TO_ORIENTATION[raw.sizes.flip & 7]
            preview = _read_preview(raw, decode_jpeg)
            if preview is None:
                return RawPicture(_develop(raw, make_room), orientation, DEVELOPED)
            is_turned = orientation >= 5 and _is_upright(preview) != (raw.sizes.height > raw.sizes.width)
            return RawPicture(preview, 1 if is_turned else orientation, PREVIEW)
    except UnreadableImageError as error:
        raise UnreadableImageError(f"{name}: {error}", error.reason_kind) from error
    except Exception as error:
        raise UnreadableImageError(f"damaged or unsupported {name}: {_message(error)}") from error


def _read_preview(raw: rawpy.RawPy, decode_jpeg: Callable[[bytes], Pixels]) -> Pixels | None:
    """Return the largest preview; None where there is none that can be used."""
    import rawpy

    try:
        thumb = raw.extract_thumb()
    except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError, rawpy.NotSupportedError):
        return None
    pixels = decode_jpeg(thumb.data) if isinstance(thumb.data, bytes) else np.asarray(thumb.data)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        return None
    developed_side = min(raw.sizes.width, raw.sizes.height) // 2
    return pixels if min(pixels.shape[:2]) >= min(MIN_PREVIEW_SIDE, developed_side) else None


def _develop(raw: rawpy.RawPy, make_room: Callable[[int, int], None]) -> Pixels:
    sizes = raw.sizes
    make_room(max(sizes.raw_width, sizes.width), max(sizes.raw_height, sizes.height))
    pixels: Pixels = raw.postprocess(half_size=True, use_camera_wb=True, user_flip=0, output_bps=8)
    return pixels.repeat(3, axis=2) if pixels.shape[2] == 1 else pixels  # a camera without colours


def _is_upright(pixels: Pixels) -> bool:
    return bool(pixels.shape[0] > pixels.shape[1])


def _message(error: Exception) -> str:
    first = error.args[0] if error.args else ""
    return first.decode("ascii", "replace") if isinstance(first, bytes) else str(error) or type(error).__name__
