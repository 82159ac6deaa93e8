"""Encoded bytes to pixels: uint8 (H, W, 3), RGB, the same as Pillow's `Image.open(...).convert("RGB")`.

simplejpeg decodes JPEG (bit for bit what Pillow gives, without holding Python's lock, and it reports damage that
Pillow passes over); Pillow decodes everything else and the JPEGs that simplejpeg refuses, CMYK above all.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageOps

from tastemaker.errors import UnreadableImageError

MAX_IMAGE_PIXELS = 178_956_970
"""Pixels beyond which an image is taken for a decompression bomb (Pillow's own hard limit)."""

PILLOW_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""What Pillow may decode. Its other plug-ins are old formats, some of which start other programs."""

EXTENSIONS = frozenset({"jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "dib", "tif", "tiff", "avif"})
"""File extensions, lower case, that mark a file or a tar member as an image."""

_HARMLESS_EXTRANEOUS_BYTES = 64
"""libjpeg's "extraneous bytes before marker": a few are padding that cameras write, many are lost image data."""

_DATA_LOSS = re.compile(r"premature end|bad huffman|bad arithmetic|instead of rst", re.IGNORECASE)
_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes")

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """The pixels of one image.

    Attributes:
        pixels: uint8 (height, width, 3), RGB.
        format: Name of the encoding, by content: ``JPEG``, ``PNG``, ``WEBP``, ``GIF``, ``BMP``, ``TIFF`` or ``AVIF``.
    """

    pixels: Pixels
    format: str

    @property
    def width(self) -> int:
        """Columns, in pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Rows, in pixels."""
        return int(self.pixels.shape[0])


def decode_image(data: bytes, *, max_pixels: int = MAX_IMAGE_PIXELS, apply_exif_rotation: bool = False) -> DecodedImage:
    """Return the pixels of an encoded image.

    The format is told from the content. An alpha channel is dropped, a palette resolved, CMYK converted as Pillow
    does; 16-bit grey is scaled to 8 bits. Of an animation the first frame is taken.

    Args:
        data: The whole encoded file.
        max_pixels: Larger images are refused before their pixels are decoded.
        apply_exif_rotation: Turn the image as its EXIF orientation says. Off by default, as in the references.

    Raises:
        UnreadableImageError: The bytes are no image, a damaged or truncated one, or one above ``max_pixels``.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> file = io.BytesIO()
        >>> Image.new("L", (3, 2), color=128).save(file, "PNG")
        >>> image = decode_image(file.getvalue())
        >>> image.pixels.shape, image.format, int(image.pixels[0, 0, 0])
        ((2, 3, 3), 'PNG', 128)
    """
    if not data:
        raise UnreadableImageError("the file is empty")
    name = sniff_format(data)
    if name is None:
        raise UnreadableImageError(f"not an image in a known format (it starts with {bytes(data[:8])!r})")
    pixels = _decode_jpeg(data, max_pixels) if name == "JPEG" and not apply_exif_rotation else None
    if pixels is None:
        pixels = _decode_with_pillow(data, max_pixels, apply_exif_rotation)
    return DecodedImage(pixels, name)


def sniff_format(head: bytes) -> str | None:
    """Return the format of an encoded image from its first 32 bytes, None for anything else.

    Example:
        >>> sniff_format(b"GIF89a...")
        'GIF'
    """
    if head[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if head[:2] == b"BM":
        return "BMP"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if head[4:8] == b"ftyp" and (b"avif" in head[8:32] or b"avis" in head[8:32]):
        return "AVIF"
    return None


def _decode_jpeg(data: bytes, max_pixels: int) -> Pixels | None:
    """Return RGB pixels, or None for a sound JPEG that only Pillow can convert."""
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None  # a rare kind, or damaged: Pillow decides
    _check_size(width, height, max_pixels)
    is_cmyk = colorspace in ("CMYK", "YCCK")
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, colorspace="CMYK" if is_cmyk else "RGB", strict=True)
    except ValueError as error:
        _raise_if_data_is_lost(str(error))
        return None
    return None if is_cmyk else pixels


def _raise_if_data_is_lost(message: str) -> None:
    extraneous = _EXTRANEOUS.search(message)
    if _DATA_LOSS.search(message) or (extraneous and int(extraneous[1]) > _HARMLESS_EXTRANEOUS_BYTES):
        raise UnreadableImageError(f"damaged or truncated JPEG: {message}")


def _decode_with_pillow(data: bytes, max_pixels: int, apply_exif_rotation: bool) -> Pixels:
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > 2 * Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels // 2  # Pillow refuses above twice this; the limit is the process's own
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=PILLOW_FORMATS)
        _check_size(image.width, image.height, max_pixels)
        image.load()
        if apply_exif_rotation:
            image = ImageOps.exif_transpose(image)
        return np.asarray(_to_rgb(image))
    except UnreadableImageError:
        raise
    except Exception as error:
        raise UnreadableImageError(str(error) or type(error).__name__) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # The high byte, as Pillow itself reduces 16-bit colour. `convert` would clip everything above 255 to white.
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise UnreadableImageError(
            f"decompression bomb: {width}x{height} is {width * height / 1e6:,.0f} megapixels, "
            f"the limit is {max_pixels / 1e6:,.0f}"
        )
