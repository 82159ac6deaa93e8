"""Tars of the kept originals, and a row for every image."""

from __future__ import annotations

import hashlib
import io
import logging
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tastemaker.checks import check_numbers
from tastemaker.errors import UnreadableImageError
from tastemaker.scores.files import RowsFile, remove_drafts
from tastemaker.scores.kept_copies import COPY_COLUMNS, Row, UnkeptCopies
from tastemaker.scores.originals import OriginalsWriter, check_originals, commit_together
from tastemaker.scores.schema import kind_of_reason, make_table, rows_schema, status_of
from tastemaker.stages.base import ProcessingStage, Resources, WorkerMetadata
from tastemaker.storage import Options, make_folder, output_path, relative_to
from tastemaker.tasks import FileGroupTask, ImageBatch, ImageObject

JPEG_QUALITY = 92
"""For images that a program made as pixels only, so that there are no original bytes; NeMo Curator's value."""

logger = logging.getLogger(__name__)


@dataclass
class _Partition:
    """What is being written for one group of input files; with its rows where there may be copies of an earlier run."""

    rows: RowsFile
    originals: OriginalsWriter
    copies: list[Row] | None
    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    def discard(self) -> None:
        self.rows.discard()
        self.originals.discard()


@dataclass
class ImageWriterStage(ProcessingStage[ImageBatch, FileGroupTask]):
    """Writes the kept originals, byte for byte with their sidecars, and one Parquet row for every image.

    For each partition (an input shard, or a group of loose files) there are ``<partition>.parquet`` and
    ``<partition>-000000.tar`` and following. A file has its final name only once it is complete, the rows last.

    Args:
        output_dir: Directory of the results, or a URL below which they go; made if need be.
        images_per_tar: Samples in a tar at most.
        verbose: Log a line for each partition.
        deterministic_name: Name files after their input; otherwise after a random number.
        remove_image_data: Free pixels and bytes of what was written.
        originals: ``shards``, ``folder`` (files below ``output_dir/kept``) or ``none`` (rows only).
        write_embeddings: Store embeddings in the rows, as float16.
        storage_options: Arguments of the file system of an output at a URL.
    """

    output_dir: str
    images_per_tar: int = 1000
    verbose: bool = False
    deterministic_name: bool = True
    remove_image_data: bool = False
    name: str = "image_writer"
    originals: str = "shards"
    write_embeddings: bool = True
    storage_options: Options | None = field(default=None, repr=False)
    handles_empty: bool = field(default=True, init=False, repr=False)
    is_sink_stage: bool = field(default=True, init=False, repr=False)
    _open: dict[str, _Partition] = field(default_factory=dict, init=False, repr=False)
    _written: Counter[str] = field(default_factory=Counter, init=False, repr=False)
    _unkept: UnkeptCopies | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_numbers(self)
        check_originals(self.originals, self.images_per_tar)
        self.resources = Resources()

    def inputs(self) -> tuple[list[str], list[str]]:
        """Return what the stage reads."""
        return ["data"], []

    def outputs(self) -> tuple[list[str], list[str]]:
        """Return what the stage sets."""
        return ["data"], []

    def setup(self, worker_metadata: WorkerMetadata | None = None) -> None:
        """Make the output directory."""
        make_folder(self._output_path())

    def teardown(self) -> None:
        """Delete what is unfinished. A later run with the same stage replaces what this one wrote."""
        for partition in self._open.values():
            partition.discard()
        self._open.clear()
        self._written.clear()
        self._unkept = None

    def process(self, task: ImageBatch) -> FileGroupTask | None:
        """Write one batch. Return the files of its partition with the last batch of it, None before."""
        name = self._partition_name(task)
        partition = self._open.get(name)
        if partition is None:
            partition = self._start(name, task)
        for number, image in enumerate(task.data):
            image.index = number if image.index < 0 else image.index  # made by a program: numbered for its name
        placed = {id(image): place for image in task.data if (place := self._place(image, partition, task))}
        images = sorted([*task.data, *task.dropped], key=lambda image: image.index)
        signals = "signals" in task._metadata.get("provenance", {})
        partition.rows.schema = self._schema(task)  # with the latest provenance: figures in it grow with the run
        table = make_table(images, placed, with_embeddings=self.write_embeddings, with_signals=signals)
        partition.rows.add_rows(table)
        if partition.copies is not None:
            partition.copies += table.select(COPY_COLUMNS).to_pylist()
        self._count(images, partition)
        if self.remove_image_data:
            for image in task.data:
                image.remove_image_data()
        return self._finish(name, partition, task) if task._metadata.get("is_last_batch", True) else None

    def _output_path(self) -> Path:
        return output_path(self.output_dir, self.storage_options)

    def _partition_name(self, task: ImageBatch) -> str:
        """Return the base name of a batch's files: its partition's, or one made of its images' paths."""
        name = str(task._metadata.get("partition", ""))
        if not name:
            paths = sorted(image.image_path for image in [*task.data, *task.dropped])
            digest = hashlib.sha256("|".join([*paths, task.task_id]).encode("utf-8", "surrogateescape"))
            name = f"images-{digest.hexdigest()[:12]}"
        return name

    def _start(self, name: str, task: ImageBatch) -> _Partition:
        times = self._written[name]
        stem = name if not times else f"{name}-again-{times}"  # a stage in between split the last batch
        stem = stem if self.deterministic_name else f"images-{uuid.uuid4().hex[:16]}"
        output, folder = self._output_path(), str(task._metadata.get("folder", stem))
        self._unkept = self._unkept or UnkeptCopies(output)
        kind = self._kind(task)
        is_part = kind != self.originals  # of a partition: its rows are merged later, and its copies looked at then
        is_searched = not is_part and self._unkept.may_be(folder)
        if task._metadata.get("attempt", 1) > 1:
            remove_drafts(output / stem)
        partition = _Partition(
            RowsFile(output / f"{stem}.parquet", self._schema(task)),
            OriginalsWriter(output, stem, folder, kind, self.images_per_tar),
            [] if is_searched else None,
        )
        self._open[name] = partition
        return partition

    def _kind(self, task: ImageBatch) -> str:
        """Return where the originals of a batch go; a partition may say so itself."""
        return str(task._metadata.get("originals", self.originals))

    def _schema(self, task: ImageBatch) -> pa.Schema:
        made_by = task._metadata.get("provenance", {})
        return rows_schema(with_embeddings=self.write_embeddings, with_signals="signals" in made_by, provenance=made_by)

    def _place(self, image: ImageObject, partition: _Partition, task: ImageBatch) -> tuple[str, str] | None:
        """Write one kept image where it belongs; return the file that it is in and its name there."""
        if self._kind(task) == "none":
            return None
        try:
            return partition.originals.add(_members_of(image, str(task._metadata.get("root", ""))))
        except UnreadableImageError as error:
            image.fail(f"unreadable: {error}")
            return None

    def _count(self, images: list[ImageObject], partition: _Partition) -> None:
        partition.counts.update(status_of(image) for image in images)
        partition.reasons.update(kind_of_reason(image.reason) for image in images if image.reason)

    def _finish(self, name: str, partition: _Partition, task: ImageBatch) -> FileGroupTask:
        unkept: list[Path] = []
        if self._unkept is not None and partition.copies:
            folder, root = str(task._metadata.get("folder", "")), str(task._metadata.get("root", ""))
            unkept = self._unkept.find(folder, partition.copies, root)
        commit_together(partition.rows, partition.originals, unkept)
        self._written[name] += 1
        del self._open[name]
        if self.verbose:
            logger.info("wrote %s: %s", partition.rows.path, dict(partition.counts))
        metadata: dict[str, Any] = {
            **task._metadata,
            "output_dir": self.output_dir,
            "images_per_tar": self.images_per_tar,
            "num_images": partition.counts["kept"],
            "counts": dict(partition.counts),
            "reasons": dict(partition.reasons),
        }
        files = [str(pending.path) for pending in [*partition.originals.tars, partition.rows]]
        return FileGroupTask(task.dataset_name, files, task._stage_perf, metadata, task.task_id)


