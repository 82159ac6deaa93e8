"""Encoded bytes to pixels: uint8 (H, W, 3), RGB, the same as Pillow's `Image.open(...).convert("RGB")`.

simplejpeg decodes JPEG: bit for bit what Pillow gives, without holding Python's lock, and it reports damage that
Pillow passes over. Pillow decodes everything else, and JPEGs of rare kinds that simplejpeg does not know; HEIC by
libheif, camera raws by LibRaw, where their extras are installed.
"""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from tastemaker.errors import ReasonKind, UnreadableImageError
from tastemaker.imaging.cameras import read_raw
from tastemaker.imaging.embedded import PILLOW_READERS, check_exif_segments, open_metadata, read_orientation, strip_png
from tastemaker.imaging.formats import RAW_FORMATS, name_format, sniff_format
from tastemaker.imaging.jpeg_pixels import decode_jpeg
from tastemaker.imaging.room import ROOM
from tastemaker.imaging.tiff_pixels import check_tiff, choose_page, is_wide, reduce_to_8_bits

MAX_IMAGE_PIXELS = 178_956_970
"""Pixels beyond which an image is taken for a decompression bomb (Pillow's own hard limit)."""

_UNSUPPORTED = re.compile(
    r"unknown (pixel mode|data organization|raw mode)|[Uu]nsupported|not( yet)? supported|not available|cannot handle|"
    r"samples per pixel"
)
"""What decoders say of whole files that they cannot read."""

_STRANGERS = (
    (
        rb"version https://git-lfs\.github\.com/spec/",
        "but a pointer of Git LFS: run `git lfs pull` to fetch the picture",
    ),
    (rb"\s*<(!doctype html|html)[\s>]", "but a web page: the picture was not at its address when it was downloaded"),
    (rb"\s*(<\?xml[^>]*>\s*)?<Error>", "but the error message of a store: download the picture again"),
)
"""What lies in the place of pictures that were not fetched: how it begins, and what to say of it."""

Pixels = npt.NDArray[np.uint8]

