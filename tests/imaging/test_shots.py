"""How pictures were taken: what is read of EXIF, in which files, and what cannot be true."""

import io
import math
from datetime import datetime

import numpy as np
import pytest
from camera_files import make_cr3, make_dng, make_raf
from conftest import encode
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from tastemaker.imaging.embedded import read_embedded
from tastemaker.imaging.shots import NO_SHOT, Shot

PIXELS = np.linspace(0, 255, 80 * 60 * 3).reshape(60, 80, 3).astype(np.uint8)
MAIN = {0x010F: "Canon", 0x0110: "Canon EOS R5", 0x0112: 6}
EXPOSURE = {
    0x9003: "2024:05:01 18:30:15",
    0x9291: "0420",
    0x829A: IFDRational(1, 250),
    0x829D: IFDRational(28, 10),
    0x8827: 400,
    0x9204: IFDRational(-2, 3),
    0x920A: IFDRational(85),
    0xA434: "RF85mm F2 MACRO IS STM",
}
PLACE = {1: "N", 2: (IFDRational(47), 0, 0), 3: "E", 4: (IFDRational(8), 0, 0)}
SHOT = Shot(
    datetime(2024, 5, 1, 18, 30, 15, 42_000),
    "Canon EOS R5",
    "RF85mm F2 MACRO IS STM",
    85,
    1 / 250,
    -2 / 3,
    2.8,
    400,
    True,
)
CANON = {
    "CMT1": {0x010F: (2, b"Canon\0"), 0x0110: (2, b"Canon EOS R5\0")},
    "CMT2": {
        **{tag: (2, EXPOSURE[tag].encode() + b"\0") for tag in (0x9003, 0x9291, 0xA434)},
        0x829A: (5, (1, 250)),
        0x829D: (5, (28, 10)),
        0x8827: (3, [400]),
        0x9204: (10, (-2, 3)),
        0x920A: (5, (85, 1)),
    },
    "CMT4": {2: (5, (47, 1)), 4: (5, (8, 1))},
}


def exif(main=None, exposure=None, gps=None):
    tags = Image.Exif()
    tags.update(MAIN | (main or {}))
    tags.get_ifd(0x8769).update(EXPOSURE | (exposure or {}))
    tags.get_ifd(0x8825).update(PLACE if gps is None else gps)
    return tags


def block(**tags):
    return exif(**tags).tobytes().removeprefix(b"Exif\0\0")


def heic():
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(PIXELS)).save(file, exif=exif().tobytes())
    return file.getvalue()


FILES = {
    **{
        name: lambda name=name: encode(PIXELS, name, exif=exif().tobytes())
        for name in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")
    },
    "HEIC": heic,
    "NEF": block,  # a raw is a TIFF, and so is an EXIF block
    "RAF": lambda: make_raf(encode(PIXELS, "JPEG", exif=exif())),
    "CR3": lambda: make_cr3(**CANON),
}


def rounded(shot):
    return shot._replace(**{name: round(value, 4) for name, value in shot._asdict().items() if type(value) is float})


@pytest.mark.parametrize("kind", FILES)
def test_a_file_says_how_its_picture_was_taken(kind):
    data = FILES[kind]()
    assert rounded(read_embedded(data).shot) == rounded(SHOT)
    for cut in np.linspace(0, len(data) - 1, 40).astype(int).tolist():
        read_embedded(data[:cut])
        assert read_embedded(data[:cut][::-1]).shot == NO_SHOT


def test_files_without_exif_say_nothing():
    assert read_embedded(encode(PIXELS, "JPEG")).shot == read_embedded(b"").shot == NO_SHOT
    camera = read_embedded(make_dng(extra={0x9003: (2, b"2020:02:30 10:00:00\0")})).shot
    assert camera == Shot(camera="Handmade Model", has_gps=False)


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        (
            {"exposure": {0x9003: "0000:00:00 00:00:00", 0x9004: "1955:01:02 03:04:05"}},
            {"captured_at": datetime(1955, 1, 2, 3, 4, 5)},
        ),
        ({"exposure": {0x9003: "    :  :     :  :  "}}, {"captured_at": None}),
        ({"exposure": {0x9003: "9999:12:31 00:00:00"}}, {"captured_at": None}),
        (
            {"exposure": {0x9003: "2024-05-01 18:30:15", 0x9291: "-1"}},
            {"captured_at": datetime(2024, 5, 1, 18, 30, 15)},
        ),
        ({"main": {0x010F: "NIKON CORPORATION", 0x0110: "NIKON D850"}}, {"camera": "NIKON D850"}),
        ({"main": {0x010F: "SONY", 0x0110: "ILCE-7M3"}}, {"camera": "SONY ILCE-7M3"}),
        ({"main": {0x010F: "", 0x0110: ""}}, {"camera": None}),
        ({"main": {0x0110: "Canon\x1b[2J"}}, {"camera": None}),
        ({"main": {0x0110: "Canon" * 10_000}}, {"camera": None}),
        ({"main": {0x0110: b"Canon \xff\xfe"}}, {"camera": None}),
        ({"exposure": {0xA434: "50mm ƒ/2".encode()}}, {"lens": "50mm ƒ/2"}),
        ({"exposure": {0x829A: IFDRational(0)}}, {"exposure_time_s": None}),
        ({"exposure": {0x829D: IFDRational(28, 0)}}, {"aperture_f": None}),
        ({"exposure": {0x920A: IFDRational(-50)}}, {"focal_length_mm": None}),
        ({"exposure": {0x920A: 85, 0x829D: 2.5}}, {"focal_length_mm": 85, "aperture_f": 2.5}),  # as programs write them
        ({"exposure": {0x829A: math.nan, 0x829D: math.inf}}, {"exposure_time_s": None, "aperture_f": None}),
        ({"exposure": {0x9204: IFDRational(2000)}}, {"exposure_bias_ev": None}),
        ({"exposure": {0x8827: 65_535, 0x8833: 102_400}}, {"iso": 102_400}),
        ({"exposure": {0x8827: 0}}, {"iso": None}),
        ({"exposure": {0x8827: "400"}}, {"iso": None}),
        ({"gps": {1: "N"}}, {"has_gps": False}),
    ],
)
def test_what_cannot_be_true_is_not_said(tags, said):
    shot = read_embedded(encode(PIXELS, "WEBP", exif=exif(**tags))).shot
    assert {name: getattr(shot, name) for name in said} == said
