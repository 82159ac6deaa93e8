"""The formats of pictures: which extensions they have, and how their first bytes tell them."""

from __future__ import annotations

import re

from tastemaker.imaging.tiff_tags import DNG_VERSION, MAKE, PHOTOMETRIC, read_directories

HEIF_EXTENSIONS = frozenset({"heic", "heif", "hif"})

RAW_EXTENSIONS = frozenset(
    {"3fr", "arw", "cr2", "cr3", "crw", "dcr", "dng", "erf", "iiq", "kdc", "mef", "mrw", "nef", "nrw", "orf", "pef"}
    | {"raf", "rw2", "rwl", "sr2", "srf", "srw", "x3f"}
)
"""Not ``raw``, which is what programs call any bytes."""

EXTENSIONS = (
    frozenset({"jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "dib", "tif", "tiff", "avif"})
    | HEIF_EXTENSIONS
    | RAW_EXTENSIONS
)
"""File extensions, lower case, that mark a file or a tar member as an image, whether its extra is installed or not."""

_RAW_MARKS = {
    "RAF": rb"FUJIFILMCCD-RAW",
    "RW2": rb"IIU\0",
    "ORF": rb"IIR[OS]|MMOR",
    "X3F": rb"FOVb",
    "MRW": rb"\0MRM",
    "CR3": rb".{4}ftypcrx ",
    "CRW": rb".{6}HEAPCCDR",
    "CR2": rb"II\*\0\x10\0\0\0CR\x02",
}
_BRANDS = rb".{4}ftyp(?:.{8}(?:.{4})*)?"
_MARKS = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "WEBP": rb"RIFF.{4}WEBP",
    "GIF": rb"GIF8[79]a",
    "BMP": rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0{3}",
    **_RAW_MARKS,
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "AVIF": rb".{4}ftyp.{0,20}avi[fs]",
    "HEIC": _BRANDS + rb"(?:heic|heix|heim|heis|hevc|hevx|hevm|hevs)",  # HEVC inside, as phones and cameras write it
    "HEIF": _BRANDS + rb"(?:mif1|mif2|msf1)",  # any other codec
}
_MARK = re.compile(b"|".join(b"(?P<%s>%s)" % (name.encode(), mark) for name, mark in _MARKS.items()), re.DOTALL)

_BY_MAKE = (
    *(("NIKON", "NEF"), ("SONY", "ARW"), ("PENTAX", "PEF"), ("RICOH", "PEF"), ("SAMSUNG", "SRW"), ("CANON", "CR2")),
    *(("HASSELBLAD", "3FR"), ("EASTMAN KODAK", "DCR"), ("KODAK", "DCR"), ("SEIKO EPSON", "ERF"), ("EPSON", "ERF")),
    *(("MAMIYA", "MEF"), ("PHASE ONE", "IIQ")),
)
HEIF_FORMATS = frozenset({"HEIC", "HEIF"})
RAW_FORMATS = frozenset({*_RAW_MARKS, *(name for _, name in _BY_MAKE), "DNG", "RAW"})

_SENSOR_PIXELS = (32803, 34892)
"""Photometric interpretations that only raws have: a colour filter array, and linear raw."""


def sniff_format(head: bytes) -> str | None:
    r"""Return the format of an encoded image from its first 32 bytes, None for anything else.

    Most raws are TIFFs, and are called so here: see `name_format`.

    Example:
        >>> sniff_format(b"GIF89a..."), sniff_format(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic")
        ('GIF', 'HEIC')
    """
    found = _MARK.match(head[:32])
    return found.lastgroup if found else None


def name_format(data: bytes) -> str | None:
    """Return the format of a whole encoded image, with the kind of a raw that is a TIFF; None for anything else."""
    name = sniff_format(data)
    return (_name_raw(data) or name) if name == "TIFF" else name


def _name_raw(data: bytes) -> str | None:
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
