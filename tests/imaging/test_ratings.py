"""Where the rating of a picture is found, and which one counts."""

import io

import numpy as np
import pytest
from camera_files import make_dng
from conftest import encode
from PIL import Image, PngImagePlugin

from tastemaker.imaging.embedded import Embedded, file_rating, find_rating, read_embedded
from tastemaker.imaging.jpeg_metadata import embed_rating
from tastemaker.imaging.xmp import make_xmp

NOTHING = Embedded()
PIXELS = np.linspace(0, 255, 80 * 60 * 3).reshape(60, 80, 3).astype(np.uint8)


def embedded_rating(data):
    return find_rating(read_embedded(data), {}, "")


def png():
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", make_xmp(4).decode())
    return encode(PIXELS, "PNG", pnginfo=info)


def heic():
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(PIXELS)).save(file, xmp=make_xmp(4))
    return file.getvalue()


def exif_rated(file_format):
    exif = Image.Exif()
    exif[0x4746] = 4
    return encode(PIXELS, file_format, exif=exif)


FILES = {
    "a.jpg": lambda: encode(PIXELS, "JPEG", xmp=make_xmp(4)),
    "a.png": png,
    "a.webp": lambda: encode(PIXELS, "WEBP", xmp=make_xmp(4)),
    "a.tif": lambda: encode(PIXELS, "TIFF", tiffinfo={700: make_xmp(4)}),
    "a.avif": lambda: encode(PIXELS, "AVIF", xmp=make_xmp(4)),
    "a.heic": heic,
    "a.dng": lambda: make_dng(extra={700: (1, make_xmp(4))}),
    "b.dng": lambda: make_dng(extra={0x4746: (3, [4])}),
    **{f"b.{name.lower()}": lambda name=name: exif_rated(name) for name in ("JPEG", "PNG", "WEBP", "TIFF")},
}


@pytest.mark.parametrize("name", FILES)
def test_a_rating_inside_a_file_is_read_from_bytes_and_from_disk(name, tmp_path):
    data = FILES[name]()
    assert embedded_rating(data) == 4
    (tmp_path / name).write_bytes(data)
    assert file_rating(tmp_path / name) == 4
    (tmp_path / f"{name}.xmp").write_bytes(make_xmp(1))
    assert file_rating(tmp_path / name) == 1


@pytest.mark.parametrize("name", FILES)
def test_files_without_a_rating_and_damaged_ones_have_none(name):
    data = FILES[name]()
    assert embedded_rating(data.replace(b"Rating", b"Pating").replace(b"\x46\x47", b"\x46\x48")) in (None, 4)
    for cut in np.linspace(0, len(data) - 1, 40).astype(int).tolist():
        assert embedded_rating(data[:cut]) in (None, 4)
        assert embedded_rating(data[:cut][::-1]) is None
    assert embedded_rating(b"") is None


def test_the_sidecar_of_the_whole_name_counts_before_that_of_the_stem_and_before_the_file():
    inside = read_embedded(embed_rating(encode(PIXELS, "JPEG"), 1))
    whole, stem = {"jpg.xmp": make_xmp(3)}, {"xmp": make_xmp(2)}
    assert find_rating(inside, {**stem, **whole}, "jpg") == 3
    assert find_rating(inside, stem, "jpg") == 2
    assert find_rating(inside, {"XMP": make_xmp(2)}, "JPG") == 2
    assert find_rating(inside, {"txt": b"Rating"}, "jpg") == 1
    assert find_rating(NOTHING, {}, "jpg") is None
    assert find_rating(inside, {"xmp": b"damaged Rating"}, "jpg") == 1


def test_a_pairs_sidecars_are_told_apart():
    sidecars = {"CR2.xmp": make_xmp(5), "xmp": make_xmp(4, "CR2")}
    assert find_rating(NOTHING, sidecars, "CR2") == 5
    assert find_rating(NOTHING, {"xmp": sidecars["xmp"]}, "cr2") == 4
    assert find_rating(NOTHING, sidecars, "JPG") is None
    assert find_rating(NOTHING, {"left.jpg.xmp": make_xmp(2), "jpg.xmp": make_xmp(1)}, "left.jpg") == 2
