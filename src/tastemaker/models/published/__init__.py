"""The scorers that Tastemaker knows: each `Scorer` of a module of this folder, by its name.

A record in a new module here is found without an edit elsewhere. One of a user's own is named ``package.module:NAME``,
or handed over as it is.
"""

from __future__ import annotations

import functools
import pkgutil
from importlib import import_module

from tastemaker.errors import ConfigurationError
from tastemaker.models.records import Scorer

DEFAULT_SCORER = "laion-v2"


@functools.cache
def published_scorers() -> dict[str, Scorer]:
    """Return the scorers by name, the default first."""
    modules = [import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    found = {value.name: value for module in modules for value in vars(module).values() if isinstance(value, Scorer)}
    return {DEFAULT_SCORER: found[DEFAULT_SCORER], **found}


def find_scorer(scorer: str | Scorer = DEFAULT_SCORER) -> Scorer:
    """Return a scorer by name, by ``package.module:NAME``, or as it is.

    Raises:
        ConfigurationError: There is none.

    Example:
        >>> find_scorer("laion-v1-b32").backbone.id
        'openai/clip-vit-base-patch32'
    """
    if isinstance(scorer, Scorer):
        return scorer
    known = published_scorers()
    if scorer in known:
        return known[scorer]
    module, _, name = scorer.partition(":")
    if not (module and name):
        raise ConfigurationError(
            f"scorer={scorer!r} is not one of {', '.join(known)}; your own is named as package.module:NAME"
        )
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"scorer={scorer!r} cannot be imported: {error}") from error
    if not isinstance(found, Scorer):
        raise ConfigurationError(f"scorer={scorer!r} is a {type(found).__name__}, not a Scorer")
    return found


def scorer_of_column(column: str) -> Scorer | None:
    """Return the default scorer of a column of the rows; None where no model fills it."""
    return next((scorer for scorer in published_scorers().values() if scorer.column == column), None)
