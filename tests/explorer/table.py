"""A scored table of real pictures, for tests of the explorer: made by hand, so that the scores are known."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from conftest import make_tar
from PIL import Image
from rows import make_image, write_rows

from tastemaker.errors import ReasonKind
from tastemaker.imaging.shards import read_samples
from tastemaker.imaging.tars import Member
from tastemaker.scores.schema import METADATA_KEY

SCORES = [6.42, 5.0, 4.17, 5.42, 5.41, 7.003, 5.42, 3.3, 5.0, 6.1, 4.99, 5.75]


def encode_picture(number, width, height, file_format="JPEG", **options):
    """Return a picture whose colours tell its number."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width, dtype=np.uint8)
    pixels[..., 1] = np.linspace(0, 255, height, dtype=np.uint8)[:, None]
    pixels[..., 2] = number * 20 % 256
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format, **options)
    return file.getvalue()


def write_table(folder, scores=SCORES, caption="a picture", broken=2):
    """Write a shard of pictures with captions and JSON, and its rows; return the folder of the rows."""
    shard = folder / "shards" / "00000.tar"
    shard.parent.mkdir(parents=True, exist_ok=True)
    members = []
    for number in range(len(scores)):
        data = encode_picture(number, *((300, 200), (200, 300), (1200, 100), (60, 640))[number % 4])
        entries = json.dumps({"licence": "CC0" if number % 2 else "CC-BY", "number": number})
        members += [(f"p{number:05d}.jpg", data), (f"p{number:05d}.txt", f"{caption} {number}".encode())]
        members.append((f"p{number:05d}.json", entries.encode()))
    members += [(f"broken{number}.jpg", b"<script>alert(1)</script>") for number in range(broken)]
    make_tar(shard, members)
    images = [_as_image(shard, sample, data, scores) for sample, data in read_samples(str(shard))]
    (folder / "scores").mkdir(exist_ok=True)
    write_rows(folder / "scores" / "00000.parquet", images, embeddings=True, signals=True)
    return folder / "scores"


def write_large_table(folder, scores):
    """Write rows of pictures that are nowhere, one for each score."""
    folder.mkdir(parents=True, exist_ok=True)
    images = [make_image(number, score, width=300 + number % 700) for number, score in enumerate(scores)]
    return write_rows(folder / "rows.parquet", images)


def set_column(folder, name, values):
    """Give the only rows file in a folder this column, new or in the place of its own."""
    (path,) = folder.glob("*.parquet")
    table = pq.read_table(path)
    table = table.drop_columns([name]) if name in table.column_names else table
    pq.write_table(table.append_column(name, values), path)


def _as_image(shard, sample, data, scores):
    if sample.key.startswith("broken"):
        image = make_image(0, None, reason="unreadable: not an image in a known format", failed=True)
        image.reason_kind = ReasonKind.NOT_AN_IMAGE
    else:
        number = int(sample.key[1:])
        with Image.open(io.BytesIO(data[sample.image.name])) as opened:
            image = make_image(number, scores[number], width=opened.width)
            image.height = opened.height
    image.image_id, image.image_path, image.shard = sample.key, f"{shard}/{sample.image.name}", str(shard)
    image.member = Member(sample.image.name, sample.image.offset, sample.image.size)
    image.sidecar_members = dict(sample.sidecars)
    image.sidecars = {extension: data[member.name] for extension, member in sample.sidecars.items()}
    return image


def write_liked_table(folder, number):
    """Write a table whose embeddings tell how much a person likes each picture; return its folder and the stars."""
    rng = np.random.default_rng(3)
    embeddings = rng.standard_normal((number, 768)) * np.arange(1, 769) ** -1.0
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    scores = write_table(folder, [round(5 + n / 100, 2) for n in range(number)], broken=0)
    (path,) = scores.glob("*.parquet")
    table = pq.read_table(path)
    at = table.schema.get_field_index("embedding")
    vectors = pa.array(list(embeddings.astype(np.float16)), table.schema.field(at).type)
    table = table.set_column(at, table.schema.field(at), vectors).replace_schema_metadata({METADATA_KEY: "{}"})
    pq.write_table(table, path)
    liking = embeddings[:, :3] @ rng.standard_normal(3)
    return scores, 1 + np.argsort(np.argsort(liking)) * 5 // number
