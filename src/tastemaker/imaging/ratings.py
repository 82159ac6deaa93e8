"""The star rating that a picture has: in a sidecar, in its own XMP, or in its EXIF."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tastemaker.imaging.decode import PILLOW_READERS, open_metadata
from tastemaker.imaging.formats import name_format
from tastemaker.imaging.jpeg_metadata import EXIF_MARK, exif_rating, read_jpeg_metadata
from tastemaker.imaging.tiff_tags import XMP, read_directories
from tastemaker.imaging.xmp import read_rating


def find_rating(encoded: bytes | None, sidecars: Mapping[str, bytes], extension: str) -> int | None:
    """Return the rating of a picture: -1 (rejected), 0 (no stars), 1 to 5; None where nothing says.

    The first that has one counts: ``<whole name>.xmp``, ``<stem>.xmp``, the XMP inside the file, its EXIF. Programs
    that write sidecars leave what is inside the file as it was, so the sidecar is the newer one.

    Args:
        encoded: The bytes of the picture, where they are there.
        sidecars: What follows the stem or the key (``jpg.xmp``, ``xmp``) -> bytes.
        extension: What follows it in the picture's own name.
    """
    lower = {name.lower(): content for name, content in sidecars.items()}
    whole, stem = f"{extension}.xmp".lower(), f"{extension.rpartition('.')[0]}.xmp".lower().lstrip(".")
    own = extension.rpartition(".")[2]
    for name, belongs_to in ((whole, ""), (stem, own)):
        rating = read_rating(lower[name], belongs_to) if name in lower else None
        if rating is not None:
            return rating
    return embedded_rating(encoded) if encoded else None


def embedded_rating(encoded: bytes) -> int | None:
    """Return the rating inside a picture's file; None where there is none, or where it cannot be read."""
    try:
        xmp, exif = _read_metadata(encoded)
        rating = read_rating(xmp)
        return exif_rating(exif) if rating is None else rating
    except Exception:  # noqa: BLE001 - whether it is a sound picture is for the decoder to say
        return None


def file_rating(path: Path) -> int | None:
    """Return the rating of a picture on disk, as `find_rating` does.

    Raises:
        OSError: A file cannot be read.
    """
    sidecars: dict[str, bytes] = {}
    for stem in (path.name, path.stem):
        for extension in (".xmp", ".XMP"):
            sidecar = path.with_name(stem + extension)
            if sidecar.is_file():
                sidecars.setdefault(f"{stem}{extension}"[len(path.stem) + 1 :].lower(), sidecar.read_bytes())
    return find_rating(path.read_bytes(), sidecars, path.suffix[1:])


def _read_metadata(encoded: bytes) -> tuple[bytes, bytes]:
    """Return the XMP packet and the EXIF block, or another TIFF structure, of a picture; each empty without one."""
    if encoded[:3] == b"\xff\xd8\xff":
        return read_jpeg_metadata(encoded)
    if encoded[:2] in (b"II", b"MM"):  # a TIFF, or a raw that is one
        return next((directory.raw(XMP) for directory in read_directories(encoded)), b""), encoded
    name = name_format(encoded)
    if name not in PILLOW_READERS:
        return b"", b""
    info = open_metadata(encoded, name).info
    xmp = info.get("xmp") or info.get("XML:com.adobe.xmp") or b""
    return xmp.encode() if isinstance(xmp, str) else bytes(xmp), bytes(info.get("exif") or b"").removeprefix(EXIF_MARK)
