"""Tiny pictures, folders and shards of them, and what became of them: for tests that look at files, not at scores."""

import hashlib
import io
import os
import tarfile

import numpy as np
import pyarrow.parquet as pq
from conftest import encode, make_tar

from tastemaker import (
    FilePartitioningStage,
    ImageAestheticFilterStage,
    ImageEmbeddingStage,
    ImageReaderStage,
    ImageWriterStage,
)
from tastemaker.storage import STATE_FOLDER


def picture(seed, file_format="JPEG"):
    """Return a picture of noise that no other seed gives."""
    return encode(np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8), file_format)


class Trap:
    """Unpickled, it makes a file: ``open(path, "w")``."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def unit_vectors(count, seed=0, dtype=np.float32):
    """Return embeddings of unit length, (count, 768)."""
    vectors = np.random.default_rng(seed).standard_normal((count, 768), np.float32)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(dtype)


def make_pictures(folder, names=("a.jpg", "b.jpg", "below/c.jpg", "below/d.png")):
    """Write a picture under each name, the second with a caption, and return the folder."""
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(seed, "PNG" if name.endswith("png") else "JPEG"))
    (folder / names[1]).with_suffix(".txt").write_text("a caption")
    return folder


def make_tiny_shards(folder, shards=3, images=4, *, captions=True):
    """Write shards of pictures with captions far from them, the last picture of each damaged, and return the folder."""
    folder.mkdir(parents=True)
    for number in range(shards):
        members = [(f"{number}{n}.jpg", picture(10 * number + n)) for n in range(images - 1)]
        members += [(f"{number}{n}.txt", b"a caption") for n in range(images - 1) if captions]
        make_tar(folder / f"{number}.tar", [*members, (f"{number}bad.jpg", picture(0)[:400])])
    return folder


def usual_stages(source, model_dir, output=None, *own, batch_size=4, threshold=0.0, images_per_tar=1000, **reader):
    """Return the stages of an ordinary pipeline, with others after the reader; without an output, no writer."""
    return [
        FilePartitioningStage(str(source), files_per_partition=1),
        ImageReaderStage(batch_size=batch_size, **reader),
        *own,
        ImageEmbeddingStage(model_dir=str(model_dir)),
        ImageAestheticFilterStage(model_dir=str(model_dir), score_threshold=threshold),
        *([] if output is None else [ImageWriterStage(str(output), images_per_tar=images_per_tar)]),
    ]


def write_nasty_data(folder, photographs):
    """Write everything that can be wrong with shards and folders, beside what is right."""
    good, pixels = photographs["rocket.jpg"], np.zeros((40, 60, 3), np.uint8)
    (folder / "loose" / "below").mkdir(parents=True)
    members = [
        ("good.jpg", good),
        ("good.txt", "a rocket, na\u00efve".encode()),
        ("good.json", b'{"a": 1}'),
        ("cut.jpg", good[: len(good) // 2]),
        ("empty.jpg", b""),
        ("text.jpg", b"no image"),
        ("../climbs.jpg", good),
        ("bomb.bmp", b"BM" + bytes(16) + (40000).to_bytes(4, "little") * 2 + bytes(40)),
        ("twice.png", encode(pixels, "PNG")),
        ("twice.png", encode(pixels + 1, "PNG")),
        ("\u5bcc\u58eb\u5c71 \u00e9t\u00e9.webp", encode(pixels, "WEBP")),
        ("caption-only.txt", b"no image"),
        *((f"more/{name}", data) for name, data in photographs.items()),
    ]
    nasty = make_tar(folder / "0-nasty.tar", members)
    (folder / "1-cut.tar").write_bytes(nasty.read_bytes()[:5_000])  # in the middle of good.jpg
    (folder / "2-empty.tar").write_bytes(bytes(10240))
    make_tar(folder / "3-\u7a7a.tar", list(photographs.items()))
    for name, data in photographs.items():
        (folder / "loose" / name).write_bytes(data)
    (folder / "loose" / "coffee.txt").write_text("a cup")
    (folder / "loose" / "below" / "\u00fcber.jpg").write_bytes(good)
    (folder / "loose" / "below" / "cut.jpg").write_bytes(good[: len(good) // 2])
    return folder


def rows_of(output):
    """Return image path -> row without its embedding, of the rows of a run."""
    files = sorted((output / "rows").rglob("*.parquet"))
    tables = [pq.read_table(io.BytesIO(path.read_bytes())) for path in files]  # pyarrow takes no path that is no UTF-8
    return {row["image_path"]: row for table in tables for row in table.drop_columns(["embedding"]).to_pylist()}


def statuses(output):
    """Return base name -> status, of the rows of a run."""
    return {path.rpartition("/")[2]: row["status"] for path, row in rows_of(output).items()}


def best_keys(output, number=None):
    """Return the keys of the best pictures of a run."""
    scored = [row for row in rows_of(output).values() if row["status"] == "kept"]
    scored.sort(key=lambda row: -row["aesthetic_score"])
    return {row["image_id"] for row in scored[:number]}


def copies(folder):
    """Return name -> bytes of the copies in a folder, members of its tars as a reader finds them, notes left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or name.startswith(f"{STATE_FOLDER}/"):
            continue
        if path.suffix != ".tar":
            found[name] = path.read_bytes()
            continue
        with tarfile.open(path) as tar:
            for member in tar:
                assert member.name not in found
                found[member.name] = tar.extractfile(member).read()
    return found


def snapshot(folder):
    """Return name -> hash and time of everything below a folder; links as such."""
    return {
        path.relative_to(folder).as_posix(): os.readlink(path)
        if path.is_symlink()
        else (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }
