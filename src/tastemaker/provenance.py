"""What made a score: models, preprocessing, precision, versions. Stages add to it; writers store it."""

from __future__ import annotations

from pathlib import Path

from tastemaker import __version__
from tastemaker.errors import ConfigurationError
from tastemaker.imaging.model_input import Preprocess
from tastemaker.machine import package_version
from tastemaker.models.hub import ensure_head, ensure_weights, file_sha256, weights_path
from tastemaker.models.records import Head, Model
from tastemaker.storage import Options, expand_path, is_remote
from tastemaker.tasks import Partition


def reader_provenance(
    how: Preprocess, resize: str, *, apply_exif_rotation: bool, convert_profile: bool
) -> dict[str, str]:
    """Return how images became the model's input.

    Args:
        how: What the model wants its input to be.
        resize: ``pillow`` or ``torch``.
        apply_exif_rotation: Images were turned.
        convert_profile: Images were converted to sRGB.
    """
    used = ("pillow", "simplejpeg", "numpy", *(["torch"] if resize == "torch" else []))
    return {
        "tastemaker": __version__,
        "preprocess": how.kind,
        "input_size": str(how.size),
        "resize": resize,
        "exif_rotation": "applied" if apply_exif_rotation else "ignored",
        "colour_profile": "converted" if convert_profile else "ignored",
        **{package: package_version(package) or "unknown" for package in used},
        **{package: found for package in ("pillow-heif", "rawpy") if (found := package_version(package))},
    }


def weights_provenance(part: str, model: Model, weights: Path) -> dict[str, str]:
    """Return which weights were used. The revision is stated only where the digest proves it.

    Args:
        part: ``clip`` or ``predictor``: the prefix of the entries.
        model: What the file should be.
        weights: The file.
    """
    sha256 = file_sha256(weights)
    is_pinned = sha256 == model.sha256
    return {
        f"{part}_model": model.id if is_pinned else weights.name,
        f"{part}_revision": (model.revision if is_pinned else None) or "unknown",
        f"{part}_sha256": sha256,
    }


def weights_digest(
    model: Model, model_dir: str | None, other: str | None = None, options: Options | None = None
) -> str:
    """Return the SHA-256 of the weights that a run will use, without loading them.

    Args:
        model: Which weights. Of those that are not there yet, the digest of the file that will be fetched is returned;
            where the record does not know it, they are fetched now.
        model_dir: Directory of models.
        other: Path of the user's own weights instead, of a head.
        options: Settings of the store where weights lie at a URL: those are fetched.

    Raises:
        ConfigurationError: The user's own weights are not there.
    """
    if is_remote(other or model_dir or ""):
        if isinstance(model, Head):
            return file_sha256(ensure_head(model, other, model_dir, options))
        return file_sha256(ensure_weights(model, model_dir, options))
    try:
        return file_sha256(expand_path(other) if other else weights_path(model, model_dir))
    except FileNotFoundError:
        if other:
            raise ConfigurationError(f"predictor: {other} does not exist") from None
        return model.sha256 or file_sha256(ensure_weights(model, model_dir, options))


def add_provenance(partition: Partition, **entries: object) -> None:
    """Add entries to the provenance of a batch's partition."""
    partition.provenance = {"tastemaker": __version__, **partition.provenance, **entries}
