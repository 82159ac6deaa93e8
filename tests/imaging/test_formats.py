"""Every kind of image against Pillow, whole and cut; the crop against both references."""

import io

import numpy as np
import pytest
from conftest import encode
from PIL import Image

from tastemaker import UnreadableImageError, decode_image, preprocess

RNG = np.random.default_rng(0)


def picture(mode, size=(97, 61)):
    ramp = np.linspace(0, 255, size[0] * size[1] * 3).reshape(size[1], size[0], 3)
    noise = np.random.default_rng(1).normal(0, 20, ramp.shape)
    image = Image.fromarray(np.clip(ramp + noise, 0, 255).astype(np.uint8))
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.linear_gradient("L").resize(size))
    return image.convert(mode)


KINDS = [
    *[("JPEG", mode, options) for mode in ("RGB", "L", "CMYK") for options in ({}, {"progressive": True})],
    *[("JPEG", "RGB", {"subsampling": number}) for number in (0, 1, 2)],
    *[("PNG", mode, {}) for mode in ("RGB", "RGBA", "L", "LA", "P", "1")],
    *[("WEBP", mode, options) for mode in ("RGB", "RGBA") for options in ({}, {"lossless": True})],
    ("GIF", "P", {}),
    ("GIF", "L", {"save_all": True, "append_images": [Image.new("L", (97, 61))]}),
    ("BMP", "RGB", {}),
    ("BMP", "L", {}),
    *[("TIFF", mode, {}) for mode in ("RGB", "RGBA", "L", "CMYK", "1")],
    *[("TIFF", "RGB", {"compression": name}) for name in ("tiff_lzw", "jpeg", "tiff_deflate")],
    ("AVIF", "RGB", {}),
    ("AVIF", "RGBA", {}),
]


@pytest.mark.parametrize(("file_format", "mode", "options"), KINDS)
def test_pixels_are_pillows_and_a_cut_file_is_never_half_decoded(file_format, mode, options):
    data = encode(picture(mode), file_format, **options)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    image = decode_image(data)
    assert image.format == file_format
    assert (image.width, image.height) == (97, 61)
    assert image.pixels.dtype == np.uint8
    assert np.array_equal(image.pixels, expected)
    for cut in {*np.linspace(0, len(data) - 1, 25).astype(int).tolist(), len(data) - 2, len(data) - 5}:
        try:
            part = decode_image(data[:cut]).pixels
        except UnreadableImageError:
            continue
        assert np.array_equal(part, expected), f"cut to {cut} of {len(data)} bytes"


def test_sixteen_bits_are_scaled_and_not_clipped_to_white():
    for file_format in ("PNG", "TIFF"):
        pixels = decode_image(encode(picture("I;16"), file_format)).pixels
        assert np.array_equal(pixels[..., 0], np.asarray(picture("L")))


def test_what_a_file_is_called_does_not_matter_and_what_is_no_image_is_said():
    for data, reason in ((b"", "empty"), (b"hello", "not an image"), (b"%PDF-1.7 ....", "not an image")):
        with pytest.raises(UnreadableImageError, match=reason):
            decode_image(data)


def test_a_bomb_is_refused_before_its_pixels_are_decoded():
    small = encode(Image.new("RGB", (300, 200)), "PNG")
    with pytest.raises(UnreadableImageError, match="decompression bomb: 300x200"):
        decode_image(small, max_pixels=59_999)
    assert decode_image(small, max_pixels=60_000).width == 300
    for file_format in ("PNG", "GIF"):
        bomb = encode(Image.new("1", (20_000, 20_000)), file_format)
        with pytest.raises(UnreadableImageError, match="decompression bomb: 20000x20000 is 400 megapixels"):
            decode_image(bomb)


def test_only_unreadable_image_errors_leave_the_decoder_whatever_the_bytes():
    rng, reasons = np.random.default_rng(7), []
    for file_format in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"):
        data = encode(picture("RGB", (40, 30)), file_format)
        for _ in range(60):
            mutated = bytearray(data)
            for place in rng.integers(0, len(data), rng.integers(1, 12)):
                mutated[place] = rng.integers(0, 256)
            try:
                decode_image(bytes(mutated), max_pixels=1_000_000)
            except UnreadableImageError as error:
                reasons.append(str(error))
    assert len(reasons) > 100
    assert not any(not reason or "object at 0x" in reason for reason in reasons)  # the same row in every run


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied_where_asked_for(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(picture("RGB"), "JPEG", exif=exif)
    whole = Image.open(io.BytesIO(data))
    assert np.array_equal(decode_image(data).pixels, np.asarray(whole))
    from PIL import ImageOps

    turned = decode_image(data, apply_exif_rotation=True).pixels
    assert np.array_equal(turned, np.asarray(ImageOps.exif_transpose(whole)))


def reference_crop(image, kind):
    width, height = image.size
    short = min(width, height)
    image = image.resize((int(224 * width / short), int(224 * height / short)), Image.Resampling.BICUBIC)
    left, top = image.width - 224, image.height - 224
    if kind == "openai":  # clip.py by way of torchvision
        left, top = round(left / 2.0), round(top / 2.0)
    else:
        left, top = left // 2, top // 2
    return np.asarray(image.crop((left, top, left + 224, top + 224)))


@pytest.mark.parametrize("kind", ["openai", "transformers"])
def test_the_model_input_is_what_pillow_makes_of_it(kind):
    for _ in range(30):
        width, height = RNG.integers(1, 700, 2)
        if max(width, height) / min(width, height) > 30:
            continue
        pixels = RNG.integers(0, 256, (height, width, 3), np.uint8)
        assert np.array_equal(preprocess(pixels, kind), reference_crop(Image.fromarray(pixels), kind)), (width, height)


def test_the_model_input_is_what_transformers_makes_of_it():
    transformers = pytest.importorskip("transformers")
    processor = transformers.CLIPImageProcessorPil()
    mean, std = (np.array(v, np.float32) for v in (processor.image_mean, processor.image_std))
    for _ in range(20):
        width, height = RNG.integers(60, 500, 2)
        pixels = RNG.integers(0, 256, (height, width, 3), np.uint8)
        values = np.asarray(processor(images=[pixels], return_tensors="np")["pixel_values"][0])
        expected = np.rint((values.transpose(1, 2, 0) * std + mean) * 255)
        assert np.array_equal(preprocess(pixels, "transformers"), expected), (width, height)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40_000), (40_000, 1), (2, 9000), (3, 1)])
def test_extreme_shapes_are_resized_in_bounded_memory(shape):
    pixels = np.full((*shape, 3), 200, np.uint8)
    assert np.array_equal(preprocess(pixels), np.full((224, 224, 3), 200, np.uint8))
