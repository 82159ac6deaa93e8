"""Ratings inside JPEGs: the coded picture and everything else stay the same bytes; other tools read them."""

import io

import numpy as np
import pytest
from conftest import encode
from PIL import Image, ImageCms

from tastemaker import decode_image
from tastemaker.errors import MetadataError
from tastemaker.imaging.embedded import find_rating, read_embedded
from tastemaker.imaging.jpeg_metadata import XMP_MARK, embed_rating, read_jpeg_metadata, read_segments
from tastemaker.imaging.xmp import make_xmp

PADDED = b'<?xpacket begin=""?>' + make_xmp(2).partition(b"?>\n")[2] + b" " * 200 + b'<?xpacket end="w"?>'
UNRATED = make_xmp(1).replace(b'xmp:Rating="1"', b"")
FULL = UNRATED.replace(b"Tastemaker", b"T" * (65_533 - len(XMP_MARK) - len(UNRATED) + len(b"Tastemaker")))
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
EXTENDED = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 40 + b"<more/>"


def embedded_rating(data):
    return find_rating(read_embedded(data), {}, "")


def jpeg(*, xmp=b"", exif=None, **options):
    ramp = np.linspace(0, 255, 80 * 60 * 3).reshape(60, 80, 3).astype(np.uint8)
    more = {"exif": exif} if exif is not None else {}
    return encode(ramp, "JPEG", **more, **({"xmp": xmp} if xmp else {}), **options)


def with_exif_rating(rating):
    exif = Image.Exif()
    exif[0x0112], exif[0x4746], exif[0x4749] = 1, rating, 75
    return jpeg(exif=exif)


def with_extension():
    data = jpeg(xmp=PADDED)
    at = next(s.end for s in read_segments(data) if s.body(data).startswith(XMP_MARK))
    return data[:at] + b"\xff\xe1" + (len(EXTENDED) + 2).to_bytes(2) + EXTENDED + data[at:]


KINDS = {
    "bare": jpeg,
    "progressive with a profile": lambda: jpeg(progressive=True, icc_profile=PROFILE),
    "EXIF": lambda: with_exif_rating(0),
    "a rated packet with padding": lambda: jpeg(xmp=PADDED),
    "a packet without padding": lambda: jpeg(xmp=make_xmp(2)),
    "a decimal rating, no packet mark": lambda: jpeg(xmp=make_xmp(2).replace(b'"2"', b'"2.0"')),
    "extended XMP": with_extension,
    "a trailer, as phones append it": lambda: jpeg(xmp=PADDED) + b"MotionPhoto_Data" * 99,
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def others(data):
    """All segments but XMP packets and EXIF, and the coded picture with what follows it."""
    segments = list(read_segments(data))
    kept = [s.body(data) for s in segments if not s.body(data).startswith((XMP_MARK, b"Exif"))]
    return kept, data[segments[-1].end :]


@each_kind
def test_an_embedded_rating_is_read_back_and_the_picture_is_the_same_bytes(kind):
    data = KINDS[kind]()
    for rating in (5, -1, 1):
        rated = embed_rating(data, rating, overwrite=True)
        assert embedded_rating(rated) == rating
        assert others(rated) == others(data)
        assert np.array_equal(decode_image(rated).pixels, decode_image(data).pixels)
        with Image.open(io.BytesIO(rated)) as image:
            image.load()
            assert str(rating) in str(image.getxmp())
        assert embed_rating(rated, rating, overwrite=True) == rated


def test_a_padded_packet_keeps_its_length_so_that_no_position_in_the_file_moves():
    data = jpeg(xmp=PADDED)
    for rating in (5, -1):
        rated = embed_rating(data, rating, overwrite=True)
        assert len(rated) == len(data)
        assert sum(a != b for a, b in zip(rated, data, strict=True)) < 40


def test_a_rating_that_is_there_stays_unless_told():
    for data in (jpeg(xmp=PADDED), with_exif_rating(4)):
        assert embed_rating(data, 5) is data
        assert embed_rating(data, 5, overwrite=True) != data
    unrated = jpeg(xmp=make_xmp(0))
    assert embedded_rating(embed_rating(unrated, 5)) == 5


def test_the_rating_in_exif_follows_where_there_is_one():
    rated = embed_rating(with_exif_rating(2), 5, overwrite=True)
    with Image.open(io.BytesIO(rated)) as image:
        assert (image.getexif()[0x4746], image.getexif()[0x4749]) == (5, 99)
    xmp, _ = read_jpeg_metadata(rated)
    assert b'xmp:Rating="5"' in xmp


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "JPEG only"),
        (encode(np.zeros((4, 4, 3), np.uint8), "PNG"), "JPEG only"),
        (jpeg(xmp=b"<x>not closed Rating"), "damaged"),
        (jpeg(xmp=FULL), "no room"),
    ],
)
def test_what_cannot_be_rated_says_why(data, reason):
    with pytest.raises(MetadataError, match=reason):
        embed_rating(data, 3, overwrite=True)
