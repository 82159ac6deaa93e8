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
from pathlib import Path

import numpy as np
import pillow_heif
import pyarrow as pa
import pyarrow.parquet as pq
from camera_files import make_dng
from PIL import Image, ImageCms, UnidentifiedImageError
from PIL.TiffImagePlugin import IFDRational

from tastemaker.embeddings.find import EmbeddingFile
from tastemaker.errors import MetadataError, TastemakerError, UnreadableImageError
from tastemaker.imaging.decode import decode_image
from tastemaker.imaging.embedded import Embedded, read_embedded
from tastemaker.imaging.folders import FolderReader
from tastemaker.imaging.jpeg_metadata import embed_rating
from tastemaker.imaging.ratings import find_rating
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
    file = io.BytesIO()
    picture(mode).save(file, file_format, **options)
    return file.getvalue()


def exif():

    tags = Image.Exif()
    tags[0x0112], tags[0x4746], tags[0x010F] = 6, 3, "Maker"
    tags.get_ifd(0x8769).update({0x9003: "2026:01:01 00:00:00", 0x9291: "12", 0x829A: IFDRational(1, 60), 0x8827: 400})
    tags.get_ifd(0x8825).update({2: (IFDRational(47), 0, 0), 4: (IFDRational(8), 0, 0)})
    return tags


def xmp():

    return make_xmp(4)


def profile():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def profiles():
    yield profile()
    yield ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


def jpegs():
    more = {"exif": exif(), "xmp": xmp(), "icc_profile": profile()}
    yield from (encoded("JPEG", mode, **more) for mode in ("RGB", "L", "CMYK"))
    yield from (encoded("JPEG", progressive=True, quality=q) for q in (40, 90))
    yield encoded("JPEG", restart_marker_blocks=2, subsampling=0)
    yield encoded("MPO", save_all=True, append_images=[picture("RGB").rotate(90)])


def pngs():
    yield from (encoded("PNG", mode) for mode in ("RGB", "RGBA", "P", "L", "1", "I;16"))
    yield encoded("PNG", exif=exif(), icc_profile=profile())
    yield encoded("PNG", save_all=True, append_images=[picture("RGB").rotate(90)])


def webps():
    yield encoded("WEBP", exif=exif(), xmp=xmp())
    yield encoded("WEBP", "RGBA", lossless=True)
    yield encoded("WEBP", save_all=True, append_images=[picture("RGB").rotate(90)])