def _members_of(image: ImageObject, root: str) -> dict[str, bytes]:
    """Return name -> bytes of an image and its sidecars, as they go into a tar or a folder.

    Raises:
        UnreadableImageError: The bytes are gone or have changed.
    """
    if image.encoded is None and image.member is None:
        members = {f"{image.image_id or f'{max(image.index, 0):06d}'}.jpg": _encode(image)}
    else:
        data = image.read_encoded()
        if image.member is None:
            members = {f"{image.image_id}.{(image.format or 'jpg').lower()}": data}
        elif len(data) != image.member.size:
            raise UnreadableImageError("the source changed while it was read")
        else:
            members = {_name_below(image.member.name, root if not image.shard else ""): data}
    for extension, data in image.sidecars.items():
        member = image.sidecar_members.get(extension)
        name = _name_below(member.name, root if not image.shard else "") if member else f"{image.image_id}.{extension}"
        members[name] = data
    return members


def _name_below(path: str, root: str) -> str:
    return relative_to(path, root) if root else path


def _encode(image: ImageObject) -> bytes:
    """Return the pixels of an image that a program made, as JPEG."""
    from PIL import Image

    if image.image_data is None:
        raise UnreadableImageError("the image has neither source bytes nor pixels")
    if image.image_data.dtype != np.uint8 or image.image_data.shape[2:] not in ((), (3,), (4,)):
        shape = image.image_data.shape
        raise UnreadableImageError(f"image_data must be uint8 (H, W, 3), not {image.image_data.dtype} {shape}")
    file = io.BytesIO()
    Image.fromarray(image.image_data).convert("RGB").save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()
