"""The columns of a rows file, and how an image becomes a row. docs/rows.md describes them for users."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tastemaker.errors import ConfigurationError, ReasonKind
from tastemaker.imaging.keys import CAPTION_EXTENSIONS, JSON_EXTENSIONS, gives_a_column
from tastemaker.imaging.signals import SIGNAL_NAMES
from tastemaker.imaging.tables import caption_in
from tastemaker.imaging.tars import Member
from tastemaker.models.published import find_scorer
from tastemaker.storage import public_url
from tastemaker.tasks import ImageObject

METADATA_KEY = b"tastemaker"
"""Key of the schema's metadata that holds the provenance, as JSON."""

SOURCES_KEY = b"tastemaker.sources"
"""Key of the input files that the rows were made from, each with its size and version, as JSON."""

COUNTS_KEY = b"tastemaker.counts"
"""Key of the number of rows by status and by reason, as JSON. `tastemaker.scores.files.RowsFile` writes it."""

DELETED = "deleted"
"""Status of a row whose picture is gone."""

DELETED_REASON = "the file is gone since it was scored"

COPY_FIELDS = [("tar_file", pa.string()), ("member_name", pa.string())]
"""Columns of rows whose originals were copied: the file that the copy is in, and the name of the image there."""

SHOT_FIELDS = [
    ("captured_at", pa.timestamp("us")),
    ("camera", pa.string()),
    ("lens", pa.string()),
    ("focal_length_mm", pa.float32()),
    ("exposure_time_s", pa.float32()),
    ("exposure_bias_ev", pa.float32()),
    ("aperture_f", pa.float32()),
    ("iso", pa.int32()),
    ("has_gps", pa.bool_()),
]
"""Columns of how a picture was taken, as `tastemaker.imaging.shots.Shot` has them."""

EMBEDDING_TYPE = pa.list_(pa.field("element", pa.float16(), nullable=False))
"""Of embeddings. A whole one may be null, a number in it never is: so they are read in two thirds of the time."""

_SIDECAR = pa.struct(
    [("extension", pa.string()), ("member", pa.string()), ("offset", pa.int64()), ("size", pa.int64())]
)


def score_columns(made_by: Mapping[str, Any]) -> list[str]:
    """Return the columns of scores of rows by their provenance, the run's first scorer first.

    Rows that no model has scored have the column of the default scorer, without a value in it.
    """
    return list(made_by.get("scores") or [find_scorer().column])


def check_score_columns(columns: Sequence[str]) -> None:
    """Raise `ConfigurationError` for a column of scores that has the name of another column of rows."""
    rows = rows_schema(with_embeddings=True, with_signals=True, with_copies=True, provenance={"scores": {"": {}}})
    taken = next((name for name in columns if name in (*rows.names, "row_id", "group", "best_reason")), None)
    if taken:
        raise ConfigurationError(
            f"a scorer would fill the column {taken}, which rows have for something else: give it, or its file, "
            "another name"
        )


