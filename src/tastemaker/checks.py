"""Checks of options, before anything runs: the message names the option and what arrived."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import fields
from numbers import Integral, Real
from typing import TYPE_CHECKING

from tastemaker.errors import ConfigurationError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_KINDS = {
    "int": (Integral, "a whole number such as 32"),
    "float": (Real, "a number such as 5.5"),
}
"""Annotation of a field -> what its value must be, and what that is called."""


def check_numbers(options: DataclassInstance) -> None:
    """Raise unless each field that is annotated as a number (``int``, ``float``, or ``| None``) holds one.

    A text from YAML, a shell or a form is told apart from a number before it is used.
    Fields whose annotations are no text (without ``from __future__ import annotations``) are left alone.

    Args:
        options: A stage, or another dataclass of options.

    Raises:
        ConfigurationError: A value is of another type, or NaN.
    """
    for field in fields(options):
        kind, _, rest = str(field.type).partition(" | ")
        if kind not in _KINDS or rest not in ("", "None"):
            continue
        value = getattr(options, field.name)
        type_, wanted = _KINDS[kind]
        if isinstance(value, float) and math.isnan(value):
            raise ConfigurationError(f"{field.name}={value} is not a number, and no value reaches it")
        if isinstance(value, type_) or (value is None and rest):
            continue
        hint = " (without quotes)" if isinstance(value, str) else ""
        allowed = ", or None" if rest else ""
        raise ConfigurationError(
            f"{field.name}={value!r} is of type {type(value).__name__}; it must be {wanted}{hint}{allowed}"
        )


def check_choice(option: str, value: str, allowed: Iterable[str]) -> None:
    """Raise `ConfigurationError` unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise ConfigurationError(f"{option}={value!r} is not one of {', '.join(allowed)}")


def check_positive(option: str, value: int | None) -> None:
    """Raise `ConfigurationError` for a number of things below 1; None is left to its default."""
    if value is not None and value < 1:
        raise ConfigurationError(f"{option}={value} is less than 1")
