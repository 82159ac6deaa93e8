"""A TIFF of any kind comes out as the picture that it is, or is refused as not supported."""

import io
from itertools import product

import numpy as np
import pytest
import tifffile
from conftest import encode

from tastemaker.errors import ReasonKind, UnreadableImageError
from tastemaker.imaging.decode import decode_image

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize(
    "values",
    [
        (GREY / 255).astype(np.float32),
        GREY.astype(np.float32),
        GREY.astype(np.int32),
        GREY.astype(np.int32) * 257,
    ],
    ids=["floats to 1", "floats to 255", "integers to 255", "integers to 65535"],
)
def test_a_known_range_gives_the_picture(values):
    pixels = decode_image(encode(values, "TIFF")).pixels
    assert (pixels == GREY[..., None]).mean() > 0.9
    assert np.abs(pixels.astype(int) - GREY[..., None]).max() <= 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.0, np.nan], "floating-point pixels from nan to nan: no known range"),
        ([0.0, np.inf], "floating-point pixels from 0 to inf"),
        ([-0.5, 0.5], "floating-point pixels from -0.5 to 0.5"),
        ([0.0, 7.5], "known are 0 to 255 and 0 to 1"),
        ([-1, 255], "32-bit pixels from -1 to 255: no known range; known are 0 to 255 and 0 to 65535"),
        ([0, 2**20], "32-bit pixels from 0 to 1.04858e"),
    ],
)
def test_any_other_range_is_refused(values, said):
    array = np.array([values], np.int32 if isinstance(values[0], int) else np.float32)
    with pytest.raises(UnreadableImageError, match="no known range") as refused:
        decode_image(encode(array, "TIFF"))
    assert said in str(refused.value)


COLOURS = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
DEPTHS = {
    "uint8": lambda values: values,
    "uint16": lambda values: values.astype(np.uint16) * 257,
    "uint32": lambda values: values.astype(np.uint32) * 0x01010101,
    "int8": lambda values: (values.astype(int) - 128).astype(np.int8),
    "int16": lambda values: values.astype(np.int16) * 128,
    "int32": lambda values: values.astype(np.int32),
    "float16": lambda values: (values / 255).astype(np.float16),
    "float32": lambda values: (values / 255).astype(np.float32),
    "float64": lambda values: values / 255,
}


def largest(array):
    return np.asarray(1 if array.dtype.kind == "f" else np.iinfo(array.dtype).max, array.dtype)


def make_tiff(depth, layout, **options):
    """Return a TIFF of `COLOURS`, or of their red as grey, and what its pixels have to be."""
    kind, *planes = layout.split()
    values = DEPTHS[depth](COLOURS)
    if kind in ("black", "white"):
        values = values[..., :1]
        values = values if kind == "black" else DEPTHS[depth](255 - COLOURS[..., :1])
        options["photometric"] = f"minis{kind}"
    elif kind == "cmyk":
        values = np.dstack([DEPTHS[depth](255 - COLOURS), DEPTHS[depth](np.zeros_like(COLOURS[..., :1]))])
        options |= {"photometric": "separated", "extrasamples": []}
    else:
        options["photometric"] = "rgb"
    if "alpha" in planes:
        values = np.dstack([values, np.broadcast_to(largest(values), (*values.shape[:2], 1))])
        options["extrasamples"] = ["unassalpha"]
    if "planes" in planes:
        values, options["planarconfig"] = np.moveaxis(values, -1, 0), "separate"
    file = io.BytesIO()
    tifffile.imwrite(file, values[..., 0] if values.shape[-1] == 1 else values, **options)
    return file.getvalue(), COLOURS if kind in ("rgb", "cmyk") else np.repeat(COLOURS[..., :1], 3, axis=2)


LAYOUTS = ["black", "white", "black alpha", "rgb", "rgb alpha", "rgb planes", "rgb alpha planes", "cmyk", "cmyk planes"]


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_tiff_gives_its_pixels_or_is_not_supported(depth, layout):
    outcomes = set()
    for order, compression, tile in product("<>", (None, "zlib"), (None, (16, 16))):
        data, right = make_tiff(depth, layout, byteorder=order, compression=compression, tile=tile)
        outcomes.add(outcome(data, right))
    assert outcomes <= {"read", ReasonKind.UNSUPPORTED}
    assert outcomes == {"read"} or depth != "uint8"


def outcome(data, right):
    try:
        pixels = decode_image(data).pixels
    except UnreadableImageError as refused:
        return "called damaged" if "damaged" in str(refused) else refused.reason_kind
    return "read" if np.abs(pixels.astype(int) - right).max() <= 1 else "other pixels"


@pytest.mark.parametrize("layout", ["rgb planes", "white"])
def test_16_bits_in_compressed_planes_and_with_white_as_zero_are_read(layout):
    data, right = make_tiff("uint16", layout, compression="zlib")
    assert np.array_equal(decode_image(data).pixels, right)


def test_a_thumbnail_in_front_is_not_taken_for_the_picture():
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as tiff:
        tiff.write(COLOURS[::4, ::4], photometric="rgb", subfiletype=1)
        tiff.write(COLOURS, photometric="rgb")
    assert np.array_equal(decode_image(file.getvalue()).pixels, COLOURS)
