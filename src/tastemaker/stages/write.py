"""Tars of the kept originals, and a row for every image."""

from __future__ import annotations

import io
import logging
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from tastemaker.checks import check_choice, check_numbers, check_positive
from tastemaker.errors import ReasonKind, UnreadableImageError
from tastemaker.imaging.keys import is_unsafe_name
from tastemaker.imaging.readers import Section
from tastemaker.provenance import add_scores
from tastemaker.scores.copies import TarCopies
from tastemaker.scores.files import RowsFile, check_own_rows, remove_drafts
from tastemaker.scores.merge import merge_rows
from tastemaker.scores.schema import make_table, rows_schema, status_of
from tastemaker.stages.base import OfBatches, ProcessingStage, WorkerMetadata
from tastemaker.storage import Options, expand_path, relative_to
from tastemaker.storage.inputs import digest_of
from tastemaker.storage.owned import OwnFiles
from tastemaker.storage.place import Place
from tastemaker.tasks import FileGroupTask, ImageBatch, ImageObject

JPEG_QUALITY = 92
"""For images that a program made as pixels only, so that there are no original bytes; NeMo Curator's value."""

logger = logging.getLogger(__name__)


ORIGINALS = ("shards", "none")
"""WebDataset tars, or rows only."""


@dataclass
class _Partition:
    """What is being written for one group of input files; `part` has the rows where it is some images of a group."""

    rows: RowsFile
    tars: TarCopies | None
    own: OwnFiles | None
    part: list[pa.Table] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def discard(self) -> None:
        self.rows.discard()
        if self.tars is not None:
            self.tars.discard()


@dataclass
class ImageWriterStage(OfBatches, ProcessingStage[ImageBatch, FileGroupTask]):
    """Writes the kept originals, byte for byte with their sidecars, and one Parquet row for every image.

    For each partition (an input shard, or a group of loose files) there are ``<partition>.parquet`` and
    ``<partition>-000000.tar`` and following. A file has its final name only once it is complete, the rows last. Files
    of a run before are replaced; a file that Tastemaker did not write never is.

    Args:
        output_dir: Directory of the results, or a URL below which they go; made if need be.
        images_per_tar: Samples in a tar at most.
        verbose: Log a line for each partition.
        deterministic_name: Name files after their input; otherwise after a random number.
        remove_image_data: Free pixels and bytes of what was written.
        originals: ``shards``, or ``none`` (rows only).
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

    def __post_init__(self) -> None:
        self.output_dir = expand_path(self.output_dir)
        check_numbers(self)
        check_choice("originals", self.originals, ORIGINALS)
        check_positive("images_per_tar", self.images_per_tar)

    def fingerprint(self) -> dict[str, Any]:
        """Return what of the stage decides what is in its files."""
        without = {"output_dir", *(("images_per_tar", "deterministic_name") if self.originals == "none" else ())}
        return {name: value for name, value in super().fingerprint().items() if name not in without}

    def setup(self, worker_metadata: WorkerMetadata | None = None) -> None:
        """Make the output directory."""
        self._output().make_folder()

    def teardown(self) -> None:
        """Delete what is unfinished. A later run with the same stage replaces what this one wrote."""
        for partition in self._open.values():
            partition.discard()
        self._open.clear()
        self._written.clear()

    def process(self, task: ImageBatch) -> FileGroupTask | None:
        """Write one batch. Return the files of its partition with the last batch of it, None before."""
        name = self._partition_name(task)
        _state_scores(task)
        partition = self._open.get(name) or self._start(name, task)
        for number, image in enumerate(task.data):
            image.index = number if image.index < 0 else image.index  # made by a program: numbered for its name
        placed = None
        if partition.tars is not None:
            root = task.partition.root
            placed = {id(image): at for image in task.data if (at := self._place(image, partition.tars, root))}
        images = sorted([*task.data, *task.dropped], key=lambda image: image.index)
        partition.rows.schema = self._schema(task)  # with the latest provenance: figures in it grow with the run
        table = make_table(images, partition.rows.schema, placed)
        if task.partition.is_part:
            partition.part.append(table)
        else:
            partition.rows.add_rows(table)
        partition.counts.update(status_of(image) for image in images)
        if self.remove_image_data:
            for image in task.data:
                image.remove_image_data()
        return self._finish(name, partition, task) if task.partition.is_last_batch else None

    def _output(self) -> Place:
        return Place.of(self.output_dir, self.storage_options)

    def _partition_name(self, task: ImageBatch) -> str:
        """Return the base name of a batch's files: its partition's, or one made of its images' paths."""
        name = task.partition.name
        if not name:
            paths = sorted(image.image_path for image in [*task.data, *task.dropped])
            name = f"images-{digest_of('|'.join([*paths, task.task_id]))[:12]}"
        return name

    def _start(self, name: str, task: ImageBatch) -> _Partition:
        times = self._written[name]
        stem = name if not times else f"{name}-again-{times}"  # a stage in between split the last batch
        stem = stem if self.deterministic_name else f"images-{uuid.uuid4().hex[:16]}"
        output = self._output()
        if task.partition.attempt > 1:
            remove_drafts(output, [stem])
        rows = RowsFile(output / f"{stem}.parquet", self._schema(task))
        check_own_rows(rows.path)
        own = tars = None
        if self.originals == "shards":
            own = OwnFiles(output, f"written/{digest_of(stem)}")
            own.remove_drafts()
            tars = TarCopies(own, stem, self.images_per_tar)
        self._open[name] = partition = _Partition(rows, tars, own)
        return partition

    def _schema(self, task: ImageBatch) -> pa.Schema:
        made_by = task.partition.provenance
        return rows_schema(
            with_embeddings=self.write_embeddings,
            with_signals="signals" in made_by,
            with_copies=self.originals == "shards",
            provenance=made_by,
        )

    def _place(self, image: ImageObject, tars: TarCopies, root: str) -> tuple[str, str] | None:
        """Write one kept image where it belongs; return the file that it is in and its name there."""
        try:
            members = _members_of(image, root)
            unsafe = next((name for name in members if is_unsafe_name(name)), None)
            if unsafe is not None:
                raise UnreadableImageError(
                    f"unsafe name {unsafe!r}: it leads out of the output folder", ReasonKind.UNSAFE_NAME
                )
            tar, member = tars.add(members, image.shard)
            for name, why in tars.left_out.items():
                image.note(f"{name} is left out: {why}")
        except UnreadableImageError as error:
            image.fail(f"unreadable: {error}", error.reason_kind)
            return None
        return (self._output() / tar).address, member

    def _finish(self, name: str, partition: _Partition, task: ImageBatch) -> FileGroupTask:
        files = []
        if partition.tars is not None and partition.own is not None:
            partition.tars.finish()
            files = [(self._output() / tar).address for tar in partition.tars.names]
        if task.partition.is_part:
            partition.rows.discard()
            redone = pa.concat_tables(partition.part).replace_schema_metadata(partition.rows.schema.metadata)
            merge_rows(partition.rows.path, redone)
        else:
            partition.rows.commit()
        if partition.own is not None:
            partition.own.finish()
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
        }
        files.append(str(partition.rows.path))
        return FileGroupTask(
            task.dataset_name, files, task._stage_perf, metadata, task.task_id, partition=task.partition
        )


