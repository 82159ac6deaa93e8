"""Rows files made by hand, for tests of what reads them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tastemaker.errors import ReasonKind
from tastemaker.imaging.signals import SIGNAL_NAMES
from tastemaker.imaging.tars import Member
from tastemaker.scores.files import RowsFile
from tastemaker.scores.schema import DELETED, DELETED_REASON, make_table, rows_schema
from tastemaker.tasks import ImageObject


def make_image(number, score, *, reason="", failed=False, width=640, **more):
    """Return an image as it is when it becomes a row."""
    path = f"photos/{number:05d}.jpg"
    return ImageObject(
        image_path=path,
        image_id=f"{number:05d}",
        aesthetic_score=score,
        member=Member(path, 0, 1000 + number),
        width=None if failed else width,
        height=None if failed else 480,
        format=None if failed else "JPEG",
        reason=reason,
        failed=failed,
        **more,
    )


def write_rows(path, images, *, embeddings=False, signals=False, provenance=None):
    """Write a rows file, by the code that runs write them with."""
    for number, image in enumerate(images):
        if embeddings and not image.failed and image.embedding is None:
            image.embedding = np.full(768, 768**-0.5, np.float32)
        if signals and not image.failed and not image.signals:
            image.signals = dict.fromkeys(SIGNAL_NAMES, number / 10)
    schema = rows_schema(with_embeddings=embeddings, with_signals=signals, provenance=provenance)
    rows = RowsFile(path, schema)
    rows.add_rows(make_table(images, schema))
    rows.commit()
    return path


def write_scores(path, scores, **options):
    """Write a rows file of images with these scores; None is an image that could not be read."""
    images = [
        make_image(n, score, reason="" if score is not None else "unreadable: not an image", failed=score is None)
        for n, score in enumerate(scores)
    ]
    return write_rows(path, images, **options)


def mark_as_gone(path, numbers):
    """Change rows of a file into those of pictures that are gone, as a run does that misses them."""
    table = pq.read_table(path)
    for column, value in {"status": DELETED, "reason_kind": ReasonKind.DELETED, "reason": DELETED_REASON}.items():
        values = table[column].to_pylist()
        for number in numbers:
            values[number] = value
        at = table.schema.get_field_index(column)
        table = table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))
    pq.write_table(table, path)
