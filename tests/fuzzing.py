"""Damaged files by the million, read in child processes as a run reads them; used by a test and by benchmarks/fuzz.py.

A child notes the number of each file in a shared page before it reads it, so that a file that kills the child or keeps
it busy is known, and another child goes on behind it. The same seed makes the same files.
"""

import bz2
import contextlib
import gzip
import io
import json
import lzma
import mmap
import os
import random
import resource
import signal
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pillow_heif
import pyarrow as pa
import pyarrow.parquet as pq
from camera_files import make_dng
from conftest import encode
from PIL import Image, ImageCms, UnidentifiedImageError
from PIL.TiffImagePlugin import IFDRational

from tastemaker.embeddings.find import EmbeddingFile
from tastemaker.errors import MetadataError, TastemakerError, UnreadableImageError
from tastemaker.imaging.decode import decode_image
from tastemaker.imaging.embedded import Embedded, find_rating, read_embedded
from tastemaker.imaging.folders import FolderReader
from tastemaker.imaging.jpeg_metadata import embed_rating
from tastemaker.imaging.shards import read_samples
from tastemaker.imaging.xmp import belongs_to, make_xmp, set_rating
from tastemaker.scores.schema import make_table, rows_schema
from tastemaker.tasks import ImageObject

HANG_S, MEMORY_MB = 30, 2048
SMALL_PIXELS, FULL_PIXELS = 2_000_000, 178_956_970
"""Most files may have the first number of pixels, which is fast; one in fifty what a run allows."""


@dataclass
class Report:
    """What became of the files of one kind.

    Attributes:
        files: How many were read.
        came_out: Those of which came a picture, a sample, a rating or rows.
        seconds: That it took.
        peak_mb: Memory of the child at its peak, with what the kinds before took.
        problems: What must not be -> numbers of the files with which it was: a death, a hang, an error that was not
            expected, too much memory, or a picture that the reference decoder refuses.
    """

    files: int = 0
    came_out: int = 0
    seconds: float = 0.0
    peak_mb: int = 0
    problems: dict[str, list[int]] = field(default_factory=dict)


# The files that are damaged.


@cache
def picture(mode="RGB", size=(61, 43)):
    y, x = np.mgrid[: size[1], : size[0]]
    ramp = np.stack([x * 4, y * 5, (x * y) % 251], axis=2).astype(np.uint8)
    return Image.fromarray(ramp).convert(mode)


def encoded(file_format, mode="RGB", **options):
    return encode(picture(mode), file_format, **options)


def animated(mode="RGB"):
    return {"save_all": True, "append_images": [picture(mode).rotate(90)]}


def exif():
    tags = Image.Exif()
    tags[0x0112], tags[0x4746], tags[0x010F] = 6, 3, "Maker"
    tags.get_ifd(0x8769).update({0x9003: "2026:01:01 00:00:00", 0x9291: "12", 0x829A: IFDRational(1, 60), 0x8827: 400})
    tags.get_ifd(0x8825).update({2: (IFDRational(47), 0, 0), 4: (IFDRational(8), 0, 0)})
    return tags


def profile(space="sRGB"):
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(space)).tobytes()


def heic(mode="RGB", **options):
    file = io.BytesIO()
    pillow_heif.from_pillow(picture(mode)).save(file, **options)
    return file.getvalue()


XMP = make_xmp(4)
XMP_ELEMENT = XMP.decode().replace('xmp:Rating="4"/>', "><xmp:Rating>4</xmp:Rating></rdf:Description>")
RECORDS = (
    {"file_name": "a.jpg", "text": "K\u00e4fer \ud83d\ude00", "n": [1, None]},
    {"file_name": "b.jpg", "text": "a cat"},
)


