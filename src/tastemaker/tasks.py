"""What travels between stages: a task is a batch of work, never one image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from tastemaker.errors import ReasonKind, UnreadableImageError
from tastemaker.imaging.decode import DecodedImage, decode_image
from tastemaker.imaging.keys import Sample
from tastemaker.imaging.model_input import Preprocess
from tastemaker.imaging.readers import COMPRESSED_EXTENSIONS, Section
from tastemaker.imaging.shards import read_member
from tastemaker.imaging.shots import NO_SHOT, Shot
from tastemaker.imaging.tars import Member
from tastemaker.stage_perf import StagePerfStats
from tastemaker.storage import Options, public_url
from tastemaker.storage.inputs import SourceFile

T = TypeVar("T")


@dataclass
class Partition:
    """The part of an input that becomes one rows file: what Tastemaker's stages tell each other about it.

    Each task holds one of its own. `tastemaker.stages.base.run_stage` gives it to what a stage returns without one.

    Attributes:
        name: Of its files, without an extension; empty for a task that a program made by hand.
        root: The input folder that its files were found below.
        folder: ``name`` without its number, where the files are loose images; else the same as ``name``.
        is_loose: The files are loose images.
        files: Path (of a URL what may be shown), size in bytes and version of each file; gone ones have the size -1.
        source_bytes: Size of what is to be read of them, in bytes.
        storage_options: Settings of the files' store. They may hold a secret, and are never written.
        samples: The samples to read of its only shard; None for all.
        is_part: Only some of its images are read. Their rows take the places of the old ones.
        is_last_batch: No batch of it follows this one.
        attempt: Which try this is: above 1 a process has died before.
        provenance: What made its rows so far, as it is written into them.
        checkpoint: Which initial task of a pipeline with a checkpoint this is.
    """

    name: str = ""
    root: str = ""
    folder: str = ""
    is_loose: bool = False
    files: tuple[SourceFile, ...] = field(default=(), repr=False)
    source_bytes: int = 0
    storage_options: Options | None = field(default=None, repr=False)
    samples: list[Sample] | None = None
    is_part: bool = False
    is_last_batch: bool = True
    attempt: int = 1
    provenance: dict[str, Any] = field(default_factory=dict, repr=False)
    checkpoint: str = ""


@dataclass
class Task(ABC, Generic[T]):
    """A unit of work.

    Attributes:
        dataset_name: Name of the data set that it belongs to.
        data: What the stage works on.
        task_id: Identifies the task within a run; the same in every run over the same input.
        partition: What Tastemaker's stages tell each other. ``_metadata`` is for programs: their entries travel along.
    """

    dataset_name: str
    data: T
    _stage_perf: list[StagePerfStats] = field(default_factory=list, repr=False)
    _metadata: dict[str, Any] = field(default_factory=dict, repr=False)  # may hold the key of an object store
    task_id: str = ""
    partition: Partition = field(default_factory=Partition, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        self.validate()

    @property
    @abstractmethod
    def num_items(self) -> int:
        """Number of things in ``data``."""

    def count_images(self) -> tuple[int, int]:
        """Return the images in it, with those that left, and their bytes in the input files; zeros if it has none."""
        return 0, 0

    def validate(self) -> bool:
        """Return whether the task can be worked on. For subclasses that want to check more."""
        return True

    def add_stage_perf(self, perf_stats: StagePerfStats) -> None:
        """Record what a stage spent on this task."""
        self._stage_perf.append(perf_stats)


@dataclass
class EmptyTask(Task[None]):
    """Starts a pipeline whose first stage needs no input."""

    dataset_name: str = "empty"
    data: None = None

    @property
    def num_items(self) -> int:
        """Always 0."""
        return 0


@dataclass
class FileGroupTask(Task[list[str]]):
    """Paths of one or more shards, or of a number of loose image files."""

    dataset_name: str = ""
    data: list[str] = field(default_factory=list)
    reader_config: dict[str, Any] = field(default_factory=dict)

    @property
    def num_items(self) -> int:
        """Number of files."""
        return len(self.data)


class _LazyPixels:
    """`ImageObject.image_data`: decoded from the encoded bytes when it is first asked for."""

    def __get__(self, image: ImageObject | None, owner: type) -> npt.NDArray[np.uint8] | None:
        if image is None:  # the class is asked: this is the default of the dataclass field
            return None
        if image._pixels is None and (image.encoded is not None or image._is_read_again):
            image._pixels = image.decode().pixels
        return image._pixels

    def __set__(self, image: ImageObject, pixels: npt.NDArray[np.uint8] | Image.Image | None) -> None:
        image._pixels = np.asarray(pixels.convert("RGB")) if isinstance(pixels, Image.Image) else pixels


class _NamedScore:
    """A score under NeMo Curator's name for it: the entry of that name in `ImageObject.scores`, None without one."""

    def __init__(self, column: str) -> None:
        self._column = column

    def __get__(self, image: ImageObject | None, owner: type) -> float | None:
        if image is None:  # the class is asked: this is the default of the dataclass field
            return self  # type: ignore[return-value]
        return image.scores.get(self._column)

    def __set__(self, image: ImageObject, score: float | None) -> None:
        if score is None:
            image.scores.pop(self._column, None)
        elif not isinstance(score, _NamedScore):  # that is the default: nobody said anything
            image.scores[self._column] = score


