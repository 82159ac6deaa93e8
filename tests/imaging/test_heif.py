"""HEIC: pixels, rotation, cut files, bombs, and what is said where the extra is missing."""

import io
import struct
import sys

import numpy as np
import pytest
from PIL import Image

from tastemaker import UnreadableImageError, decode_image

pillow_heif = pytest.importorskip("pillow_heif")


def picture(mode="RGB", size=(96, 64)):
    ramp = np.linspace(0, 255, size[0] * size[1] * 3).reshape(size[1], size[0], 3)
    return Image.fromarray(ramp.astype(np.uint8)).convert(mode)


def heic(image=None, **options):
    file = io.BytesIO()
    pillow_heif.from_pillow(image or picture()).save(file, **options)
    return file.getvalue()


def oriented(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return heic(exif=exif.tobytes())


def reference(data):
    return np.asarray(pillow_heif.open_heif(io.BytesIO(data)).to_pillow().convert("RGB"))


KINDS = {
    "one picture": heic,
    "lossless": lambda: heic(quality=-1, chroma=444),
    "tiles, as phones write it": lambda: heic(picture(size=(200, 150)), tile_size=64),
    "alpha": lambda: heic(picture("RGBA")),
    "grey": lambda: heic(picture("L")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_libheifs_and_a_cut_file_is_never_half_decoded(kind):
    data = KINDS[kind]()
    image = decode_image(data)
    assert image.format == "HEIC"
    assert np.array_equal(image.pixels, reference(data))
    for cut in {*np.linspace(0, len(data) - 1, 60).astype(int).tolist(), len(data) - 1, len(data) - 2}:
        with pytest.raises(UnreadableImageError):
            decode_image(data[:cut])


def test_more_than_8_bits_come_out_as_8():
    grey = np.linspace(0, 65535, 96 * 64).reshape(64, 96).astype(np.uint16)
    file = io.BytesIO()
    pillow_heif.from_bytes("I;16", (96, 64), grey.tobytes()).save(file, quality=-1)
    pixels = decode_image(file.getvalue()).pixels
    assert np.abs(pixels[..., 0].astype(int) - grey // 257).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_picture_is_upright_whether_rotation_is_asked_for_or_not(orientation):
    data = oriented(orientation)
    plain, turned = (decode_image(data, apply_exif_rotation=wanted).pixels for wanted in (False, True))
    assert np.array_equal(plain, turned)
    assert plain.shape[:2] == ((64, 96) if orientation < 5 else (96, 64))


def test_a_bomb_is_refused_before_its_pixels_are_decoded():
    data = heic()
    with pytest.raises(UnreadableImageError, match="decompression bomb: 96x64"):
        decode_image(data, max_pixels=96 * 64 - 1)
    at = data.index(b"ispe") + 8
    with pytest.raises(UnreadableImageError, match=r"decompression bomb|damaged or truncated HEIC"):
        decode_image(data[:at] + struct.pack(">II", 30_000, 30_000) + data[at + 8 :])


def test_without_the_extra_the_reason_names_it(monkeypatch):
    data = heic()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setitem(sys.modules, "pillow_heif.as_plugin", None)
    with pytest.raises(UnreadableImageError, match=r"^HEIC needs tastemaker\[heif\]$"):
        decode_image(data)