def tar(tar_format=tarfile.GNU_FORMAT):
    file = io.BytesIO()
    names = ["a.jpg", "a.txt", *(["b/" + "long" * 40 + ".png"] if tar_format != tarfile.USTAR_FORMAT else [])]
    with tarfile.open(fileobj=file, mode="w", format=tar_format) as archive:
        for name in names:
            data = {"jpg": encoded("JPEG"), "txt": b"a caption", "png": encoded("PNG")}[name[-3:]]
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def vectors(dtype=np.float16):
    return np.random.default_rng(0).standard_normal((3, 768)).astype(dtype)


def saved(save, *arrays, **named):
    file = io.BytesIO()
    save(file, *arrays, **named)
    return file.getvalue()


def table():
    rows = {
        "embedding": pa.array(vectors().tolist(), pa.list_(pa.float32())),
        "image": pa.array([{"bytes": encoded("PNG"), "path": "a.png"}] * 3),
        "caption": ["a", None, "c"],
    }
    return pa.table(rows)


def parquets():
    def save(file, compression):
        pq.write_table(table(), file, compression=compression)

    return [saved(save, compression) for compression in ("snappy", "zstd", "none")]


def arrows():
    made = []
    for new, compression in product((pa.ipc.new_file, pa.ipc.new_stream), (None, "lz4", "zstd")):
        file = io.BytesIO()
        with new(file, table().schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
            writer.write_table(table())
        made.append(file.getvalue())
    return made


SEEDS = {
    "JPEG": lambda: [
        *(encoded("JPEG", mode, exif=exif(), xmp=XMP, icc_profile=profile()) for mode in ("RGB", "L", "CMYK")),
        *(encoded("JPEG", progressive=True, quality=quality) for quality in (40, 90)),
        encoded("JPEG", restart_marker_blocks=2, subsampling=0),
        encoded("MPO", **animated()),
    ],
    "PNG": lambda: [
        *(encoded("PNG", mode) for mode in ("RGB", "RGBA", "P", "L", "1", "I;16")),
        encoded("PNG", exif=exif(), icc_profile=profile()),
        encoded("PNG", **animated()),
    ],
    "WebP": lambda: [
        encoded("WEBP", exif=exif(), xmp=XMP),
        encoded("WEBP", "RGBA", lossless=True),
        encoded("WEBP", **animated()),
    ],
    "TIFF": lambda: [
        *(encoded("TIFF", m) for m in ("RGB", "RGBA", "P", "1", "CMYK", "I;16", "F", "I", "LAB", "YCbCr")),
        *(encoded("TIFF", compression=name) for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")),
        *(encoded("TIFF", "1", compression=name) for name in ("group3", "group4")),
        encoded("TIFF", exif=exif(), big_tiff=True),
        encoded("TIFF", **animated()),
    ],
    "GIF": lambda: [encoded("GIF", "P"), encoded("GIF", "1"), encoded("GIF", **animated("P"), transparency=3)],
    "BMP": lambda: [encoded("BMP", mode) for mode in ("RGB", "RGBA", "P", "1")],
    "AVIF": lambda: [encoded("AVIF", exif=exif(), xmp=XMP), encoded("AVIF", "RGBA")],
    "HEIC": lambda: [heic(), heic("RGBA"), heic(tile_size=32), heic("L", exif=exif().tobytes())],
    "DNG": lambda: [
        make_dng((32, 24)),
        make_dng((32, 24), encoded("JPEG"), orientation=6),
        make_dng((32, 24), encoded("JPEG"), make=b"NIKON", is_dng=False),
    ],
    "EXIF": lambda: [exif().tobytes(), exif().tobytes().replace(b"Exif\0\0MM", b"Exif\0\0II")],
    "colour profile": lambda: [profile(), profile("LAB")],
    "XMP": lambda: [
        *(XMP, XMP.replace(b'encoding="UTF-8"', b'encoding="latin-1"'), XMP_ELEMENT.encode()),
        XMP_ELEMENT.replace(' encoding="UTF-8"', "").encode("utf-16"),
    ],
    "JSON and captions": lambda: [
        json.dumps({"caption": "ein Käfer", "size": [1, 2.5, None], "deep": {"a": {"b": "c"}}}).encode(),
        b"\xef\xbb\xbfa cat on a mat",
        '{"a": "猫"}'.encode("utf-16"),
    ],
    "metadata.jsonl": lambda: ["".join(f"{json.dumps(record)}\n" for record in RECORDS).encode()],
    "metadata.csv": lambda: ['file_name,text,n\na.jpg,"ein Käfer, zwei",1\nb.jpg,a cat,2\n'.encode()],
    "tar": lambda: [tar(), tar(tarfile.PAX_FORMAT), tar(tarfile.USTAR_FORMAT)],
    "packed tar": lambda: [
        *(pack(tar()[:-8192]) for pack in (gzip.compress, bz2.compress, lzma.compress)),
        pa.Codec("zstd").compress(tar(), asbytes=True),
    ],
    "npy": lambda: [saved(np.save, vectors()), saved(np.save, np.asfortranarray(vectors(np.float32)))],
    "npz": lambda: [
        saved(save, embedding=vectors(), names=np.array(["a", "b", "c"])) for save in (np.savez, np.savez_compressed)
    ],
    "Parquet of embeddings": parquets,
    "Arrow of embeddings": arrows,
    "Arrow of pictures": arrows,
    "Parquet of pictures": parquets,
}
"""Kind -> sound files."""


# How they are read.


def read_picture(data, rng, _folder):
    embedded = read_embedded(data)
    rating = find_rating(embedded, {}, "jpg")
    assert rating is None or -1 <= rating <= 5
    make_table([ImageObject(shot=embedded.shot)], rows_schema(with_embeddings=False, with_signals=False))
    limit = FULL_PIXELS if rng.random() < 0.02 else SMALL_PIXELS
    try:
        image = decode_image(data, max_pixels=limit, apply_exif_rotation=True, convert_profile=True)
    except UnreadableImageError as error:
        if not str(error) or "object at 0x" in str(error):
            raise ValueError(f"no sentence for a row: {error}") from error
        return False
    assert image.pixels.dtype == np.uint8
    assert image.pixels.shape[2:] == (3,)
    if not image.note and image.format not in ("DNG", "NEF", "RAW", "HEIC", "HEIF"):
        check_reference(data, image)
    return True


class RefusedByReferenceError(Exception):
    """Pillow, which refuses files that are cut, refuses a picture that was scored without a note."""


def check_reference(data, image):
    if image.format == "PNG":  # libpng, which Pillow is not, passes over damage beside the pixels
        data = with_critical_chunks(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.open(io.BytesIO(data)).load()
    except Exception as error:
        if isinstance(error, Image.DecompressionBombError | UnidentifiedImageError):  # about sizes, and brands of AVIF
            return
        raise RefusedByReferenceError(f"{type(error).__name__}: {str(error)[:60]}") from error


def with_critical_chunks(png):
    parts, at = [png[:8]], 8
    while at + 12 <= len(png):
        end = at + 12 + int.from_bytes(png[at : at + 4])
        if not png[at + 4] & 32:
            parts.append(png[at:end])
        at = end
    return b"".join(parts)


def read_jpeg(data, rng, folder):
    with contextlib.suppress(MetadataError):
        embed_rating(data, 3, overwrite=True)
    return read_picture(data, rng, folder)


def read_exif(data, rng, folder):
    jpeg, body = seeds("JPEG")[0], data[:65_000]
    segment = b"\xff\xe1" + (len(body) + 2).to_bytes(2) + body
    return read_jpeg(jpeg[:2] + segment + jpeg[2:], rng, folder)


def read_profile(data, rng, folder):
    return read_picture(encoded("JPEG", icc_profile=data), rng, folder)


def read_xmp(data, _rng, _folder):
    with contextlib.suppress(MetadataError):
        set_rating(data, 2)
    with contextlib.suppress(MetadataError):
        belongs_to(data, "jpg")
    return find_rating(Embedded(), {"xmp": data}, "jpg") is not None


def read_text(data, _rng, _folder):
    return captions({"json": data, "txt": data}).is_valid


def captions(sidecars):
    image = ImageObject(image_id="a", image_path="a.jpg", sidecars=sidecars)
    return make_table([image], rows_schema(with_embeddings=False, with_signals=False))["caption"][0]


def in_file(name, read, *expected):
    def write_and_read(data, _rng, folder):
        (Path(folder) / name).write_bytes(data)
        with contextlib.suppress(*expected):
            return read(f"{folder}/{name}", folder)

    return write_and_read


def is_described(_path, folder):
    (Path(folder) / "a.jpg").write_bytes(b"")
    sample, _ = FolderReader().read_sample(f"{folder}/a.jpg", folder)
    return captions(sample.described).is_valid


def has_samples(path, _folder):
    return any(sample.problem is None for sample, _ in read_samples(path))


def has_embeddings(path, folder):
    return sum(len(block.vectors) for block in EmbeddingFile(path, folder).open().blocks()) > 0


READERS = {
    **dict.fromkeys(SEEDS, read_picture),
    "JPEG": read_jpeg,
    "EXIF": read_exif,
    "colour profile": read_profile,
    "XMP": read_xmp,
    "JSON and captions": read_text,
    **{name: in_file(name, is_described) for name in ("metadata.jsonl", "metadata.csv")},
    "tar": in_file("a.tar", has_samples, UnreadableImageError),
    "packed tar": in_file("a.tar.gz", has_samples, UnreadableImageError),
    "npy": in_file("a.npy", has_embeddings, TastemakerError, OSError),
    "npz": in_file("a.npz", has_embeddings, TastemakerError, OSError),
    "Parquet of embeddings": in_file("a.parquet", has_embeddings, TastemakerError, OSError),
    "Arrow of embeddings": in_file("a.arrow", has_embeddings, TastemakerError, OSError),
    "Arrow of pictures": in_file("a.arrow", has_samples, UnreadableImageError),
    "Parquet of pictures": in_file("a.parquet", has_samples, UnreadableImageError),
}
"""Kind -> what reads a damaged file, and returns whether anything came out."""


# How they are damaged.

_SIZES = (0, 1, 2, 127, 128, 255, 256, 2**15 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)


def damage(data, others, rng):
    """Return the file with some bits flipped, bytes replaced, sizes changed, parts left out or doubled, or cut."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        at = rng.randrange(len(data)) if rng.random() < 0.6 else rng.randrange(min(len(data), 256))
        length = rng.choice((1, 2, 4, 8, rng.randrange(1, 200)))
        change = rng.randrange(9)
        if change < 2:
            data[at] ^= 1 << rng.randrange(8)
        elif change == 2:
            data[at : at + length] = rng.randbytes(length)
        elif change < 5:
            layout = rng.choice(("<H", ">H", "<I", ">I"))
            value = rng.choice((*_SIZES, len(data), len(data) - at, rng.randrange(2**32)))
            data[at : at + struct.calcsize(layout)] = struct.pack(
                layout, value & (2 ** (8 * struct.calcsize(layout)) - 1)
            )
        elif change == 5:
            del data[at : at + length]
        elif change == 6:
            data[at:at] = data[at : at + length] * rng.choice((1, 1, 50))
        elif change == 7:
            other = rng.choice(others)
            start = rng.randrange(len(other))
            data[at:at] = other[start : start + length]
        else:
            del data[max(at, 1) :]
        data = data or bytearray(b"\0")
    return bytes(data)


def mend_checksums(kind, data):
    """Return a damaged file whose checksums are right again, so that readers go on behind them."""
    if kind == "PNG":
        parts, at = [data[:8]], 8
        while at + 12 <= len(data):
            end = at + 8 + int.from_bytes(data[at : at + 4])
            parts += [data[at:end], struct.pack(">I", zlib.crc32(data[at + 4 : end]))]
            at = end + 4
        return b"".join(parts)
    if kind == "tar":
        blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
        return b"".join(map(_mend_header, blocks))
    if kind == "npz":
        return _zip_again(data)
    return data


def _mend_header(block):
    if block[257:262] != b"ustar" or len(block) < 512:
        return block
    block = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _zip_again(data):
    """Return a zip of the members as they are stored, whatever their checksums."""
    file = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as given, zipfile.ZipFile(file, "w") as again:
            for member in given.infolist():
                at = member.header_offset + 30 + sum(struct.unpack_from("<HH", data, member.header_offset + 26))
                content = data[at : at + member.compress_size]
                is_packed = member.compress_type == zipfile.ZIP_DEFLATED
                again.writestr(member.filename, zlib.decompress(content, -15) if is_packed else content)
    except Exception:  # noqa: BLE001 - it is damaged, and stays as it is
        return data
    return file.getvalue()


@cache
def seeds(kind):
    return SEEDS[kind]()


def make_file(kind, seed, number):
    """Return the damaged file of a number, and the random numbers for its reading."""
    rng = random.Random(f"{kind} {seed} {number}")
    files = seeds(kind)
    data = damage(rng.choice(files), files, rng)
    return mend_checksums(kind, data) if rng.random() < 0.5 else data, rng


# The child, and who starts it.


def _serve(kind, seed, numbers, folder, page, problems):
    """Read damaged files, with the number of each in the page before it is read; write a line for each problem."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (2**34, 2**34))
    read, came_out = READERS[kind], 0
    for number in numbers:
        data, rng = make_file(kind, seed, number)
        page[:8] = struct.pack("<Q", number + 1)
        signal.alarm(HANG_S)
        problem = ""
        try:
            came_out += bool(read(data, rng, folder))
        except BaseException as error:  # noqa: BLE001 - it is what is looked for
            last = traceback.extract_tb(error.__traceback__)[-1]
            problem = f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno}"
        signal.alarm(0)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        page[8:] = struct.pack("<QQ", came_out, peak)
        if peak > MEMORY_MB:
            problem = problem or f"more than {MEMORY_MB} MB of memory"
        if problem:
            print(json.dumps([number, problem]), file=problems, flush=True)
        if peak > MEMORY_MB:
            return


def fuzz(kind, count, seed=0):
    """Read ``count`` damaged files of a kind in child processes, and return what became of them."""
    report, begun, page = Report(), time.monotonic(), mmap.mmap(-1, 24)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        while report.files < count:
            page[:] = bytes(24)
            lines, status = _fork(kind, seed, range(report.files, count), folder, page)
            report.files, came_out, peak = struct.unpack("<QQQ", page[:])
            report.came_out, report.peak_mb = report.came_out + came_out, max(report.peak_mb, peak)
            if os.WIFEXITED(status) and os.WEXITSTATUS(status):
                raise RuntimeError(f"the files of kind {kind} behind {report.files} cannot be made")
            if os.WIFSIGNALED(status):
                name = signal.Signals(os.WTERMSIG(status)).name
                problem = f"more than {HANG_S} s" if name == "SIGALRM" else f"killed by {name}"
                lines.append(json.dumps([report.files - 1, problem]))
            for number, problem in map(json.loads, lines):
                report.problems.setdefault(problem, []).append(number)
    report.seconds = time.monotonic() - begun
    return report


def _fork(kind, seed, numbers, folder, page):
    """Return the lines that a child wrote, and how it ended."""
    given, taken = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(given)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what decoders print
        try:
            with open(taken, "w") as problems:
                _serve(kind, seed, numbers, folder, page, problems)
            os._exit(0)
        finally:  # no child becomes a second parent
            os._exit(1)
    os.close(taken)
    with open(given) as problems:
        lines = problems.read().splitlines()
    return lines, os.waitpid(child, 0)[1]


if __name__ == "__main__":
    print(json.dumps({kind: vars(fuzz(kind, int(sys.argv[1]))) for kind in SEEDS}))
