"""What made a row, in so few words that two runs can be compared by them: found without loading a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tastemaker.stages.base import ProcessingStage

ROWS_FORMAT = 3
"""Changes when the same stages give other rows, because the program computes something differently."""

Fingerprint = dict[str, Any]
"""``rows_format``, and the name of each stage -> what it says of itself."""

_DIGITS = 12


def make_fingerprint(stages: Sequence[ProcessingStage[Any, Any]]) -> Fingerprint:
    """Return what decides the results of a pipeline: what each stage says decides its own.

    No model is loaded, and no GPU is used. Of weights that are not there yet, the digest of the file that will be
    fetched counts.

    Raises:
        ConfigurationError: The device or precision is not to be had on this machine.
    """
    made_by: Fingerprint = {"rows_format": ROWS_FORMAT}
    for number, stage in enumerate(stages):
        name = stage.name if stage.name not in made_by else f"{stage.name}-{number}"
        made_by[name] = stage.fingerprint()
    return made_by


def list_differences(made_by: Fingerprint, wanted: Fingerprint) -> list[str]:
    """Return what differs between two fingerprints, one line each.

    Example:
        >>> list_differences({"image_embedding": {"precision": "bf16"}}, {"image_embedding": {"precision": "f32"}})
        ["precision of image_embedding was 'bf16' and is 'f32'"]
    """
    before, now = dict(_flatten(made_by)), dict(_flatten(wanted))
    return [
        f"{name} was {_short(before.get(name))} and is {_short(now.get(name))}"
        for name in dict.fromkeys([*now, *before])
        if before.get(name) != now.get(name)
    ]


def _flatten(fingerprint: Fingerprint) -> list[tuple[str, Any]]:
    entries: list[tuple[str, Any]] = []
    for stage, said in fingerprint.items():
        if isinstance(said, dict):
            entries += [
                (f"stage {stage}", "there"),
                *((f"{option} of {stage}", value) for option, value in said.items()),
            ]
        else:
            entries.append((stage, said))
    return entries


def _short(value: object) -> str:
    is_digest = isinstance(value, str) and len(value) == 64
    return f"{str(value)[:_DIGITS]}..." if is_digest else repr(value)
