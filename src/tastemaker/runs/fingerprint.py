"""What made a row, in so few words that two runs can be compared by them: found without loading a model."""

from __future__ import annotations

from typing import Any

from tastemaker.models.clip import resolve_precision
from tastemaker.models.device import choose_device
from tastemaker.models.published import find_scorer
from tastemaker.provenance import weights_digest
from tastemaker.runs.options import RunOptions

OPTIONS_THAT_CHANGE_ROWS = (
    *("min_score", "top", "originals", "images_per_tar", "preprocess", "scorer", "exif_rotate", "max_pixels"),
    *("signals", "min_technical_quality", "embeddings", "embedding_column", "copy_embeddings", "rank_by"),
)
"""Options that stand in the fingerprint as they are. Models and precision stand there as what they come to."""

ROWS_FORMAT = 2
"""Changes when the same options and models give other rows, because the program computes something differently."""

Fingerprint = dict[str, Any]

_DIGITS = 12


def make_fingerprint(options: RunOptions, *, of_embeddings: bool = False) -> Fingerprint:
    """Return what decides the rows of a run: options, weights by digest, and the precision that really runs.

    No model is loaded, and no GPU is used. Of weights that are not there yet, the digest of the file that will be
    fetched counts.

    Args:
        options: Of the run.
        of_embeddings: The input is embeddings that others computed, so that only the predictor runs.

    Raises:
        ConfigurationError: The device or precision is not to be had on this machine.
    """
    values = {name: value for name, value in options.as_json().items() if name in OPTIONS_THAT_CHANGE_ROWS}
    values["signals"] = options.signals or options.min_technical_quality is not None
    models: Fingerprint = {"clip_sha256": None, "predictor_sha256": None, "precision": None, "resize": None}
    scorer = find_scorer(options.scorer)
    if options.rank_by == scorer.column:
        models["predictor_sha256"] = weights_digest(
            scorer.head, options.model_dir, options.predictor, options.storage_options
        )
    if not of_embeddings:
        device = choose_device(options.device)
        models["resize"] = "pillow" if device == "cpu" else "torch"
        if options.rank_by == scorer.column:
            models["clip_sha256"] = weights_digest(scorer.backbone, options.model_dir, None, options.storage_options)
            models["precision"] = resolve_precision(device, options.precision)
    return {"rows_format": ROWS_FORMAT, **models, **values}


def list_differences(made_by: Fingerprint, wanted: Fingerprint) -> list[str]:
    """Return what differs between two fingerprints, one line each.

    Example:
        >>> list_differences({"precision": "bf16", "signals": False}, {"precision": "f32", "signals": False})
        ["precision was 'bf16' and is 'f32'"]
    """
    if not made_by:
        return ["no fingerprint says how: another version of Tastemaker wrote them"]
    names = dict.fromkeys([*wanted, *made_by])
    return [
        f"{name} was {_short(made_by.get(name))} and is {_short(wanted.get(name))}"
        for name in names
        if made_by.get(name) != wanted.get(name)
    ]


def _short(value: object) -> str:
    is_digest = isinstance(value, str) and len(value) == 64
    return f"{str(value)[:_DIGITS]}..." if is_digest else repr(value)
