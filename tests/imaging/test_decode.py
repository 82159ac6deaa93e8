"""What `decode_image` takes, what it refuses, and that nothing else ever leaves it."""

import io
import pickle
import random
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import skimage
from conftest import encode
from fuzzing import damage
from peak import PEAK, reads_peak
from PIL import Image, ImageCms, ImageOps

from tastemaker.errors import UnreadableImageError
from tastemaker.imaging.decode import decode_image

SMALL = (61, 43)


@cache
def photograph(size=SMALL):
    path = Path(skimage.__file__).parent / "data" / "astronaut.png"
    return Image.open(path).convert("RGB").resize(size, Image.Resampling.BICUBIC)


def in_mode(mode):
    image = photograph()
    if mode in ("RGBA", "LA"):
        alpha = Image.fromarray(np.tile(np.arange(SMALL[0], dtype=np.uint8) * 4, (SMALL[1], 1)))
        image = Image.merge(mode, (*image.convert(mode[:-1]).split(), alpha))
    return image.quantize(64) if mode == "P" else image.convert(mode)


def deep(dtype=np.uint16):
    return np.asarray(in_mode("L")).astype(dtype) * 256 + 3


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, scanlines, *, bits=8, colour=2, interlace=0):
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace)
    body = zlib.compress(scanlines, 9)
    parts = [chunk(b"IDAT", body[at : at + 1000]) for at in range(0, len(body), 1000)]
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(parts) + chunk(b"IEND", b"")


def twelve_bit_tiff(values):
    """A grey TIFF of one row, an even number of values, 12 bits each."""
    body = b"".join((a << 12 | b).to_bytes(3, "big") for a, b in zip(values[::2], values[1::2], strict=True))
    tags = ((256, len(values)), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, len(body)))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return struct.pack("<2sHI", b"II", 42, 8 + len(body)) + body + struct.pack("<H", len(tags)) + entries + bytes(4)


def adobe_ycck(**options):
    """CMYK data that says it is YCCK, as Photoshop writes it: other colours, but a sound file."""
    data = encode(in_mode("CMYK"), "JPEG", **options)
    at = data.index(b"Adobe") + 11
    return data[:at] + b"\x02" + data[at + 1 :]


def animated(mode="RGB"):
    return {"save_all": True, "append_images": [in_mode(mode).rotate(90)]}