def rows_schema(
    *,
    with_embeddings: bool,
    with_signals: bool,
    with_copies: bool = False,
    provenance: Mapping[str, Any] | None = None,
) -> pa.Schema:
    """Return the columns of a rows file, and what made its scores as the schema's metadata.

    ``with_copies`` adds where the copies of kept originals lie: the tar or file, and the name of the image in it.
    The columns of scores are those that the provenance names (`score_columns`). Its ``sources`` go under a key of their
    own: for 500 loose files they are long.
    """
    fields = [
        ("image_id", pa.string()),
        ("image_path", pa.string()),
        ("shard", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("xxh3", pa.string()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("orientation", pa.int8()),
        ("format", pa.string()),
        ("rating", pa.int8()),
        *SHOT_FIELDS,
        *((name, pa.float32()) for name in score_columns(provenance or {})),
        ("status", pa.string()),
        ("reason_kind", pa.string()),
        ("reason", pa.string()),
        ("caption", pa.string()),
        ("json", pa.string()),
        ("sidecars", pa.list_(_SIDECAR)),
        ("metadata", pa.string()),
    ]
    if with_copies:
        fields += COPY_FIELDS
    if with_signals:
        fields += [(name, pa.float32()) for name in SIGNAL_NAMES]
    if with_embeddings:
        fields.append(("embedding", EMBEDDING_TYPE))
    return pa.schema(fields, rows_metadata(provenance or {}) or None)


def rows_metadata(provenance: Mapping[str, Any]) -> dict[bytes, bytes]:
    """Return what made rows as the metadata of their schema."""
    made_by = dict(provenance)
    sources = made_by.pop("sources", None)
    metadata = {METADATA_KEY: json.dumps(made_by).encode()} if made_by else {}
    if sources is not None:
        metadata[SOURCES_KEY] = json.dumps(sources, ensure_ascii=True).encode()
    return metadata


def provenance_of(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """Return what made rows, by the metadata of their schema; nothing where it does not say, or was damaged."""
    try:
        entries = json.loads((metadata or {}).get(METADATA_KEY, b"{}"))
    except ValueError:
        return {}
    return entries if isinstance(entries, dict) else {}


def make_table(
    images: Sequence[ImageObject], schema: pa.Schema, placed: Mapping[int, tuple[str, str]] | None = None
) -> pa.Table:
    """Return one row for each image.

    Args:
        images: In the order of the rows. One is kept if it has no ``reason``.
        schema: Of the rows, as `rows_schema` returns it. Its metadata is left out.
        placed: id of an image object -> file and member name of its copy; None where no originals are written.
    """
    texts = [caption_and_json(image) for image in images]
    columns: dict[str, Any] = {
        "image_id": [printable(image.image_id) for image in images],
        "image_path": [printable(public_url(image.image_path)) for image in images],
        "shard": [printable(public_url(image.shard)) or None for image in images],
        "offset": [image.member.offset if image.member else None for image in images],
        "size": [image.member.size if image.member else None for image in images],
        "xxh3": [image.xxh3 or None for image in images],
        "width": [image.width for image in images],
        "height": [image.height for image in images],
        "orientation": [image.orientation for image in images],
        "format": [image.format for image in images],
        "rating": [image.rating for image in images],
        **{name: [getattr(image.shot, name) for image in images] for name, _ in SHOT_FIELDS},
        "status": [status_of(image) for image in images],
        "reason_kind": [reason_kind_of(image) for image in images],
        "reason": [printable(image.reason) or None for image in images],
        "caption": [caption for caption, _ in texts],
        "json": [record for _, record in texts],
        "sidecars": [[_sidecar_row(*item) for item in image.sidecar_members.items()] for image in images],
        "metadata": [json.dumps(image.metadata, default=str) if image.metadata else None for image in images],
    }
    if placed is not None:
        for number, (name, _) in enumerate(COPY_FIELDS):
            columns[name] = [printable(placed.get(id(image), ("", ""))[number]) or None for image in images]
    if SIGNAL_NAMES[0] in schema.names:
        columns |= {name: [image.signals.get(name) for image in images] for name in SIGNAL_NAMES}
    if "embedding" in schema.names:
        present = [image.embedding for image in images if image.embedding is not None]
        lengths = [-1 if image.embedding is None else len(image.embedding) for image in images]
        columns["embedding"] = embedding_column(np.concatenate(present or [np.empty(0, np.float16)]), lengths)
    for name in set(schema.names) - columns.keys():
        columns[name] = [image.scores.get(name) for image in images]
    schema = schema.remove_metadata()
    return pa.table([pa.array(columns[f.name], f.type) for f in schema], schema=schema)


def status_of(image: ImageObject) -> str:
    """Return ``failed``, ``dropped`` or, where no stage left the image out, ``kept``."""
    if image.failed:
        return "failed"
    return "dropped" if image.reason else "kept"


def reason_kind_of(image: ImageObject) -> ReasonKind | None:
    """Return why an image was dropped or failed. A stage of the user's own may give a sentence only."""
    return image.reason_kind or (ReasonKind.DROPPED_BY_STAGE if image.reason else None)


def printable(text: str) -> str:
    """Return a name as valid Unicode: bytes of a file name that are no UTF-8 are written out in hexadecimal."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def original_name(text: str) -> str:
    r"""Return the name that `printable` was given.

    Example:
        >>> original_name(printable("caf\udce9.jpg")) == "caf\udce9.jpg"
        True
    """
    return re.sub(
        r"\\x([89a-f][0-9a-f])", lambda match: bytes.fromhex(match[1]).decode("utf-8", "surrogateescape"), text
    )


def caption_and_json(image: ImageObject) -> tuple[str | None, str | None]:
    """Return the columns that are made of an image's sidecars. Without a text, the caption is that of the JSON."""
    caption, stated = _first_text(image, CAPTION_EXTENSIONS), _first_text(image, JSON_EXTENSIONS)
    if caption is None and stated is not None:
        with suppress(ValueError, RecursionError):
            record = json.loads(stated)
            found = caption_in(record) if isinstance(record, dict) else None
            # JSON can name half of a surrogate pair, which Arrow cannot store.
            caption = found and found.encode("utf-8", "backslashreplace").decode()
    return caption, stated


def _first_text(image: ImageObject, extensions: tuple[str, ...]) -> str | None:
    """Return the text of the first sidecar with one of these last extensions, ``b.txt`` too; None of a huge one."""
    for wanted in extensions:
        for extension, content in image.sidecars.items():
            if extension.rpartition(".")[2].lower() == wanted:
                return decode_text(content) if gives_a_column(extension, len(content)) else None
    return None


def decode_text(content: bytes) -> str:
    r"""Return the text of a caption: UTF-8, or UTF-16 as its byte-order mark or its zeros tell; the mark goes.

    Bytes that are no UTF-8 are written out in hexadecimal.

    Example:
        >>> decode_text(b"\xef\xbb\xbfa cat"), decode_text("a cat".encode("utf-16")), decode_text(b"caf\xe9")
        ('a cat', 'a cat', 'caf\\xe9')
    """
    encoding = "utf-8-sig"
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    elif content and len(content) % 2 == 0 and not content[1::2].strip(b"\0"):
        encoding = "utf-16-le"
    elif content and len(content) % 2 == 0 and not content[::2].strip(b"\0"):
        encoding = "utf-16-be"
    return content.decode(encoding, "backslashreplace")


def _sidecar_row(extension: str, member: Member) -> dict[str, Any]:
    return {
        "extension": printable(extension),
        "member": printable(member.name),
        "offset": member.offset,
        "size": member.size,
    }


def embedding_column(numbers: npt.NDArray[np.floating], lengths: npt.ArrayLike) -> pa.Array:
    """Return embeddings as they are in rows.

    Args:
        numbers: float (m,), of all embeddings one behind the other.
        lengths: Integers (n,), how many numbers each row has; -1 for a row without an embedding.
    """
    counts = np.asarray(lengths, np.int64)
    offsets = np.concatenate([[0], np.cumsum(np.maximum(counts, 0))]).astype(np.int32)
    missing = pa.array(counts < 0) if (counts < 0).any() else None
    values = pa.array(np.ascontiguousarray(numbers, np.float16))
    return pa.ListArray.from_arrays(pa.array(offsets), values, EMBEDDING_TYPE, mask=missing)
