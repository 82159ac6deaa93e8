"""Raws: the preview as the raw is turned, development where there is none, and damage."""

import sys

import numpy as np
import pytest
from camera_files import make_dng
from conftest import encode
from PIL import Image, ImageOps

from tastemaker import UnreadableImageError, decode_image
from tastemaker.imaging.formats import name_format, sniff_format

rawpy = pytest.importorskip("rawpy")


def picture(size=(480, 320)):
    ramp = np.linspace(0, 255, size[0] * size[1] * 3).reshape(size[1], size[0], 3)
    return Image.fromarray(ramp.astype(np.uint8))


def turned(pixels, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(pixels)
    image.info["exif"] = exif.tobytes()
    return np.asarray(ImageOps.exif_transpose(image))


PREVIEW = encode(picture(), "JPEG")


def test_a_raw_is_the_preview_that_its_camera_made():
    image = decode_image(make_dng(preview=PREVIEW))
    assert (image.format, image.source) == ("DNG", "preview")
    assert np.array_equal(image.pixels, decode_image(PREVIEW).pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("preview", [PREVIEW, None], ids=["preview", "developed"])
def test_it_is_turned_as_the_raw_says_and_only_where_asked_for(orientation, preview):
    upright = decode_image(make_dng(preview=preview)).pixels
    data = make_dng(preview=preview, orientation=orientation)
    assert np.array_equal(decode_image(data).pixels, upright)
    assert np.array_equal(decode_image(data, apply_exif_rotation=True).pixels, turned(upright, orientation))


def test_a_preview_that_is_upright_already_is_not_turned_again():
    portrait = encode(picture((320, 480)), "JPEG")
    data = make_dng(preview=portrait, orientation=6)
    assert np.array_equal(decode_image(data, apply_exif_rotation=True).pixels, decode_image(portrait).pixels)


@pytest.mark.parametrize("preview", [None, encode(picture((160, 120)), "JPEG")], ids=["no preview", "a thumbnail"])
def test_without_a_preview_of_use_the_raw_is_developed_at_half_its_size(preview):
    image = decode_image(make_dng((600, 450), preview))
    assert (image.width, image.height, image.source) == (300, 225, "developed")
    assert image.pixels.std() > 20


def test_the_limit_of_pixels_is_for_the_raw_that_is_developed_and_for_the_preview_that_is_decoded():
    with pytest.raises(UnreadableImageError, match="DNG: decompression bomb: 600x450 is 0 megapixels"):
        decode_image(make_dng((600, 450)), max_pixels=600 * 450 - 1)
    assert decode_image(make_dng((600, 450), PREVIEW), max_pixels=480 * 320).source == "preview"


@pytest.mark.parametrize(
    ("make", "name"),
    [(b"NIKON CORPORATION", "NEF"), (b"SONY", "ARW"), (b"PENTAX", "PEF"), (b"SAMSUNG", "SRW"), (b"Someone", "RAW")],
)
def test_raws_that_are_tiffs_are_told_by_their_sensor_values_and_named_by_their_make(make, name):
    data = make_dng(preview=PREVIEW, make=make, is_dng=False)
    assert name_format(data) == name
    assert decode_image(data).format == name


def test_ordinary_tiffs_stay_tiffs():
    for options in ({}, {"compression": "tiff_lzw"}, {"tiffinfo": {271: "NIKON CORPORATION"}}):
        data = encode(picture(), "TIFF", **options)
        assert name_format(data) == "TIFF"
        assert decode_image(data).format == "TIFF"
    for start in (b"IIII", b"CR\x02C"):
        grey = np.resize(np.frombuffer(start, np.uint8), (30, 40))
        ordinary = encode(grey, "TIFF")
        at = ordinary.index(grey[0].tobytes())
        assert sniff_format(ordinary[:8] + ordinary[at : at + 24]) == "TIFF", "pixels that look like a mark"


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"II*\0\x10\0\0\0CR\x02\0", "CR2"),
        (b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom", "CR3"),
        (b"FUJIFILMCCD-RAW 0201FF", "RAF"),
        (b"IIU\0\x18\0\0\0", "RW2"),
        (b"IIRO\x08\0\0\0", "ORF"),
        (b"II\x1a\0\0\0HEAPCCDR", "CRW"),
    ],
)
def test_raws_with_a_mark_of_their_own_are_told_by_it_and_damaged_ones_are_refused(head, name):
    assert sniff_format(head) == name
    with pytest.raises(UnreadableImageError, match=f"damaged or unsupported {name}"):
        decode_image(head + bytes(2000))


def test_a_damaged_preview_is_refused_and_not_replaced():
    at = len(PREVIEW) // 2
    data = make_dng(preview=PREVIEW[:at] + b"\xff\xd9" + bytes(len(PREVIEW) - at - 2))
    with pytest.raises(UnreadableImageError, match=r"^DNG: damaged or truncated JPEG"):
        decode_image(data)


def test_a_cut_raw_is_refused_or_is_whole():
    bare = make_dng((300, 200))
    developed = decode_image(bare).pixels  # the sensor's values may be whole where the preview is gone
    for data in (make_dng((300, 200), PREVIEW), bare):
        expected = decode_image(data).pixels
        for cut in np.linspace(0, len(data) - 1, 60).astype(int).tolist():
            try:
                image = decode_image(data[:cut])
            except UnreadableImageError:
                continue
            assert np.array_equal(image.pixels, expected if image.source == "preview" else developed), cut


def test_without_the_extra_the_reason_names_it(monkeypatch):
    data = make_dng(preview=PREVIEW)
    monkeypatch.setitem(sys.modules, "rawpy", None)
    with pytest.raises(UnreadableImageError, match=r"^DNG needs tastemaker\[raw\]$"):
        decode_image(data)
