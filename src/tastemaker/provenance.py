"""What made a score: models, preprocessing, precision, versions. Stages add to it; writers store it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tastemaker import __version__
from tastemaker.models.hub import ModelFile, file_sha256


def reader_provenance(preprocess: str, apply_exif_rotation: bool, resize: str) -> dict[str, str]:
    """Return how images became the model's input. ``resize`` is ``pillow`` or ``torch``."""
    return {
        "tastemaker": __version__,
        "preprocess": preprocess,
        "resize": resize,
        "exif_rotation": "applied" if apply_exif_rotation else "ignored",
        **_versions("pillow", "simplejpeg", "numpy", *(["torch"] if resize == "torch" else [])),
        **{package: found for package in ("pillow-heif", "rawpy") if (found := _version(package)) != "unknown"},
    }


def weights_provenance(part: str, model: ModelFile, weights: Path) -> dict[str, str]:
    """Return which weights were used. The revision is stated only where the digest proves it.

    Args:
        part: ``clip`` or ``predictor``: the prefix of the entries.
        model: What the file should be.
        weights: The file.
    """
    sha256 = file_sha256(weights)
    is_pinned = sha256 == model.sha256
    return {
        f"{part}_model": model.repo_id if is_pinned else weights.name,
        f"{part}_revision": model.revision if is_pinned else "unknown",
        f"{part}_sha256": sha256,
    }


def add_provenance(metadata: dict[str, object], **entries: object) -> None:
    """Add entries to a batch's ``_metadata["provenance"]``."""
    known = metadata.get("provenance")
    metadata["provenance"] = {**(known if isinstance(known, dict) else {"tastemaker": __version__}), **entries}


def _versions(*packages: str) -> dict[str, str]:
    return {package: _version(package) for package in packages}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