KINDS = {
    **{f"jpeg {mode}": lambda mode=mode: encode(in_mode(mode), "JPEG") for mode in ("RGB", "L", "CMYK")},
    **{f"jpeg subsampled {n}": lambda n=n: encode(in_mode("RGB"), "JPEG", subsampling=n) for n in range(3)},
    **{f"jpeg progressive {m}": lambda m=m: encode(in_mode(m), "JPEG", progressive=True) for m in ("RGB", "L", "CMYK")},
    "jpeg subsampled CMYK": lambda: encode(in_mode("CMYK"), "JPEG", subsampling=2),
    "jpeg of RGB components": lambda: encode(in_mode("RGB"), "JPEG", keep_rgb=True),
    "jpeg with restart markers": lambda: encode(in_mode("RGB"), "JPEG", restart_marker_blocks=2),
    "jpeg Adobe YCCK": adobe_ycck,
    "jpeg Adobe YCCK progressive": lambda: adobe_ycck(progressive=True),
    "jpeg MPO": lambda: encode(in_mode("RGB"), "MPO", **animated()),
    **{f"png {m}": lambda m=m: encode(in_mode(m), "PNG") for m in ("RGB", "RGBA", "L", "LA", "P", "1")},
    "png palette with alpha": lambda: encode(in_mode("P"), "PNG", transparency=bytes(range(64))),
    "png RGB with a transparent colour": lambda: encode(in_mode("RGB"), "PNG", transparency=(1, 2, 3)),
    "png animated": lambda: encode(in_mode("RGB"), "PNG", **animated()),
    "webp": lambda: encode(in_mode("RGB"), "WEBP"),
    "webp lossless": lambda: encode(in_mode("RGB"), "WEBP", lossless=True),
    "webp RGBA": lambda: encode(in_mode("RGBA"), "WEBP"),
    "webp animated": lambda: encode(in_mode("RGB"), "WEBP", **animated()),
    **{f"gif {mode}": lambda mode=mode: encode(in_mode(mode), "GIF") for mode in ("P", "L", "1")},
    "gif interlaced": lambda: encode(in_mode("P"), "GIF", interlace=1),
    "gif transparent": lambda: encode(in_mode("P"), "GIF", transparency=4),
    "gif animated": lambda: encode(in_mode("P"), "GIF", **animated("P")),
    **{f"bmp {mode}": lambda mode=mode: encode(in_mode(mode), "BMP") for mode in ("RGB", "RGBA", "L", "P", "1")},
    **{f"tiff {m}": lambda m=m: encode(in_mode(m), "TIFF") for m in ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK")},
    **{
        f"tiff {name}": lambda name=name: encode(in_mode("RGB"), "TIFF", compression=name)
        for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma")
    },
    "tiff fax": lambda: encode(in_mode("1"), "TIFF", compression="group4"),
    "tiff big": lambda: encode(in_mode("RGB"), "TIFF", big_tiff=True),
    "tiff pages": lambda: encode(in_mode("RGB"), "TIFF", **animated()),
    "tiff of 32-bit integers": lambda: encode(np.asarray(in_mode("L")).astype(np.int32), "TIFF"),
    "tiff of floats": lambda: encode(np.asarray(in_mode("L")).astype(np.float32), "TIFF"),
    "avif": lambda: encode(in_mode("RGB"), "AVIF"),
    "avif RGBA": lambda: encode(in_mode("RGBA"), "AVIF"),
    "avif animated": lambda: encode(in_mode("RGB"), "AVIF", **animated()),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


@cache
def sample(kind):
    return KINDS[kind]()


def pillows(data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def outcome(data, **options):
    """The pixels, or the reason why there are none."""
    try:
        return decode_image(data, **options).pixels
    except UnreadableImageError as error:
        reason = str(error)
    assert reason
    assert "object at 0x" not in reason, "it would differ from run to run"
    return reason


@each_kind
def test_pixels_are_those_of_pillow_and_nothing_is_warned_of(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = decode_image(sample(kind))
    assert image.format == kind.split()[0].upper()
    assert image.pixels.dtype == np.uint8
    assert (image.width, image.height) == SMALL
    assert np.array_equal(image.pixels, pillows(sample(kind)))


@pytest.mark.filterwarnings("ignore:::PIL")
@each_kind
def test_a_cut_file_is_refused_or_gives_the_pixels_of_the_whole_one(kind):
    data = sample(kind)
    whole = decode_image(data).pixels
    for cut in {*range(0, len(data), max(len(data) // 60, 1)), *range(max(len(data) - 30, 0), len(data))}:
        result = outcome(data[:cut])
        assert isinstance(result, str) or np.array_equal(result, whole), f"cut to {cut} of {len(data)} bytes"


@pytest.mark.parametrize("data", [deep(), deep().astype(">u2")], ids=["little-endian", "big-endian"])
@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_12_and_16_bit_grey_are_scaled_to_8_bits_where_pillow_clips_it(data, file_format):
    encoded = encode(data, file_format)
    assert np.array_equal(decode_image(encoded).pixels[..., 0], np.asarray(in_mode("L")))
    assert (pillows(encoded) == 255).mean() > 0.5
    assert decode_image(twelve_bit_tiff([0, 16, 2048, 4095])).pixels[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("side", [1, 2, 60_000])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "BMP", "TIFF"])
def test_pictures_of_one_pixel_and_of_extreme_ratio_are_decoded(file_format, side):
    for size in ((1, side), (side, 1)):
        data = encode(Image.linear_gradient("L").resize(size), file_format)
        assert np.array_equal(decode_image(data).pixels, pillows(data))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"a text that is called photo.jpg", "not an image in a known format"),
        (b"BMW drivers, a text", "not an image in a known format"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n", "run `git lfs pull`"),
        (b"\n<!DOCTYPE html><html><body>404 Not Found</body></html>", "not an image but a web page"),
        (b"<html><body>404 Not Found</body></html>", "not an image but a web page"),
        (b"<?xml version='1.0'?>\n<Error><Code>AccessDenied</Code></Error>", "the error message of a store"),
        (b"%PDF-1.7", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "not an image"),
        (b"\0\0\0\x1cftypqt  ", "not an image"),
        (b"\0\0\0\x1cftypheic", "damaged or truncated HEIC"),
        (b"\xff\xd8\xff", "damaged or truncated JPEG"),
        (b"\x89PNG\r\n\x1a\n", "damaged or truncated PNG"),
        (b"II*\0\x08\0\0\0", "damaged or truncated TIFF"),
    ],
)
@pytest.mark.filterwarnings("ignore:::PIL")
def test_what_is_no_image_is_refused_with_a_clear_reason(data, reason):
    assert reason in outcome(data)


# JPEG: libjpeg warns of harmless things and of lost data alike.


def with_jfif_version(data, major):
    at = data.index(b"JFIF\0") + 5
    return data[:at] + bytes([major]) + data[at + 1 :]


def with_gap(data):
    at = 4 + int.from_bytes(data[4:6])  # behind the first segment
    return data[:at] + b"gap" + data[at:]


def with_wrong_scan_parameters(data):
    at = data.index(b"\xff\xda")
    at += 5 + 2 * data[at + 4]  # behind its components
    return data[:at] + b"\0\0\0" + data[at + 3 :]


def with_padding(data, padding):
    return data[:-2] + padding + data[-2:]


HARMLESS = {
    "wrong parameters of its scan": with_wrong_scan_parameters,
    "trailing bytes": lambda data: data + b"trailing bytes" * 99,
    "zeros before the end marker": lambda data: with_padding(data, bytes(5000)),
    "fill bytes before the end marker": lambda data: with_padding(data, b"\xff" * 500),
    "a JFIF version to come, zeros, gaps and trailing bytes": lambda data: (
        with_padding(with_gap(with_jfif_version(data, 2)), bytes(500)) + b"more"
    ),
}


@pytest.mark.parametrize("oddity", HARMLESS)
@pytest.mark.parametrize(
    "kind", ["jpeg RGB", "jpeg L", "jpeg CMYK", "jpeg progressive RGB", "jpeg with restart markers"]
)
def test_an_odd_jpeg_of_which_nothing_is_missing_is_decoded(kind, oddity):
    data = sample(kind)
    if ("JFIF" in oddity and b"JFIF" not in data) or ("scan" in oddity and "progressive" in kind):
        pytest.skip("CMYK has no JFIF segment, and a progressive scan needs its parameters")
    odd = HARMLESS[oddity](data)
    assert np.array_equal(decode_image(odd).pixels, decode_image(data).pixels)


def cut_and_closed(data):
    return data[: len(data) * 3 // 4] + b"\xff\xd9"


def with_hole(data):
    at = len(data) * 3 // 4
    return data[:at] + bytes(len(data) - at - 2) + data[-2:]


UNENDED = {
    "without its end mark": lambda data: data[:-2],
    "with half of its end mark": lambda data: data[:-1],
    "with zeros in place of its end mark": lambda data: data[:-2] + bytes(2000),
    "odd, and without its end mark": lambda data: with_gap(data)[:-2],
}


@pytest.mark.parametrize("oddity", UNENDED)
@pytest.mark.parametrize(
    "kind", ["jpeg RGB", "jpeg L", "jpeg CMYK", "jpeg progressive RGB", "jpeg with restart markers"]
)
def test_a_jpeg_that_lacks_its_end_mark_only_is_decoded_with_a_note(kind, oddity):
    whole, unended = decode_image(sample(kind)), decode_image(UNENDED[oddity](sample(kind)))
    assert np.array_equal(unended.pixels, whole.pixels)
    assert (whole.note, unended.note) == ("", "the JPEG lacks its end mark, and nothing else")


def test_a_progressive_jpeg_that_ends_between_two_scans_is_refused():
    data = sample("jpeg progressive RGB")
    starts = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
    tables = [data.rindex(b"\xff\xc4", 0, start) for start in starts]  # a scan's own, in front of it
    assert len(tables) > 5
    for cut in [*starts[1:], *tables[1:]]:
        assert str(outcome(data[:cut])).startswith("damaged or truncated JPEG: "), cut


LOSSES = {
    "cut by its last byte of coded data": lambda data: data[:-3],
    "cut, then closed": cut_and_closed,
    "cut, then filled with zeros": lambda data: data[: len(data) // 2].ljust(len(data), b"\0"),
    "with a hole of zeros up to its end marker": with_hole,
    "with other bytes before its end marker": lambda data: with_padding(data, b"coded data that nobody asked for"),
    "odd, and cut": lambda data: cut_and_closed(with_jfif_version(data, 2)),
    "odd, and with a hole": lambda data: with_hole(with_gap(data)),
    "with wrong scan parameters, and cut": lambda data: cut_and_closed(with_wrong_scan_parameters(data)),
    "with an unknown marker": lambda data: data[: len(data) // 2] + b"\xff\x01\xff\xbb" + data[len(data) // 2 :],
}


@pytest.mark.parametrize("rotation", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_jpeg_that_lacks_data_is_refused(loss, rotation):
    result = outcome(LOSSES[loss](sample("jpeg RGB")), apply_exif_rotation=rotation)
    assert isinstance(result, str)
    assert result.startswith("damaged or truncated JPEG: ")


def test_a_png_with_a_flipped_bit_in_its_pixels_is_refused():
    data = sample("png RGB")
    at = data.index(b"IDAT") + 500
    assert outcome(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]) == "damaged PNG: wrong checksum of chunk IDAT"


def with_chunk(data, kind, body, *, damaged=False):
    """The PNG with another chunk behind its header."""
    more = chunk(kind, body)
    return data[:33] + (more[:-1] + bytes([more[-1] ^ 1]) if damaged else more) + data[33:]


BESIDE = {
    "a large profile": (b"iCCP", b"icc\0\0" + zlib.compress(bytes(3 << 20))),
    "a large compressed text": (b"zTXt", b"workflow\0\0" + zlib.compress(b"node " * 400_000)),
    "a large international text": (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"<x/> " * 400_000)),
    "a large text": (b"tEXt", b"workflow\0" + b"n" * 3_000_000),
    "an empty sRGB": (b"sRGB", b""),
    "a short pHYs": (b"pHYs", b"\0\0"),
    "EXIF that is none": (b"eXIf", b"garbage"),
    "an animation that is none": (b"acTL", b""),
}


@pytest.mark.parametrize("damaged", [False, True], ids=["right checksum", "wrong checksum"])
@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("kind", ["png RGB", "png P", "png LA"])
def test_a_chunk_beside_the_pixels_of_a_png_costs_them_nothing(kind, beside, damaged):
    data = with_chunk(sample(kind), *BESIDE[beside], damaged=damaged)
    found = decode_image(data, apply_exif_rotation=True)
    assert np.array_equal(found.pixels, decode_image(sample(kind)).pixels)
    assert found.note == ""


def test_a_png_that_lacks_its_end_mark_only_is_decoded_with_a_note():
    data = sample("png RGB")
    found = decode_image(data[:-12])
    assert np.array_equal(found.pixels, decode_image(data).pixels)
    assert found.note == "the PNG lacks its end mark, and nothing else"


# Bombs.


def patched(data, at, size, layout):
    return data[:at] + struct.pack(layout, size, size) + data[at + struct.calcsize(layout) :]


def bombs():
    """Format -> a small file of an enormous picture."""
    jpeg, tiff = sample("jpeg RGB"), sample("tiff RGB")
    for tag in (256, 257):
        at = tiff.index(struct.pack("<H", tag), 8)
        tiff = tiff[:at] + struct.pack("<HHII", tag, 4, 1, 60_000) + tiff[at + 12 :]
    canvas = (16_382).to_bytes(3, "little")
    webp = sample("webp RGBA")
    return {
        "jpeg": patched(jpeg, jpeg.index(b"\xff\xc0") + 5, 60_000, ">HH"),
        "png": png(60_000, 60_000, bytes(10**6)),
        "gif": patched(sample("gif P"), 6, 60_000, "<HH"),
        "bmp": patched(sample("bmp RGB"), 18, 60_000, "<ii"),
        "tiff": tiff,
        "webp": webp[:24] + canvas * 2 + webp[30:],
    }


@reads_peak
def test_a_bomb_is_refused_before_its_pixels_are_allocated():
    script = PEAK + (
        "import sys, pickle; from tastemaker.imaging.decode import decode_image\n"
        "files = pickle.load(sys.stdin.buffer)\n"
        "before = peak()\n"
        "for name, data in files.items():\n"
        "    try: decode_image(data)\n"
        "    except Exception as error: print(name, error)\n"
        "print(peak() - before)"
    )
    run = subprocess.run([sys.executable, "-c", script], input=pickle.dumps(bombs()), capture_output=True, check=True)
    *refusals, kilobytes = run.stdout.decode().splitlines()
    assert len(refusals) == 6
    assert all("decompression bomb: " in refusal for refusal in refusals), refusals
    assert int(kilobytes) < 30_000
    assert run.stderr == b""


@pytest.mark.parametrize("kind", ["jpeg RGB", "png RGB", "webp", "gif P", "bmp RGB", "tiff RGB", "avif"])
def test_the_limit_of_pixels_can_be_lowered(kind):
    pixels = SMALL[0] * SMALL[1]
    assert decode_image(sample(kind), max_pixels=pixels).width == SMALL[0]
    assert f"decompression bomb: {SMALL[0]}x{SMALL[1]}" in outcome(sample(kind), max_pixels=pixels - 1)


@pytest.mark.parametrize("kind", ["jpeg RGB", "png RGB", "webp", "gif P", "bmp RGB", "tiff RGB", "avif"])
def test_a_limit_above_the_one_of_the_process_holds(kind, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode_image(sample(kind)).width == SMALL[0]


# EXIF.


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(10))
def test_exif_rotation_is_applied_only_where_asked_for(file_format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(photograph(), file_format, exif=exif)
    turned = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert np.array_equal(decode_image(data).pixels, pillows(data))
    assert np.array_equal(decode_image(data, apply_exif_rotation=True).pixels, turned)


def test_the_orientation_of_a_jpeg_may_stand_in_its_xmp_alone():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="8"/></x:xmpmeta>'
    data = encode(photograph(), "JPEG", xmp=xmp)
    assert Image.open(io.BytesIO(data)).getexif()[0x0112] == 8
    assert decode_image(data).orientation == 8


@pytest.mark.parametrize(
    "key", ["XML:com.adobe.xmp", "Raw profile type exif", "Comment"], ids=["xmp", "raw profile", "neither"]
)
def test_a_png_is_turned_as_pillow_turns_it_wherever_its_orientation_is(key):
    from PIL import PngImagePlugin

    text = PngImagePlugin.PngInfo()
    profile = "\nexif\n" + f"{len(exif_of(6).tobytes())}\n" + exif_of(6).tobytes().hex()
    text.add_itxt(key, profile if "profile" in key else '<x tiff:Orientation="6"/>', zip=False)
    data = encode(photograph(), "PNG", pnginfo=text)
    turned = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert np.array_equal(decode_image(data, apply_exif_rotation=True).pixels, turned)
    assert (turned.shape[1::-1] == photograph().size) == (key == "Comment")


def exif_of(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.parametrize("file_format", ["JPEG", "WEBP", "PNG"])
def test_damaged_exif_costs_no_picture(file_format):
    data = encode(photograph(), file_format, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert np.array_equal(decode_image(data, apply_exif_rotation=True).pixels, pillows(data))


# Colour profiles.


def profile_of(swapped=False):
    """sRGB's profile; or one that takes red for green, and green for red."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for old, new in ((b"rXYZ", b"swap"), (b"gXYZ", b"rXYZ"), (b"swap", b"gXYZ")) if swapped else ():
        profile = profile.replace(old, new)
    return profile


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_a_colour_profile_is_applied_only_where_asked_for(file_format):
    lossless = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}, "AVIF": {"quality": 100}}
    options = lossless.get(file_format, {})
    data = encode(photograph(), file_format, icc_profile=profile_of(swapped=True), **options)
    assert np.array_equal(decode_image(data).pixels, pillows(data))
    converted = decode_image(data, convert_profile=True)
    assert np.abs(converted.pixels[..., [1, 0, 2]].astype(int) - pillows(data)).max() <= 2
    assert converted.note == ""
    long = encode(photograph(), file_format, icc_profile=profile_of(swapped=True) + bytes(70_000), **options)
    assert file_format != "JPEG" or long.count(b"ICC_PROFILE") == 2  # it is in several segments
    assert np.array_equal(decode_image(long, convert_profile=True).pixels, converted.pixels)
    plain = encode(photograph(), file_format, icc_profile=profile_of(), **options)
    assert np.abs(decode_image(plain, convert_profile=True).pixels.astype(int) - pillows(plain)).max() <= 2


def test_a_damaged_profile_is_a_note_and_one_of_another_colour_space_is_ignored():
    damaged = decode_image(encode(photograph(), "JPEG", icc_profile=b"no profile"), convert_profile=True)
    assert damaged.note == "its colour profile is damaged, and was ignored"
    assert np.array_equal(damaged.pixels, pillows(encode(photograph(), "JPEG")))
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert np.array_equal(
        decode_image(encode(photograph(), "PNG", icc_profile=lab), convert_profile=True).pixels,
        np.asarray(photograph()),
    )


# Whatever comes.


def test_damaged_files_raise_no_storm_of_warnings():
    script = (
        "import sys, pickle; from tastemaker.imaging.decode import decode_image\n"
        "for data in pickle.load(sys.stdin.buffer):\n"
        "    try: decode_image(data, max_pixels=10**6, apply_exif_rotation=True)\n"
        "    except Exception: pass"
    )
    rng = random.Random(0)
    files = [
        damage(sample(kind), [sample(kind)], rng)
        for kind in ("tiff RGB", "jpeg MPO", "webp", "png P")
        for _ in range(100)
    ]
    run = subprocess.run([sys.executable, "-c", script], input=pickle.dumps(files), capture_output=True, check=True)
    assert b"Warning" not in run.stderr


def test_eight_threads_decode_as_one_does():
    rng = random.Random(3)
    files = [sample(kind) for kind in KINDS] + [
        damage(sample(kind), [sample(kind)], rng) for kind in KINDS if kind[:4] != "tiff"
    ]
    files = files * 4
    alone = [outcome(data, max_pixels=10**6) for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: outcome(data, max_pixels=10**6), files))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


def test_a_jpeg_of_too_many_scans_is_refused_before_it_is_decoded():
    data = encode(photograph(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    with pytest.raises(UnreadableImageError, match="decompression bomb: 1,010 scans, the limit is 100"):
        decode_image(data[:last] + 1000 * data[last:-2] + data[last:])
    with_film = data + b"\xff\xda\0\x08" * 1000  # behind the end mark
    assert np.array_equal(decode_image(with_film).pixels, decode_image(data).pixels)


def test_a_jpeg_of_very_many_exif_segments_does_not_keep_pillow_busy():
    data = encode(photograph(), "JPEG", exif=exif_of(6))
    size = int.from_bytes(data[22:24]) + 2  # of the segment behind JFIF's
    assert data[24:30] == b"Exif\0\0"
    many = data[:20] + data[20 : 20 + size] * 65 + data[20 + size :]
    assert (decode_image(data).orientation, decode_image(many).orientation) == (6, 6)
    assert np.array_equal(decode_image(many).pixels, decode_image(data).pixels)
    rare = many.replace(b"\xff\xc0\0\x11", b"\xff\xc8\0\x11")  # a kind that simplejpeg does not know
    with pytest.raises(UnreadableImageError, match="decompression bomb: 65 EXIF segments"):
        decode_image(rare)
