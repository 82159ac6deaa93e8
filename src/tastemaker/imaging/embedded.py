"""What a picture's file says of itself beside its pixels: XMP, and what its EXIF says of rotation, stars and the shot.

Which of the ratings that a picture may have counts is decided here, too.

EXIF is read by `tastemaker.imaging.tiff_tags`, in a quarter of the time that Pillow takes for it: a picture of a data
set is decoded in one or two milliseconds, and Pillow's reader needs a fifth of one (decision 0016).
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from tastemaker.errors import ReasonKind, UnreadableImageError
from tastemaker.imaging.cameras import open_heif
from tastemaker.imaging.formats import HEIF_FORMATS, sniff_format
from tastemaker.imaging.jpeg_metadata import EXIF_MARK, exif_rating, read_jpeg_metadata
from tastemaker.imaging.shots import NO_SHOT, Shot, read_shot
from tastemaker.imaging.tiff_tags import ORIENTATION, XMP, TiffDirectory, read_directories
from tastemaker.imaging.xmp import read_rating

PILLOW_READERS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
    **dict.fromkeys(HEIF_FORMATS, open_heif),
}
"""Called directly: `Image.open` would try other formats too, and has a limit of pixels of its own."""

_TURNED_ALREADY = HEIF_FORMATS | {"TIFF"}
"""Their decoders turn the picture by themselves."""

_PNG_METADATA = (b"eXIf", b"iTXt", b"tEXt", b"zTXt", b"iCCP")
"""Chunks that may have EXIF, XMP or a colour profile in them."""

_MAX_EXIF_SEGMENTS = 64
"""Cameras write one. For each, Pillow copies those before it: 1500 take a minute, and ten times as many an hour."""

_MAX_HEADER_BYTES = 2**20
"""Of a JPEG in a raw: all its metadata lie in front of its picture."""

_CR3_BOXES = (b"CMT1", b"CMT2", b"CMT4")
"""In a CR3, what lies in the three directories of an EXIF block: one box each, in the first kilobytes."""

_NO_PNG_END = "the PNG lacks its end mark, and nothing else"
_PNG_MARK_BYTES = 8

_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


@dataclass(frozen=True, slots=True)
class Embedded:
    """What a file says of its picture.

    Attributes:
        xmp: The XMP packet; empty where there is none.
        rating: The stars in its EXIF, 0 to 5; None where there are none.
        shot: How it was taken.
    """

    xmp: bytes = b""
    rating: int | None = None
    shot: Shot = NO_SHOT


def read_embedded(data: bytes) -> Embedded:
    """Return what a file says of its picture; nothing where it cannot be read: the pixels may be sound all the same.

    JPEG, PNG, WebP, AVIF, HEIC, TIFF, raws that are TIFFs (DNG, NEF, ARW, CR2, ORF, RW2, ...), RAF and CR3 are read.

    Args:
        data: The whole file.
    """
    try:
        xmp, exif = _read(data, sniff_format(data))
        return Embedded(xmp, exif_rating(exif), read_shot(exif))
    except Exception:  # noqa: BLE001 - whether it is a sound picture is for the decoder to say
        return Embedded()


def find_rating(embedded: Embedded, sidecars: Mapping[str, bytes], extension: str) -> int | None:
    """Return the rating of a picture: -1 (rejected), 0 (no stars), 1 to 5; None where nothing says.

    The first that has one counts: ``<whole name>.xmp``, ``<stem>.xmp``, the XMP inside the file, its EXIF. Programs
    that write sidecars leave what is inside the file as it was, so the sidecar is the newer one.

    Args:
        embedded: What the file says of itself.
        sidecars: What follows the stem or the key (``jpg.xmp``, ``xmp``) -> bytes.
        extension: What follows it in the picture's own name.
    """
    rating = _rating_of_sidecars(sidecars, extension)
    if rating is None:
        rating = read_rating(embedded.xmp)
    return embedded.rating if rating is None else rating


def file_rating(path: Path) -> int | None:
    """Return the rating of a picture on disk, as `find_rating` does.

    Raises:
        OSError: A file cannot be read.
    """
    rating = rating_beside(path)
    return find_rating(read_embedded(path.read_bytes()), {}, "") if rating is None else rating


def rating_beside(path: Path, *, by_explorer: bool = True) -> int | None:
    """Return the rating in the sidecars of a picture on disk; None where they have none, whatever the picture says.

    Args:
        path: Of the picture.
        by_explorer: As `read_rating` takes it.

    Raises:
        OSError: A sidecar cannot be read.
    """
    sidecars: dict[str, bytes] = {}
    for stem in (path.name, path.stem):
        for extension in (".xmp", ".XMP"):
            sidecar = path.with_name(stem + extension)
            if sidecar.is_file():
                sidecars.setdefault(f"{stem}{extension}"[len(path.stem) + 1 :].lower(), sidecar.read_bytes())
    return _rating_of_sidecars(sidecars, path.suffix[1:], by_explorer=by_explorer)


def _rating_of_sidecars(sidecars: Mapping[str, bytes], extension: str, *, by_explorer: bool = True) -> int | None:
    lower = {name.lower(): content for name, content in sidecars.items()}
    whole, stem = f"{extension}.xmp".lower(), f"{extension.rpartition('.')[0]}.xmp".lower().lstrip(".")
    for name, belongs_to in ((whole, ""), (stem, extension.rpartition(".")[2])):
        rating = read_rating(lower[name], belongs_to, by_explorer=by_explorer) if name in lower else None
        if rating is not None:
            return rating
    return None


def read_orientation(data: bytes, name: str) -> int:
    """Return how the decoded pixels of an image that is no raw are to be turned, as an EXIF orientation: 1 to 8.

    It is 1 where the file does not say or cannot be read, and where the decoder turns the picture by itself.
    """
    if name in _TURNED_ALREADY:
        return 1
    try:
        xmp, exif = _read(data, name)
        return _orientation(exif, xmp)
    except Exception:  # noqa: BLE001 - the pixels are sound, whatever the EXIF is
        return 1


def open_metadata(data: bytes, name: str) -> ImageFile.ImageFile:
    """Return an image for a look at what is beside its pixels, which may be missing. Pillow raises where it is damaged.

    Args:
        data: The whole file.
        name: Its format, one of `PILLOW_READERS`.
    """
    if name == "JPEG":
        check_exif_segments(data)
    if name == "PNG":
        data = strip_png(data, _PNG_METADATA, without=b"IDAT")[0]
    return PILLOW_READERS[name](io.BytesIO(data))


def strip_png(data: bytes, kept: tuple[bytes, ...] = (), *, without: bytes = b"") -> tuple[bytes, str]:
    """Return a PNG with its critical chunks only, and a note where its end mark is missing.

    Pillow refuses sound pixels for a damaged or large chunk beside them, and does not look at the checksums of the
    pixels, which are compared here. Where the file is cut inside a critical chunk, that comes last, for the decoder to
    judge.

    Args:
        data: The whole file.
        kept: Names of other chunks to keep where their checksum is right.
        without: Name of critical chunks to leave out.

    Raises:
        UnreadableImageError: The checksum of a critical chunk is wrong.
    """
    view, at = memoryview(data), _PNG_MARK_BYTES
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
    return b"".join(parts), _NO_PNG_END


def check_exif_segments(data: bytes) -> None:
    """Raise where a JPEG has so many EXIF segments that Pillow would be busy with them."""
    if (segments := data.count(EXIF_MARK)) > _MAX_EXIF_SEGMENTS:
        raise UnreadableImageError(f"decompression bomb: {segments:,} EXIF segments", ReasonKind.TOO_LARGE)


def _read(data: bytes, name: str | None) -> tuple[bytes, list[TiffDirectory]]:
    """Return the XMP packet of a file, and the first directory of its EXIF; of a CR3 all. Each is empty without one."""
    if name == "JPEG":
        xmp, block = read_jpeg_metadata(data)
        return xmp, _first_directory(block)
    if name == "RAF":  # its preview has what the camera says
        at, size = struct.unpack_from(">II", data, 84)
        return _read(data[at : at + min(size, _MAX_HEADER_BYTES)], "JPEG")
    if name == "CR3":
        found = (data.find(mark, 0, 2**16) for mark in _CR3_BOXES)
        boxes = (data[at + 4 : at - 4 + int.from_bytes(data[at - 4 : at])] for at in found if at >= 4)
        return b"", [directory for box in boxes for directory in _first_directory(box)]
    if name in PILLOW_READERS and name != "TIFF":
        info = open_metadata(data, name).info
        xmp = info.get("xmp") or info.get("XML:com.adobe.xmp") or b""
        return xmp.encode() if isinstance(xmp, str) else bytes(xmp), _first_directory(_exif_block(info))
    exif = _first_directory(data)
    return exif[0].raw(XMP) if exif else b"", exif


def _first_directory(block: bytes) -> list[TiffDirectory]:
    return list(islice(read_directories(block), 1))


def _exif_block(info: dict[Any, Any]) -> bytes:
    """Return the EXIF block that Pillow found, also as hexadecimal text, where ImageMagick puts it in a PNG."""
    profile = info.get("Raw profile type exif", "")
    block = info.get("exif") or bytes.fromhex("".join(profile.split("\n")[3:]))
    return bytes(block).removeprefix(EXIF_MARK)


def _orientation(exif: list[TiffDirectory], xmp: bytes) -> int:
    """Return the orientation in EXIF, else that in XMP; 1 where there is none, or it is no orientation."""
    if exif and ORIENTATION in exif[0].tags:
        value = exif[0].integers(ORIENTATION)[:1]
    else:
        match = _XMP_ORIENTATION.search(xmp)
        value = (int(match[1]),) if match else ()
    return value[0] if value and 1 <= value[0] <= 8 else 1
