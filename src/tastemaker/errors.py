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
    """One image cannot be read. Its message is the reason that its row records."""


class MetadataError(TastemakerError, ValueError):
    """The metadata of a picture cannot be read or changed: it is damaged, or there is no room for more."""


class StageError(TastemakerError):
    """A stage of a pipeline raised. The original error is its ``__cause__``."""


class DiskFullError(TastemakerError):
    """The results have no room left. What is finished stays, and the same run goes on from there."""
