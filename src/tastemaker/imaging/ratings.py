"""The star rating that a picture has: in a sidecar, in its own XMP, or in its EXIF."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from tastemaker.imaging.decode import PILLOW_READERS, name_format
from tastemaker.imaging.jpeg_metadata import EXIF_MARK, exif_rating, read_jpeg_metadata
from tastemaker.imaging.tiff_tags import XMP, Bytes, read_directories
from tastemaker.imaging.xmp import read_rating

_JPEG_MARK, _TIFF_MARKS = b"\xff\xd8\xff", (b"II", b"MM")
_JPEG_HEADER_BYTES = 2**20
"""Of a JPEG on disk, so much is searched: its metadata lie in front of the picture."""


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
        if encoded[:2] in _TIFF_MARKS:
            return _tiff_rating(encoded)
        xmp, exif = _read_metadata(encoded)
        rating = read_rating(xmp)
        return exif_rating(exif) if rating is None else rating
    except Exception:  # noqa: BLE001 - whether it is a sound picture is for the decoder to say
        return None


def file_rating(path: Path) -> int | None:
    """Return the rating of a picture on disk, as `find_rating` does, without reading what is not needed.

    Raises:
        OSError: A file cannot be read.
    """
    with path.open("rb") as file:
        mark = file.read(len(_JPEG_MARK))
        file.seek(0)
        encoded = file.read(_JPEG_HEADER_BYTES) if mark == _JPEG_MARK else b""
        if mark[:2] in _TIFF_MARKS:
            inside = _tiff_rating(_FileBytes(file, path.stat().st_size))
        else:
            inside = embedded_rating(encoded or file.read())
    sidecars: dict[str, bytes] = {}
    for stem in (path.name, path.stem):
        for extension in (".xmp", ".XMP"):
            sidecar = path.with_name(stem + extension)
            if sidecar.is_file():
                sidecars.setdefault(f"{stem}{extension}"[len(path.stem) + 1 :].lower(), sidecar.read_bytes())
    rating = find_rating(None, sidecars, path.suffix[1:])
    return inside if rating is None else rating


class _FileBytes:
    """A file of which only the parts that are asked for are read."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice, /) -> bytes:
        start, stop, _ = part.indices(self._size)
        self._file.seek(start)
        return self._file.read(max(stop - start, 0))


def _tiff_rating(tiff: Bytes) -> int | None:
    rating = read_rating(next((directory.raw(XMP) for directory in read_directories(tiff)), b""))
    return exif_rating(tiff) if rating is None else rating


def _read_metadata(encoded: bytes) -> tuple[bytes, bytes]:
    """Return the XMP packet and the EXIF block of anything but a TIFF; each empty where there is none."""
    if encoded[:3] == _JPEG_MARK:
        return read_jpeg_metadata(encoded)
    reader = PILLOW_READERS.get(name_format(encoded) or "")
    if reader is None:
        return b"", b""
    info = reader(io.BytesIO(encoded)).info
    xmp = info.get("xmp") or info.get("XML:com.adobe.xmp") or b""
    return xmp.encode() if isinstance(xmp, str) else bytes(xmp), bytes(info.get("exif") or b"").removeprefix(EXIF_MARK)
