"""How a picture was taken, as the EXIF in its file says: when, with what, and how it was exposed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from tastemaker.imaging.tiff_tags import MAKE, MODEL, TiffDirectory, directories_below

_TAKEN, _DIGITIZED, _TAKEN_FRACTION, _DIGITIZED_FRACTION = 0x9003, 0x9004, 0x9291, 0x9292
_EXPOSURE_TIME, _APERTURE, _BIAS, _FOCAL_LENGTH, _LENS = 0x829A, 0x829D, 0x9204, 0x920A, 0xA434
_SPEEDS = (0x8827, 0x8833, 0x8832, 0x8831)
"""Where the ISO speed may be. The first holds 65,535 at most, which says that another one has it."""
_LATITUDE, _LONGITUDE = 2, 4

_TIME = re.compile(r"(\d{4})[:/.-](\d\d)[:/.-](\d\d)[ T](\d\d):(\d\d):(\d\d)", re.ASCII)
_YEARS = range(1826, 2101)
"""From the first photograph on: some scans have the year of the picture. Later ones are a clock gone wrong."""
_MAX_TEXT = 128
_MAX_SPEED = 10_000_000


class Shot(NamedTuple):
    """How a picture was taken. None is what the file does not say, and what cannot be true.

    Attributes:
        captured_at: What the camera's clock said, to the microsecond where the file does. It has no time zone.
        camera: Make and model, up to 128 characters.
        lens: As the camera names it.
        focal_length_mm: Of the lens, in millimetres: above 0, up to 100,000.
        exposure_time_s: In seconds: above 0, up to a week.
        exposure_bias_ev: By how much it was to be brighter (or darker) than metered, in EV: -30 to 30.
        aperture_f: The f-number: above 0, up to 10,000.
        iso: Speed: 1 to 10,000,000.
        has_gps: Whether the file says where it was taken. The place itself is not read.
    """

    captured_at: datetime | None = None
    camera: str | None = None
    lens: str | None = None
    focal_length_mm: float | None = None
    exposure_time_s: float | None = None
    exposure_bias_ev: float | None = None
    aperture_f: float | None = None
    iso: int | None = None
    has_gps: bool | None = None


NO_SHOT = Shot()
"""Of a file that says nothing."""


def read_shot(exif: Iterable[TiffDirectory]) -> Shot:
    """Return what EXIF says.

    Args:
        exif: Its first directory, or all of them. A tag is taken from the first that has it, and those below it follow.
    """
    found: dict[int, TiffDirectory] = {}
    for main in exif:
        for directory in (main, *directories_below(main)):
            found = dict.fromkeys(directory.tags, directory) | found
    if not found:
        return NO_SHOT

    def text(tag: int) -> str:
        return found[tag].text(tag) if tag in found else ""

    def number(tag: int, least: float, most: float) -> float | None:
        value = found[tag].number(tag) if tag in found else None
        return value if value is not None and least <= value <= most else None

    speeds = (found[tag].integers(tag)[:1] for tag in _SPEEDS if tag in found)
    return Shot(
        _read_time(text(_TAKEN), text(_TAKEN_FRACTION)) or _read_time(text(_DIGITIZED), text(_DIGITIZED_FRACTION)),
        _printable(_name_camera(text(MAKE), text(MODEL))),
        _printable(text(_LENS)),
        number(_FOCAL_LENGTH, 1e-3, 1e5),
        number(_EXPOSURE_TIME, 1e-9, 7 * 86_400),
        number(_BIAS, -30, 30),
        number(_APERTURE, 1e-3, 1e4),
        next((speed[0] for speed in speeds if speed and 0 < speed[0] <= _MAX_SPEED and speed[0] != 65_535), None),
        all(tag in found and found[tag].raw(tag) for tag in (_LATITUDE, _LONGITUDE)),
    )


def _read_time(text: str, fraction: str) -> datetime | None:
    match = _TIME.fullmatch(text[:32])
    if match is None or int(match[1]) not in _YEARS:
        return None
    digits = fraction[:6] if fraction.isascii() and fraction.isdecimal() else ""
    try:
        return datetime.fromisoformat("{}-{}-{}T{}:{}:{}.{:0<6}".format(*match.groups(), digits))
    except ValueError:
        return None


def _name_camera(make: str, model: str) -> str:
    """Return make and model; the model alone where it begins with the make, as `NIKON CORPORATION`, `NIKON D850`."""
    return model if not make or model.lower().startswith(make.split()[0].lower()) else f"{make} {model}".strip()


def _printable(text: str) -> str | None:
    return text if 0 < len(text) <= _MAX_TEXT and text.isprintable() and "\ufffd" not in text else None