# Pillow says so where EXIF or TIFF tags are odd, many times for some files. It either matters not, or ends in an error.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """The pixels of one image.

    Attributes:
        pixels: uint8 (height, width, 3), RGB.
        format: Name of the encoding, by content: ``JPEG``, ``PNG``, ``WEBP``, ``GIF``, ``BMP``, ``TIFF``, ``AVIF``,
            ``HEIC``, ``HEIF``, or the kind of a raw: ``DNG``, ``CR2``, ``NEF``, ...
        source: Of a raw, whether these are the pixels of its ``preview`` or those it was ``developed`` to; else empty.
        orientation: How the pixels are still to be turned, as an EXIF orientation: 1 for upright ones, to 8.
        note: A sentence about what is odd with the file though its picture is whole; else empty.
    """

    pixels: Pixels
    format: str
    source: str = ""
    orientation: int = 1
    note: str = ""

    @property
    def width(self) -> int:
        """Columns, in pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Rows, in pixels."""
        return int(self.pixels.shape[0])


@ROOM.hold()
def decode_image(
    data: bytes | str | os.PathLike[str] | BinaryIO,
    *,
    max_pixels: int = MAX_IMAGE_PIXELS,
    apply_exif_rotation: bool = False,
    convert_profile: bool = False,
) -> DecodedImage:
    """Return the pixels of an encoded image.

    The format is told from the content. An alpha channel is dropped, a palette resolved, CMYK converted as Pillow
    does; grey of 16 bits, 32 bits and floats is scaled to 8 bits (`tastemaker.imaging.tiff_pixels`). Of an animation
    the first frame is taken.

    Args:
        data: The whole encoded file: its bytes, its path, or a file that is open in binary mode.
        max_pixels: Larger images are refused before their pixels are decoded.
        apply_exif_rotation: Turn the image as its EXIF orientation says. Off by default, as in the references.
            A raw's preview is turned as the raw's orientation says. TIFF and HEIC are always turned.
        convert_profile: Convert RGB with a colour profile to sRGB. Off by default, as in the references. The profile of
            a raw's preview is ignored; one that is damaged is ignored with a note.

    A very large image waits for those of other threads (see `tastemaker.imaging.room`).

    Raises:
        UnreadableImageError: The bytes are no image, a damaged or truncated one, or one above ``max_pixels``; or they
            need an extra that is not installed.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> file = io.BytesIO()
        >>> Image.new("L", (3, 2), color=128).save(file, "PNG")
        >>> image = decode_image(file.getvalue())
        >>> image.pixels.shape, image.format, int(image.pixels[0, 0, 0])
        ((2, 3, 3), 'PNG', 128)
    """
    data = _read(data)
    if not data:
        raise UnreadableImageError("the file is empty", ReasonKind.NOT_AN_IMAGE)
    name = sniff_format(data)
    if name is None:
        raise UnreadableImageError(f"not an image {_name_stranger(bytes(data[:512]))}", ReasonKind.NOT_AN_IMAGE)
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > 2 * Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = (max_pixels + 1) // 2  # WebP is refused above twice this, a limit of the process
    try:
        name = name_format(data) or name
        image = _decode(data, name, lambda width, height: _make_room(width, height, max_pixels))
    except UnreadableImageError:
        raise
    except Exception as error:
        raise _refuse(name, error) from error
    if convert_profile and name in PILLOW_READERS:
        image = _convert(image, data)
    if not apply_exif_rotation:
        return image
    return replace(image, pixels=_turn(image.pixels, image.orientation), orientation=1)


def _name_stranger(head: bytes) -> str:
    """Return what a file is that is called like a picture, by its first bytes, and what helps."""
    begins = f"in a known format (it starts with {head[:8]!r})"
    return next((what for pattern, what in _STRANGERS if re.match(pattern, head, re.IGNORECASE)), begins)


def _read(given: bytes | str | os.PathLike[str] | BinaryIO) -> bytes:
    if isinstance(given, bytes | bytearray | memoryview):
        return given
    if isinstance(given, str | os.PathLike):
        with open(given, "rb") as file:
            return file.read()
    data = given.read() if hasattr(given, "read") else None
    if not isinstance(data, bytes):
        raise TypeError(f"decode_image takes bytes, a path or a file open in binary mode, not {type(given).__name__}")
    return data


def _decode(data: bytes, name: str, make_room: Callable[[int, int], None]) -> DecodedImage:
    if name in RAW_FORMATS:
        pixels, source, orientation = read_raw(
            data, name, make_room, lambda preview: _decode_plain(preview, "JPEG", make_room)[0]
        )
        return DecodedImage(pixels, name, source, orientation)
    pixels, note = _decode_plain(data, name, make_room)
    return DecodedImage(pixels, name, "", read_orientation(data, name), note)


def _decode_plain(data: bytes, name: str, make_room: Callable[[int, int], None]) -> tuple[Pixels, str]:
    """Return the pixels of anything but a raw, as stored, and a note or nothing."""
    if name == "JPEG" and (decoded := decode_jpeg(data, make_room)) is not None:
        return decoded
    if name == "JPEG":
        check_exif_segments(data)
    note = ""
    if name == "PNG":
        data, note = strip_png(data)
    image = PILLOW_READERS[name](io.BytesIO(data))
    if name == "TIFF":
        choose_page(image)
        check_tiff(image)
    make_room(image.width, image.height)
    image.load()
    return np.asarray(_to_rgb(image)), note


def _refuse(name: str, error: Exception) -> UnreadableImageError:
    """Return why an image is not decoded, for whatever a decoder raised."""
    if isinstance(error, Image.DecompressionBombError):  # some readers check by themselves, before we can
        return UnreadableImageError(f"decompression bomb: {error}", ReasonKind.TOO_LARGE)
    if isinstance(error, MemoryError):
        return UnreadableImageError("too large for the memory of this machine", ReasonKind.TOO_LARGE)
    cause = str(error)
    if not isinstance(error, OSError | SyntaxError | ValueError) or not cause:
        cause = f"{type(error).__name__} {cause}".rstrip()
    if name == "TIFF" and cause.isdecimal():  # of a KeyError: what Pillow does not know
        cause = f"compression {cause} is not supported"
    if _UNSUPPORTED.search(cause):
        return UnreadableImageError(f"{name} of a kind that is not read: {cause}", ReasonKind.UNSUPPORTED)
    return UnreadableImageError(f"damaged or truncated {name}: {cause}")


def _to_rgb(image: Image.Image) -> Image.Image:
    if is_wide(image):
        image = reduce_to_8_bits(image)
    if image.mode == "P":
        image.info.pop("transparency", None)  # of no use to RGB, and Pillow would warn
    return image if image.mode == "RGB" else image.convert("RGB")


def _convert(image: DecodedImage, data: bytes) -> DecodedImage:
    """Return the image in sRGB, by LittleCMS with the perceptual intent, where it has a profile of RGB."""
    try:
        profile = open_metadata(data, image.format).info.get("icc_profile")
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile)) if profile else None
        if source is None or source.profile.xcolor_space.strip() != "RGB":
            return image
        converted = ImageCms.profileToProfile(Image.fromarray(image.pixels), source, ImageCms.createProfile("sRGB"))
        return image if converted is None else replace(image, pixels=np.asarray(converted))
    except Exception:  # noqa: BLE001 - the pixels are sound, whatever the profile is
        return replace(image, note=image.note or "its colour profile is damaged, and was ignored")


def _turn(pixels: Pixels, orientation: int) -> Pixels:
    """Return the pixels upright. Orientation 2 to 4 are mirrored or upside down, 5 to 8 are transposed as well."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _make_room(width: int, height: int, max_pixels: int) -> None:
    """Wait until there is memory for an image, or raise where it has too many pixels."""
    if width * height > max_pixels:
        raise UnreadableImageError(
            f"decompression bomb: {width}x{height} is {width * height / 1e6:,.0f} megapixels, "
            f"the limit is {max_pixels / 1e6:,.0f} (--max-megapixels, max_pixels)",
            ReasonKind.TOO_LARGE,
            (width, height),
        )
    ROOM.take(width * height)
