"""Bytes, identity and model input of every image in a group of files."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import InitVar, asdict, dataclass, field, replace
from importlib.util import find_spec
from typing import Any

import xxhash

from tastemaker.checks import check_choice, check_numbers, check_positive
from tastemaker.errors import MissingExtraError, UnreadableImageError
from tastemaker.imaging.decode import MAX_IMAGE_PIXELS
from tastemaker.imaging.embedded import find_rating, read_embedded
from tastemaker.imaging.keys import Sample, split_key
from tastemaker.imaging.model_input import ROUNDINGS, Preprocess
from tastemaker.imaging.preprocess import RESIZES, Pixels, preprocess, preprocess_with_torch
from tastemaker.imaging.room import ROOM
from tastemaker.imaging.signals import SIGNALS_VERSION, compute_signals
from tastemaker.machine import usable_cores
from tastemaker.models.device import INSTALL_TORCH, choose_device
from tastemaker.models.published import DEFAULT_SCORER, Scorers, find_scorers
from tastemaker.provenance import add_provenance, reader_provenance
from tastemaker.stages.base import ProcessingStage, WorkerMetadata, is_careful
from tastemaker.stages.child import ChildDecoder
from tastemaker.stages.samples import read_group
from tastemaker.storage import public_url
from tastemaker.tasks import FileGroupTask, ImageBatch, ImageObject

_PORTION_BYTES, _PORTION_IMAGES = 2**19, 8
"""Small images go to the threads a few at a time: to hand one over costs as much as a tenth of decoding it."""

_BATCH_BYTES = 2**28
"""A batch of large images ends early: half a dozen batches are under way, and each image of a hundred megabytes is."""

logger = logging.getLogger(__name__)


@dataclass
class ImageReaderStage(ProcessingStage[FileGroupTask, ImageBatch]):
    """Reads shards and loose images, decodes them, and makes the model's input.

    Every image keeps its key, its source bytes and its sidecars. One that cannot be read leaves in
    ``ImageBatch.dropped`` with the reason. Decoded pixels are not kept; ``image_data`` decodes them again on demand.

    Args:
        batch_size: Images in an ImageBatch; fewer where their files have more than 256 MiB together. Also accepted as
            ``dali_batch_size`` and ``task_batch_size``.
        verbose: Log a line for each batch and each image that cannot be read.
        num_threads: Threads that decode; never more than the machine has cores.
        num_gpus_per_worker: NeMo Curator's name. Processors decode here, so no GPU is asked for.
        preprocess: How a crop is rounded, ``openai`` or ``transformers``; None as the scorer's record has it.
        apply_exif_rotation: Turn images as their EXIF orientation says. None turns loose files, as people look at them,
            and no images in shards and tables. The reference programs turn none.
        convert_profile: Convert images with a colour profile to sRGB.
        max_pixels: Larger images are recorded as decompression bombs.
        resize: ``pillow``; ``torch``, faster and within 2 of 255 of it; or ``auto``: torch where the worker has a GPU
            that torch can use, else Pillow.
        scorer: Whose input is made: a name, or a `Scorer`. The stages that follow need the same one.
        column: Of tables, the column with the pictures; None to recognise it.
        signals: Measure the technical signals while the pixels are there; None for those of loose pictures only.

    Raises:
        ConfigurationError: An option is out of its range.
    """

    batch_size: int = 100
    verbose: bool = False
    num_threads: int = 8
    num_gpus_per_worker: float = 0.25
    name: str = "image_reader"
    is_sink_stage = False
    preprocess: str | None = None
    apply_exif_rotation: bool | None = False
    convert_profile: bool = False
    max_pixels: int = MAX_IMAGE_PIXELS
    resize: str = "auto"
    scorer: Scorers = DEFAULT_SCORER
    column: str | None = None
    signals: bool | None = False
    dali_batch_size: InitVar[int | None] = None
    task_batch_size: InitVar[int | None] = None
    _pool: ThreadPoolExecutor | None = field(default=None, init=False, repr=False)
    _resize: str = field(default="pillow", init=False, repr=False)
    _make_input: Callable[[Pixels, Preprocess], Pixels] | None = field(default=None, init=False, repr=False)

    def __post_init__(self, dali_batch_size: int | None, task_batch_size: int | None) -> None:
        for given in (task_batch_size, dali_batch_size):
            self.batch_size = self.batch_size if given is None else given
        check_numbers(self)
        for option in ("batch_size", "num_threads", "max_pixels"):
            check_positive(option, getattr(self, option))
        if self.preprocess is not None:
            check_choice("preprocess", self.preprocess, ROUNDINGS)
        find_scorers(self.scorer)
        check_choice("resize", self.resize, RESIZES)

    def check(self) -> None:
        """Raise `MissingExtraError` where torch is to resize and is not installed."""
        if self.resize == "torch" and find_spec("torch") is None:
            raise MissingExtraError(f"resize='torch' needs PyTorch: {INSTALL_TORCH}")

    @property
    def _how(self) -> Preprocess:
        return find_scorers(self.scorer)[0].backbone.preprocess.with_rounding(self.preprocess)

    def _decode_options(self, *, are_loose: bool) -> dict[str, bool]:
        turns = are_loose if self.apply_exif_rotation is None else self.apply_exif_rotation
        return {"apply_exif_rotation": turns, "convert_profile": self.convert_profile}

    def fingerprint(self) -> dict[str, Any]:
        """Return the options, with what the scorer wants its input to be and what resizes on this machine."""
        return {**super().fingerprint(), **self._how.fingerprint(), "resize": choose_resize(self.resize)}

    def outputs(self) -> tuple[list[str], list[str]]:
        """Return what the stage sets."""
        return ["data"], ["image_data", "image_path", "image_id"]

    def setup(self, worker_metadata: WorkerMetadata | None = None) -> None:
        """Start the threads that decode."""
        if self._pool is None:
            self._resize = choose_resize(self.resize)
            self._make_input = load_preprocess(self._resize)
            self._pool = ThreadPoolExecutor(self._threads(), thread_name_prefix="decode")

    def _threads(self) -> int:
        return min(self.num_threads, usable_cores())

    def teardown(self) -> None:
        """Stop the threads that decode."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def process(self, task: FileGroupTask) -> list[ImageBatch]:
        """Return all images of a group of files, in batches."""
        return list(self.stream(task))

    def stream(self, task: FileGroupTask) -> Iterator[ImageBatch]:
        """Yield the images of a group of files in batches, decoding ahead of what was asked for."""
        self.setup()
        images = self._read(task)
        images = self._decode_apart(images) if is_careful(task) else self._decode_ahead(images)
        for number, (members, is_last) in enumerate(_in_batches(images, self.batch_size)):
            yield self._make_batch(task, members, number, is_last=is_last)

    def _decode_apart(self, images: Iterator[ImageObject]) -> Iterator[ImageObject]:
        """Yield the same images, each decoded alone in a child process: one that kills it costs only its own row."""
        reader = ImageReaderStage(
            num_threads=1, preprocess=self.preprocess, resize=self._resize, scorer=self.scorer, signals=self.signals
        )
        with contextlib.closing(ChildDecoder(reader)) as child:
            for image in images:
                yield child.prepare(image)

    def _make_batch(self, task: FileGroupTask, images: list[ImageObject], number: int, *, is_last: bool) -> ImageBatch:
        failed = [image for image in images if image.failed]
        if self.verbose:
            logger.info(
                "read %d images of %s, %d unreadable", len(images), [*map(public_url, task.data[:1])], len(failed)
            )
            for image in failed:
                path = public_url(image.image_path)
                logger.info("Image %s (path: %s) failed: %s", image.image_id, path, image.reason)
        # Unless the group has a name, all its batches need the same one.
        name = task.partition.name or _name_partition(task.data)
        partition = replace(task.partition, name=name, is_last_batch=is_last)
        options = self._decode_options(are_loose=not any(image.shard for image in images))
        add_provenance(partition, **reader_provenance(self._how, self._resize, **options))
        if self.signals or (self.signals is None and partition.is_loose):
            add_provenance(partition, signals=SIGNALS_VERSION)
        return ImageBatch(
            task.dataset_name,
            [image for image in images if not image.failed],
            _metadata=dict(task._metadata),
            task_id=f"{task.task_id}_{number}",
            dropped=failed,
            partition=partition,
        )

    def _read(self, task: FileGroupTask) -> Iterator[ImageObject]:
        for index, (path, sample, data) in enumerate(read_group(task, self.column)):
            image = self._make_image(path, sample, data, index)
            image.storage_options = task.partition.storage_options
            yield image

    def _make_image(self, path: str, sample: Sample, data: dict[str, bytes], index: int) -> ImageObject:
        is_loose = sample.image is not None and sample.image.name == path
        name = sample.image.name if sample.image else sample.key
        image = ImageObject(
            image_path=path if is_loose or not name else f"{public_url(path)}/{name}",
            image_id=sample.key,
            encoded=data.get(name),
            shard="" if is_loose else path,
            member=sample.image,
            sidecars={
                **{ext: content for ext, content in sample.described.items() if not sample.has_sidecar(ext)},
                **{ext: data[member.name] for ext, member in sample.sidecars.items() if member.name in data},
            },
            sidecar_members=sample.sidecars,
            index=index,
            decode_options={"max_pixels": self.max_pixels, **self._decode_options(are_loose=is_loose)},
        )
        for sentence in sample.notes:
            image.note(sentence)
        if sample.problem:
            image.fail(f"unreadable: {sample.problem}", sample.problem.kind)
        return image

    def _decode_ahead(self, images: Iterator[ImageObject]) -> Iterator[ImageObject]:
        """Yield the images in order, each with its model input, while the pool works on the next ones."""
        assert self._pool is not None
        most = max(1, min(_PORTION_IMAGES, self.batch_size // (2 * self._threads())))
        pending: deque[tuple[Future[list[ImageObject]], int]] = deque()
        ahead = ahead_bytes = 0
        for portion in _portions(images, most):
            size = sum(map(_held_bytes, portion))
            pending.append((self._pool.submit(self._prepare_all, portion), size))
            ahead, ahead_bytes = ahead + len(portion), ahead_bytes + size
            while ahead >= self.batch_size or ahead_bytes >= _BATCH_BYTES:
                future, size = pending.popleft()
                done = future.result()
                ahead, ahead_bytes = ahead - len(done), ahead_bytes - size
                yield from done
        for future, _ in pending:
            yield from future.result()

    def _prepare_all(self, images: list[ImageObject]) -> list[ImageObject]:
        return [self._prepare(image) for image in images]

    def _prepare(self, image: ImageObject) -> ImageObject:
        assert self._make_input is not None
        if image.encoded is not None:
            image.xxh3 = xxhash.xxh3_64_hexdigest(image.encoded)
        if not image.failed:
            embedded = read_embedded(image.encoded or b"")
            image.rating, image.shot = find_rating(embedded, image.sidecars, _extension_of(image)), embedded.shot
            try:
                with ROOM.hold():  # until its pixels are gone
                    pixels = image.decode().pixels
                    image.model_input = self._make_input(pixels, self._how)
                    if self.signals or (self.signals is None and not image.shard):
                        image.signals = asdict(compute_signals(pixels))
                image.model_input_kind = self._how
            except UnreadableImageError as error:
                image.fail(f"unreadable: {error}", error.reason_kind)
        return image


def _in_batches(images: Iterable[ImageObject], most: int) -> Iterator[tuple[list[ImageObject], bool]]:
    """Yield images in batches, and whether it is the last; there is one in any case."""
    batch: list[ImageObject] = []
    held = 0
    for image in images:
        if len(batch) == most or held >= _BATCH_BYTES:
            yield batch, False
            batch, held = [], 0
        batch.append(image)
        held += _held_bytes(image)
    yield batch, True


def _held_bytes(image: ImageObject) -> int:
    """Return how many bytes of its files an image keeps in memory."""
    return len(image.encoded or b"") + sum(map(len, image.sidecars.values()))


def _portions(images: Iterable[ImageObject], most: int) -> Iterator[list[ImageObject]]:
    """Yield images in portions for a thread: up to ``most`` small ones, or a single large one."""
    portion: list[ImageObject] = []
    size = 0
    for image in images:
        portion.append(image)
        size += _held_bytes(image)
        if size >= _PORTION_BYTES or len(portion) == most:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def choose_resize(wanted: str) -> str:
    """Return ``pillow`` or ``torch`` for one of `RESIZES`, on this machine."""
    if wanted != "auto":
        return wanted
    return "torch" if choose_device("auto") != "cpu" else "pillow"


def resize_for(device: str) -> str:
    """Return the ``resize`` of a reader whose images a model on this device takes: Pillow's for a processor."""
    if choose_device(device) == "cpu":
        return "pillow"
    return "auto" if device == "auto" else "torch"  # of workers that choose by themselves, some may have no GPU


def load_preprocess(resize: str) -> Callable[[Pixels, Preprocess], Pixels]:
    """Return the function that makes the model's input with ``pillow`` or ``torch``, which takes seconds to import."""
    if resize == "pillow":
        return preprocess
    import torch  # noqa: F401 - here, before threads wait for it

    return preprocess_with_torch


def _extension_of(image: ImageObject) -> str:
    """Return what follows the key in a member's name, or the stem in a loose file's."""
    name = image.member.name if image.member else image.image_path
    return split_key(name)[1] if image.shard else os.path.splitext(name)[1][1:]


def _name_partition(paths: list[str]) -> str:
    digest = hashlib.sha256("|".join(map(public_url, paths)).encode("utf-8", "surrogateescape"))
    return f"images-{digest.hexdigest()[:12]}"
