"""The errors that Tastemaker raises.

::

    TastemakerError
    +-- ConfigurationError      an option is wrong, or an input is missing; raised before any work starts
    |   +-- MissingExtraError   an optional part is not installed; the message names the extra
    +-- ModelError              weights or embeddings are not what they must be
    |   +-- WeightsNotFoundError  a weights file is not there and cannot be fetched
    +-- RemoteError             a remote file cannot be read or written, and trying again did not help
    +-- UnreadableImageError    one image cannot be decoded; the pipeline turns it into a row
    +-- MetadataError           a rating cannot be read or set: the XMP is damaged, or there is no room
    +-- StageError              a stage raised; names the stage, the shard and the key
    +-- DiskFullError           the results have no room; what is finished stays
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class ReasonKind(StrEnum):
    """Why an image has no score, or was dropped: the values of the column ``reason_kind``. The set is closed.

    Attributes:
        MISSING: The file is gone, or cannot be opened or read.
        CHANGED: The file changed while it was read.
        NOT_AN_IMAGE: Its content is no image in a known format.
        DAMAGED: Its content is damaged or cut off.
        UNSUPPORTED: A whole image of a kind that is not read.
        NEEDS_HEIF: The extra ``heif`` reads it.
        NEEDS_RAW: The extra ``raw`` reads it.
        TOO_LARGE: More pixels, scans or bytes than the limits allow.
        DUPLICATE_KEY: Another sample of its shard has its key.
        UNSUPPORTED_MEMBER: A member of a shard that is a link, a sparse file, or larger than a member may be.
        LATE_MEMBER: A member of a key lies too far behind the others in a shard at a URL, which is read once.
        UNSAFE_NAME: Its name leads out of the folder that its shard is unpacked to.
        DAMAGED_SHARD: Its shard is damaged or cut off.
        CRASHED: Decoding it ended the process, and again in a process of its own.
        UNUSABLE_EMBEDDING: The embedding is zero, not finite, or of another length.
        BELOW_CUTOFF: Its score is below the threshold of a stage.
        DROPPED_BY_STAGE: Another stage left it out.
        DELETED: Its file is gone since it was scored.
    """

    MISSING = "missing"
    CHANGED = "changed"
    NOT_AN_IMAGE = "not_an_image"
    DAMAGED = "damaged"
    UNSUPPORTED = "unsupported"
    NEEDS_HEIF = "needs_heif"
    NEEDS_RAW = "needs_raw"
    TOO_LARGE = "too_large"
    DUPLICATE_KEY = "duplicate_key"
    UNSUPPORTED_MEMBER = "unsupported_member"
    LATE_MEMBER = "late_member"
    UNSAFE_NAME = "unsafe_name"
    DAMAGED_SHARD = "damaged_shard"
    CRASHED = "crashed"
    UNUSABLE_EMBEDDING = "unusable_embedding"
    BELOW_CUTOFF = "below_cutoff"
    DROPPED_BY_STAGE = "dropped_by_stage"
    DELETED = "deleted"


class Problem(NamedTuple):
    """What is wrong with an image or a member of a shard: the kind, and a sentence for people."""

    kind: ReasonKind
    text: str

    def __str__(self) -> str:
        return self.text


class TastemakerError(Exception):
    """The root of every error that Tastemaker raises on purpose."""


class ConfigurationError(TastemakerError, ValueError):
    """An option is wrong or an input is missing. Raised before any worker starts."""


class MissingExtraError(ConfigurationError, ImportError):
    """An optional part of Tastemaker is needed and is not installed."""


class ModelError(TastemakerError, ValueError):
    """Weights, embeddings or pixels do not fit the model."""


class WeightsNotFoundError(ModelError):
    """A weights file is not on this machine and could not be fetched."""


class RemoteError(TastemakerError, OSError):
    """A remote file cannot be read or written, and trying again did not help. The pipeline turns it into rows."""


class UnreadableImageError(TastemakerError):
    """One image cannot be read. Its message is the reason that its row records.

    Attributes:
        reason_kind: The same as one of a closed set.
        size: Width and height of an image that has too many pixels; None otherwise.
    """

    def __init__(
        self, message: str, reason_kind: ReasonKind = ReasonKind.DAMAGED, size: tuple[int, int] | None = None
    ) -> None:
        super().__init__(message)
        self.reason_kind = reason_kind
        self.size = size


class MetadataError(TastemakerError, ValueError):
    """The metadata of a picture cannot be read or changed: it is damaged, or there is no room for more."""


class StageError(TastemakerError):
    """A stage of a pipeline raised. The original error is its ``__cause__``."""


class DiskFullError(TastemakerError):
    """The results have no room left. What is finished stays, and the same run goes on from there."""


def was_interrupted(error: BaseException) -> bool:
    """Return whether Ctrl-C or SIGTERM is behind an error: C modules that are just loaded make an ImportError of it."""
    behind: BaseException | None = error
    while behind is not None and not isinstance(behind, KeyboardInterrupt):
        behind = behind.__cause__ or behind.__context__
    return behind is not None