def tiffs():
    yield from (encoded("TIFF", mode) for mode in ("RGB", "RGBA", "P", "1", "CMYK", "I;16", "F", "I", "LAB", "YCbCr"))
    yield from (encoded("TIFF", compression=name) for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"))
    yield from (encoded("TIFF", "1", compression=name) for name in ("group3", "group4"))
    yield encoded("TIFF", exif=exif(), big_tiff=True)
    yield encoded("TIFF", save_all=True, append_images=[picture("RGB").rotate(90)])


def gifs():
    yield from (encoded("GIF", mode) for mode in ("P", "1"))
    yield encoded("GIF", save_all=True, append_images=[picture("P").rotate(90)], transparency=3)


def bmps():
    yield from (encoded("BMP", mode) for mode in ("RGB", "RGBA", "P", "1"))


def avifs():
    yield encoded("AVIF", exif=exif(), xmp=xmp())
    yield encoded("AVIF", "RGBA")


def heics():

    for mode, options in (("RGB", {}), ("RGBA", {}), ("RGB", {"tile_size": 32}), ("L", {"exif": exif().tobytes()})):
        file = io.BytesIO()
        pillow_heif.from_pillow(picture(mode)).save(file, **options)
        yield file.getvalue()


def dngs():

    yield make_dng((32, 24))
    yield make_dng((32, 24), encoded("JPEG"), orientation=6)
    yield make_dng((32, 24), encoded("JPEG"), make=b"NIKON", is_dng=False)


def exifs():
    yield exif().tobytes()
    yield exif().tobytes().replace(b"Exif\0\0MM", b"Exif\0\0II")


def xmps():
    yield xmp()
    yield xmp().replace(b'encoding="UTF-8"', b'encoding="latin-1"')
    text = xmp().decode().replace('xmp:Rating="4"/>', "><xmp:Rating>4</xmp:Rating></rdf:Description>")
    yield text.encode()
    yield text.replace(' encoding="UTF-8"', "").encode("utf-16")


def texts():
    yield json.dumps({"caption": "ein Käfer", "size": [1, 2.5, None], "deep": {"a": {"b": "c"}}}).encode()
    yield b"\xef\xbb\xbfa cat on a mat"
    yield '{"a": "猫"}'.encode("utf-16")


def records():
    yield b"".join(
        json.dumps({"file_name": f"{name}.jpg", "text": text, "n": [1, None]}).encode() + b"\n"
        for name, text in (("a", "K\u00e4fer \ud83d\ude00"), ("b", "a cat"))
    )


def record_tables():
    yield 'file_name,text,n\na.jpg,"ein Käfer, zwei",1\nb.jpg,a cat,2\n'.encode()


def tars():
    members = [("a.jpg", encoded("JPEG")), ("a.txt", b"a caption"), ("b/" + "long" * 40 + ".png", encoded("PNG"))]
    for options in ({"format": tarfile.GNU_FORMAT}, {"format": tarfile.PAX_FORMAT}, {"format": tarfile.USTAR_FORMAT}):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", **options) as tar:
            for name, data in members[: 3 if options["format"] != tarfile.USTAR_FORMAT else 2]:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        yield file.getvalue()


def packed_tars():

    (tar, *_) = tars()
    yield from (pack(tar[:-8192]) for pack in (gzip.compress, bz2.compress, lzma.compress))

    yield pa.Codec("zstd").compress(tar, asbytes=True)


def vectors():

    rng = np.random.default_rng(0)
    return rng.standard_normal((3, 768)).astype(np.float16)


def npys():

    for array in (vectors(), np.asfortranarray(vectors().astype(np.float32))):
        file = io.BytesIO()
        np.save(file, array)
        yield file.getvalue()


def npzs():

    for save in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        save(file, embedding=vectors(), names=np.array(["a", "b", "c"]))
        yield file.getvalue()


def table():
    rows = {
        "embedding": pa.array(vectors().tolist(), pa.list_(pa.float32())),
        "image": pa.array([{"bytes": encoded("PNG"), "path": "a.png"}] * 3),
        "caption": ["a", None, "c"],
    }
    return pa.table(rows)


def parquets():
    for compression in ("snappy", "zstd", "none"):
        file = io.BytesIO()
        pq.write_table(table(), file, compression=compression)
        yield file.getvalue()


def arrows():
    for new in (pa.ipc.new_file, pa.ipc.new_stream):
        for compression in (None, "lz4", "zstd"):
            file = io.BytesIO()
            with new(file, table().schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
                writer.write_table(table())
            yield file.getvalue()


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

    image = ImageObject(image_id="a", image_path="a.jpg", sidecars={"json": data, "txt": data})
    row = make_table([image], rows_schema(with_embeddings=False, with_signals=False)).to_pylist()[0]
    return row["caption"] is not None


def read_described(name):
    def read(data, _rng, folder):
        (Path(folder) / name).write_bytes(data)
        (Path(folder) / "a.jpg").write_bytes(b"")
        sample, _ = FolderReader().read_sample(f"{folder}/a.jpg", folder)
        image = ImageObject(image_id="a", image_path="a.jpg", sidecars=sample.described)
        return make_table([image], rows_schema(with_embeddings=False, with_signals=False))["caption"][0].is_valid

    return read


def read_shard(extension):
    def read(data, _rng, folder):

        path = Path(folder) / f"a{extension}"
        path.write_bytes(data)
        try:
            return any(sample.problem is None for sample, _ in read_samples(str(path)))
        except UnreadableImageError:
            return False

    return read


def read_embeddings(extension):
    def read(data, _rng, folder):

        path = Path(folder) / f"a{extension}"
        path.write_bytes(data)
        try:
            return sum(len(block.vectors) for block in EmbeddingFile(str(path), folder).open().blocks(2)) > 0
        except (TastemakerError, OSError):
            return False

    return read


KINDS = {
    "JPEG": (jpegs, read_jpeg),
    "PNG": (pngs, read_picture),
    "WebP": (webps, read_picture),
    "TIFF": (tiffs, read_picture),
    "GIF": (gifs, read_picture),
    "BMP": (bmps, read_picture),
    "AVIF": (avifs, read_picture),
    "HEIC": (heics, read_picture),
    "DNG": (dngs, read_picture),
    "EXIF": (exifs, read_exif),
    "colour profile": (profiles, read_profile),
    "XMP": (xmps, read_xmp),
    "JSON and captions": (texts, read_text),
    "metadata.jsonl": (records, read_described("metadata.jsonl")),
    "metadata.csv": (record_tables, read_described("metadata.csv")),
    "tar": (tars, read_shard(".tar")),
    "packed tar": (packed_tars, read_shard(".tar.gz")),
    "npy": (npys, read_embeddings(".npy")),
    "npz": (npzs, read_embeddings(".npz")),
    "Parquet of embeddings": (parquets, read_embeddings(".parquet")),
    "Arrow of embeddings": (arrows, read_embeddings(".arrow")),
    "Arrow of pictures": (arrows, read_shard(".arrow")),
    "Parquet of pictures": (parquets, read_shard(".parquet")),
}
"""Kind -> sound files, and the function that reads one and returns whether it came out."""


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
    return list(KINDS[kind][0]())


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
    read, came_out = KINDS[kind][1], 0
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
    print(json.dumps({kind: vars(fuzz(kind, int(sys.argv[1]))) for kind in KINDS}))
