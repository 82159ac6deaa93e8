"""HEIC and other HEIF files, by libheif. Part of the extra ``heif``."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from tastemaker.errors import ReasonKind, UnreadableImageError

if TYPE_CHECKING:
    from PIL import ImageFile

HEIF_EXTENSIONS = frozenset({"heic", "heif", "hif"})
HEIF_FORMATS = frozenset({"HEIC", "HEIF"})
"""HEVC inside, as phones and cameras write it; and any other codec."""

_HEVC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
_OTHER_BRANDS = (b"mif1", b"mif2", b"msf1")


def sniff_heif(head: bytes) -> str | None:
    r"""Return ``HEIC`` or ``HEIF`` from the first 32 bytes of a file, None for anything else.

    Example:
        >>> sniff_heif(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
        'HEIC'
    """
    if head[4:8] != b"ftyp":
        return None
    brands = {head[at : at + 4] for at in (8, *range(16, 32, 4))}
    if brands.intersection(_HEVC_BRANDS):
        return "HEIC"
    return "HEIF" if brands.intersection(_OTHER_BRANDS) else None


def open_heif(file: io.BytesIO) -> ImageFile.ImageFile:
    """Return a HEIF file as Pillow's image, not decoded yet.

    Rotation is a property of the picture in this format, not a hint in its EXIF: libheif always applies it.

    Raises:
        UnreadableImageError: The extra is not installed.
        ValueError: The file is cut. Errors of the decoder are others.
    """
    try:
        from pillow_heif.as_plugin import HeifImageFile
    except ImportError:
        name = sniff_heif(file.getvalue()[:32]) or "HEIF"
        raise UnreadableImageError(f"{name} needs tastemaker[heif]", ReasonKind.NEEDS_HEIF) from None
    _check_whole(file.getbuffer())
    image: ImageFile.ImageFile = HeifImageFile(file)  # type: ignore[no-untyped-call,unused-ignore]
    return image


def _check_whole(data: memoryview) -> None:
    """Raise where the file ends inside its picture: libheif would leave the missing tiles of a grid black."""
    at = 0
    while at + 8 <= len(data):
        size, kind, head = int.from_bytes(data[at : at + 4]), bytes(data[at + 4 : at + 8]), 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16]), 16
        if size < head:
            return  # 0: up to the end of the file; anything else is no box, and libheif judges
        if kind in (b"meta", b"mdat") and at + size > len(data):
            raise ValueError(f"it has {len(data):,} bytes of {at + size:,}")
        at += size