def _state_scores(task: ImageBatch) -> None:
    """Add scores to the provenance that a program's own stage gave its images without saying what made them."""
    stated = task.partition.provenance.get("scores", {})
    given: dict[str, dict[str, str]] = {
        name: {} for image in (*task.data, *task.dropped) for name in image.scores if name not in stated
    }
    if given:
        add_scores(task.partition, given)


def _members_of(image: ImageObject, root: str) -> dict[str, bytes | Section]:
    """Return name -> bytes of an image and its sidecars, as they go into a tar or a folder.

    Raises:
        UnreadableImageError: The bytes are gone or have changed.
    """
    if image.encoded is None and image.member is None:
        name, data = f"{image.image_id or f'{max(image.index, 0):06d}'}.jpg", _encode(image)
    else:
        data = image.read_encoded()
        if image.member is None:
            name = f"{image.image_id}.{(image.format or 'jpg').lower()}"
        elif len(data) != image.member.size:
            raise UnreadableImageError("the source changed while it was read", ReasonKind.CHANGED)
        else:
            name = _name_below(image.member.name, root if not image.shard else "")
    members: dict[str, bytes | Section] = {name: data}
    for extension in {**image.sidecar_members, **image.sidecars}:
        member = image.sidecar_members.get(extension)
        name = _name_below(member.name, root if not image.shard else "") if member else f"{image.image_id}.{extension}"
        members[name] = image.sidecar(extension)
    return members


def _name_below(path: str, root: str) -> str:
    return relative_to(path, root) if root else path


def _encode(image: ImageObject) -> bytes:
    """Return the pixels of an image that a program made, as JPEG."""
    from PIL import Image

    if image.image_data is None:
        raise UnreadableImageError("the image has neither source bytes nor pixels", ReasonKind.MISSING)
    if image.image_data.dtype != np.uint8 or image.image_data.shape[2:] not in ((), (3,), (4,)):
        shape = image.image_data.shape
        raise UnreadableImageError(
            f"image_data must be uint8 (H, W, 3), not {image.image_data.dtype} {shape}", ReasonKind.UNSUPPORTED
        )
    file = io.BytesIO()
    Image.fromarray(image.image_data).convert("RGB").save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()
