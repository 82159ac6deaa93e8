"""Grey of 32 bits and of floats comes out as the picture that it is, or is refused."""

import numpy as np
import pytest
from conftest import encode

from tastemaker.errors import UnreadableImageError
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