@dataclass(eq=False, repr=False)
class ImageObject:
    """One image, who it is, and what is known of it.

    Attributes:
        image_path: ``shard.tar/member.jpg``, or the file's own path.
        image_id: The WebDataset key; for a loose file its path below the input folder, without the extension.
        metadata: Whatever users want to travel along; it goes into the rows as JSON.
        image_data: Pixels, uint8 (H, W, 3), RGB; may be set to an image of Pillow's, too. Decoded from ``encoded`` when
            first asked for.
        embedding: float32 (d,), of unit length: what the backbone of the scorer gives.
        scores: Column -> score, of each scorer that has scored it.
        aesthetic_score: The score of the default scorer, in ``scores``; LAION's lie roughly between 1 and 10.
        nsfw_score: That of the scorer ``nsfw``, in ``scores``: the probability that it is not safe for work.
        encoded: The source bytes, exactly as they are in the file.
        xxh3: XXH3-64 of those bytes, as 16 hexadecimal digits; empty where nobody has computed it.
        shard: Path of the tar that holds it; empty for a loose file.
        member: Its name, byte offset and size in that tar; for a loose file its path, 0 and the file's size.
        sidecars: Extension -> bytes of the other files with its key that were read with it: captions, JSON and XMP, and
            in a shard what is small.
        sidecar_members: Extension -> where each sidecar lies, read or not; `sidecar` gives its bytes.
        width: Columns of the decoded image, in pixels; None before it is decoded.
        height: Rows, in pixels.
        orientation: How the decoded image is still to be turned to stand upright, as EXIF has it: 1 to 8.
        format: Encoding by content, for example ``JPEG``.
        rating: Stars that somebody gave it: -1 (rejected), 0 to 5; None where there are none.
        shot: How it was taken, as its file says.
        model_input: uint8 (s, s, 3), made by the reader so that megabytes of pixels need not travel.
        model_input_kind: How ``model_input`` was made; None where nobody has.
        signals: Technical signals by name, where they were computed.
        reason: Why it was dropped or failed, as a sentence; empty for a kept image.
        reason_kind: The same as one of `tastemaker.errors.ReasonKind`; None for a kept image.
        failed: True where it could not be read or scored at all.
        index: Position in its partition, from 0; -1 where a program made the object by hand.
        decode_options: Keyword arguments of `decode_image`.
        storage_options: Arguments of the file system that the source lies in, where it is remote. Never written.
    """

    image_path: str = ""
    image_id: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    image_data: _LazyPixels = _LazyPixels()
    _pixels: npt.NDArray[np.uint8] | None = field(default=None, init=False)
    _is_read_again: bool = field(default=False, init=False)
    embedding: npt.NDArray[np.float32] | None = None
    scores: dict[str, float] = field(default_factory=dict, kw_only=True)
    aesthetic_score: _NamedScore = _NamedScore("aesthetic_score")
    nsfw_score: _NamedScore = _NamedScore("nsfw_score")
    encoded: bytes | None = None
    xxh3: str = ""
    shard: str = ""
    member: Member | None = None
    sidecars: dict[str, bytes] = field(default_factory=dict)
    sidecar_members: dict[str, Member] = field(default_factory=dict)
    width: int | None = None
    height: int | None = None
    orientation: int | None = None
    format: str | None = None
    rating: int | None = None
    shot: Shot = NO_SHOT
    model_input: npt.NDArray[np.uint8] | None = None
    model_input_kind: Preprocess | None = None
    signals: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    reason_kind: ReasonKind | None = None
    failed: bool = False
    index: int = -1
    decode_options: dict[str, Any] = field(default_factory=dict)
    storage_options: Options | None = None

    @property
    def has_pixels(self) -> bool:
        """True where pixels lie in memory: set by a program, or decoded because a stage asked for them."""
        return self._pixels is not None

    def pixels(self) -> npt.NDArray[np.uint8]:
        """Return the pixels in memory, else those of the source bytes, which are not kept.

        Raises:
            UnreadableImageError: There are no bytes, or they are no sound image.
        """
        return self.decode().pixels if self._pixels is None else self._pixels

    def decode(self) -> DecodedImage:
        """Return the pixels decoded from the source bytes, without keeping them; note size and format.

        Raises:
            UnreadableImageError: There are no bytes, or they are no sound image.
        """
        try:
            image = decode_image(self.read_encoded(), **self.decode_options)
        except UnreadableImageError as error:
            # A later run with another limit knows by it whether the image fits; nothing has more pixels than this.
            if error.size is not None and max(error.size) < 2**31:
                self.width, self.height = error.size
            raise
        self.width, self.height, self.format = image.width, image.height, image.format
        self.orientation = image.orientation
        if image.source:
            self.metadata["raw_pixels"] = image.source
        if image.note:
            self.note(image.note)
        return image

    def read_encoded(self) -> bytes:
        """Return the source bytes, from memory or else from where they came.

        Raises:
            UnreadableImageError: The object has neither bytes nor a source, or the source is gone.
        """
        if self.encoded is not None:
            return self.encoded
        if self.member is None:
            raise UnreadableImageError(
                "the image has neither encoded bytes nor a source to read them from", ReasonKind.MISSING
            )
        try:
            return read_member(self.shard or self.member.name, self.member, self.storage_options)
        except OSError as error:
            raise UnreadableImageError(f"the source is gone: {error}", ReasonKind.MISSING) from error

    def sidecar(self, extension: str) -> bytes | Section:
        """Return the bytes of a sidecar: from memory, or as a part of the source that can be read piece by piece."""
        if extension in self.sidecars:
            return self.sidecars[extension]
        member = self.sidecar_members[extension]
        return Section(self.shard or member.name, member.offset, member.size, self.storage_options)

    def note(self, sentence: str) -> None:
        """Put a sentence into the row, under ``notes`` of its metadata: what is odd about an image that is scored."""
        notes = self.metadata.setdefault("notes", [])
        if sentence not in notes:
            notes.append(sentence)

    def remove_image_data(self) -> None:
        """Free pixels and encoded bytes; the bytes only where they can be read again by their position."""
        self._pixels = self.model_input = None
        self._is_read_again = False
        if self._is_at_its_source():
            self.encoded = None

    def leave_source_behind(self) -> None:
        """Free what another process can read or make again: source bytes and model input. Pixels in memory stay.

        `image_data` is read from the source when it is first asked for.
        """
        self.model_input = None
        if self.encoded is not None and self._is_at_its_source():
            self.encoded, self._is_read_again = None, True

    def _is_at_its_source(self) -> bool:
        return self.member is not None and not public_url(self.shard).lower().endswith(COMPRESSED_EXTENSIONS)

    def fail(self, reason: str, kind: ReasonKind = ReasonKind.DAMAGED) -> None:
        """Mark the image as failed, and free what no later stage will ask for."""
        self.failed, self.reason, self.reason_kind = True, reason, kind
        self._pixels = self.model_input = self.encoded = None

    def __repr__(self) -> str:
        return f"ImageObject(image_id={self.image_id!r}, image_path={self.image_path!r}, scores={self.scores})"


@dataclass
class ImageBatch(Task[list[ImageObject]]):
    """A batch of images of one partition.

    Attributes:
        data: The images that are still in.
        dropped: The images that left, each with its ``reason``. Later stages pass them through; writers write
            a row for each.
    """

    dataset_name: str = ""
    data: list[ImageObject] = field(default_factory=list)
    dropped: list[ImageObject] = field(default_factory=list, kw_only=True)

    @property
    def num_items(self) -> int:
        """Number of images still in."""
        return len(self.data)

    def count_images(self) -> tuple[int, int]:
        """Return the images, kept or not, and the bytes that they and their sidecars have in the input files."""
        images = [*self.data, *self.dropped]
        members = (m for image in images for m in (image.member, *image.sidecar_members.values()) if m)
        return len(images), sum(member.size for member in members)

    def drop(self, image: ImageObject, reason: str, kind: ReasonKind = ReasonKind.DROPPED_BY_STAGE) -> None:
        """Move one image from ``data`` to ``dropped``."""
        image.reason, image.reason_kind = reason, kind
        self.dropped.append(image)
        self.data = [other for other in self.data if other is not image]
