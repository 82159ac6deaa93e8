"""What made a row, in so few words that two runs can be compared by them: found without loading a model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tastemaker.stages.base import ProcessingStage

ROWS_FORMAT = 5
"""Changes when the same stages give other rows, because the program computes something differently."""

Fingerprint = dict[str, Any]
"""``rows_format``, and the name of each stage -> what it says of itself."""

_DIGITS = 12
_KINDS_SHOWN = 3


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
    as_it_is_read: Fingerprint = json.loads(json.dumps(made_by))
    return as_it_is_read


def canonical(value: Any) -> str:  # noqa: ANN401 - whatever JSON takes
    """Return a value as JSON that is the same for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def describe_others(made_by: Mapping[str, str], wanted: Fingerprint, total: int) -> str:
    """Return in how many of the results that are there other things than wanted stand, and which.

    Args:
        made_by: Name of each such result -> its fingerprint, as `canonical` JSON.
        wanted: The fingerprint that they should have.
        total: Number of results.
    """
    lines = []
    for other, number in Counter(made_by.values()).most_common(_KINDS_SHOWN):
        example = next(name for name, fingerprint in made_by.items() if fingerprint == other)
        differences = "; ".join(list_differences(json.loads(other or "{}"), wanted))
        lines.append(f"in {number:,} of {total:,} files, such as {example}, {differences}")
    return "; and ".join(lines)


def list_differences(made_by: Fingerprint, wanted: Fingerprint) -> list[str]:
    """Return what differs between two fingerprints, one line each.

    Example:
        >>> list_differences({"image_embedding": {"precision": "bf16"}}, {"image_embedding": {"precision": "f32"}})
        ["precision of image_embedding was 'bf16' and is 'f32'"]
    """
    differences = []
    for name in dict.fromkeys([*wanted, *made_by]):
        before, now = made_by.get(name), wanted.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            differences += [
                difference.replace(" was", f" of {name} was", 1) for difference in list_differences(before, now)
            ]
        elif isinstance(before, dict) or isinstance(now, dict):
            differences.append(f"{name} was {'there' if before else 'not there'}")
        elif before != now:
            differences.append(f"{name} was {_short(before)} and is {_short(now)}")
    return differences


def _short(value: object) -> str:
    is_digest = isinstance(value, str) and len(value) == 64
    return f"{str(value)[:_DIGITS]}..." if is_digest else repr(value)
