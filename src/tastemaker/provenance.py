"""What made a score: models, preprocessing, precision, versions. Stages add to it; writers store it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tastemaker import __version__
from tastemaker.errors import ConfigurationError
from tastemaker.imaging.model_input import Preprocess
from tastemaker.machine import package_version
from tastemaker.models.hub import ensure_weights, file_sha256, weights_path
from tastemaker.models.own import describe_notes, read_notes
from tastemaker.models.records import Model, Scorer, TextHead
from tastemaker.storage import Options, is_remote
from tastemaker.storage.place import Place
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


def weights_provenance(model: Model, weights: Path) -> dict[str, str]:
    """Return which weights were used. The revision is stated only where the digest proves it.

    Args:
        model: What the file should be.
        weights: The file.
    """
    sha256 = file_sha256(weights)
    is_pinned = sha256 == model.sha256
    return {
        "model": model.id if is_pinned else weights.name,
        "revision": (model.revision if is_pinned else None) or "unknown",
        "sha256": sha256,
    }


def score_provenance(scorer: Scorer, weights: Path) -> dict[str, str]:
    """Return what fills a scorer's column: the entry of the column under ``scores`` in the provenance of rows."""
    prompts = scorer.head.prompts if isinstance(scorer.head, TextHead) else ()
    stated = {"prompts": " | ".join(prompts)} if prompts else {}
    if scorer.head.path is not None and (learned := describe_notes(read_notes(Place.at(str(weights))))):
        stated["learned"] = learned
    return {
        "scorer": scorer.name,
        "backbone": scorer.backbone.id,
        **stated,
        **weights_provenance(scorer.head, weights),
    }


def weights_digest(model: Model, model_dir: str | None, options: Options | None = None) -> str:
    """Return the SHA-256 of the weights that a run will use, without loading them.

    Args:
        model: Which weights. Of those that are not there yet, the digest of the file that will be fetched is returned;
            where the record does not know it, they are fetched now.
        model_dir: Directory of models.
        options: Settings of the store where weights lie at a URL: those are fetched.

    Raises:
        ConfigurationError: The user's own weights are not there.
    """
    if is_remote(model.path or model_dir or ""):
        return file_sha256(ensure_weights(model, model_dir, options))
    try:
        return file_sha256(weights_path(model, model_dir))
    except FileNotFoundError:
        if model.path is not None:
            raise ConfigurationError(f"scorer: {model.path} does not exist") from None
        return model.sha256 or file_sha256(ensure_weights(model, model_dir, options))


def add_provenance(partition: Partition, **entries: object) -> None:
    """Add entries to the provenance of a batch's partition."""
    partition.provenance = {"tastemaker": __version__, **partition.provenance, **entries}


def add_scores(partition: Partition, made_by: Mapping[str, Mapping[str, str]]) -> None:
    """Add to a batch's provenance what fills its columns of scores: column -> `score_provenance`."""
    add_provenance(partition, scores={**partition.provenance.get("scores", {}), **made_by})


def check_backbone(made_by: Mapping[str, Any], scorer: Scorer) -> None:
    """Raise `ConfigurationError` where rows state that another backbone made their embeddings than a scorer takes."""
    stated = {entry.get("backbone") for entry in made_by.get("scores", {}).values()} - {None}
    if stated - {scorer.backbone.id}:
        raise ConfigurationError(
            f"{', '.join(sorted(stated))} made the embeddings of these rows, and {scorer.name} takes those of "
            f"{scorer.backbone.id}: choose a scorer on the same backbone (`tastemaker scorers` lists them), or score "
            "the pictures with this one into another directory"
        )
