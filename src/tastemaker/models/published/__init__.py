"""The scorers that Tastemaker knows: each `Scorer` of a module of this folder, by its name.

A record in a new module here is found without an edit elsewhere. One of a user's own is named ``package.module:NAME``,
or handed over as it is, or is a file or prompts.
"""

from __future__ import annotations

import functools
import os
import pkgutil
from collections.abc import Sequence
from importlib import import_module

from tastemaker.errors import ConfigurationError
from tastemaker.models.own import SUFFIXES, scorer_in_file, scorer_of_prompts
from tastemaker.models.records import Backbone, Scorer
from tastemaker.storage import Options

DEFAULT_SCORER = "laion-v2"

OneScorer = str | os.PathLike[str] | Scorer

Scorers = OneScorer | Sequence[OneScorer]
"""One scorer or several, each a `Scorer` or what `find_scorer` takes."""

_OWN: dict[tuple[str, str, str], Scorer] = {}
"""Scorers in files, by folder, name and backbone. Stages ask for theirs with each image; a file is looked at once."""


@functools.cache
def published_scorers() -> dict[str, Scorer]:
    """Return the scorers by name, the default first."""
    modules = [import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    found = {value.name: value for module in modules for value in vars(module).values() if isinstance(value, Scorer)}
    return {DEFAULT_SCORER: found[DEFAULT_SCORER], **found}


def find_scorer(
    scorer: OneScorer = DEFAULT_SCORER, options: Options | None = None, *, beside: Backbone | None = None
) -> Scorer:
    """Return a scorer by name, by ``package.module:NAME``, by its file, by prompts, or as it is.

    Args:
        scorer: A name with one of the endings of `tastemaker.models.own.SUFFIXES` is a path or URL of a file. One with
            ``|`` or ``: `` in it is prompts: ``sharp: a sharp photo | a blurry photo``.
        options: Settings of a URL's store.
        beside: Which embeddings prompts take, and a file that does not say it; None for those of the default scorer.

    Raises:
        ConfigurationError: There is none.

    Example:
        >>> find_scorer("laion-v1-b32").backbone.id
        'openai/clip-vit-base-patch32'
    """
    if isinstance(scorer, Scorer):
        return scorer
    scorer = os.fspath(scorer)
    known = published_scorers()
    if scorer in known:
        return known[scorer]
    if scorer.lower().endswith(SUFFIXES):
        asked = (os.getcwd(), scorer, beside.id if beside else "")
        if asked not in _OWN:
            backbones = [other.backbone for other in known.values()]
            _OWN[asked] = scorer_in_file(scorer, backbones, beside, options)
        return _OWN[asked]
    if "|" in scorer or ": " in scorer:
        return scorer_of_prompts(scorer, beside or known[DEFAULT_SCORER].backbone)
    module, _, name = scorer.partition(":")
    if not (module and name):
        raise ConfigurationError(
            f"scorer={scorer!r} is not one of {', '.join(known)}; your own is a file ({', '.join(SUFFIXES)}), "
            "prompts (NAME: PROMPT | PROMPT) or package.module:NAME"
        )
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"scorer={scorer!r} cannot be imported: {error}") from error
    if not isinstance(found, Scorer):
        raise ConfigurationError(f"scorer={scorer!r} is a {type(found).__name__}, not a Scorer")
    return found


def find_scorers(scorers: Scorers = DEFAULT_SCORER, options: Options | None = None) -> tuple[Scorer, ...]:
    """Return the scorers of a run, in the order in which they are named. They share one backbone.

    Args:
        scorers: Each as `find_scorer` takes it.
        options: Settings of the stores of files at URLs.

    Raises:
        ConfigurationError: There is none of a name, two fill the same column, or they have different backbones.

    Example:
        >>> [scorer.column for scorer in find_scorers(["laion-v2", "laion-v1-l14"])]
        ['aesthetic_score', 'laion_v1_l14']
    """
    named = [scorers] if isinstance(scorers, str | os.PathLike | Scorer) else scorers
    found: list[Scorer] = []
    for scorer in named:
        found.append(find_scorer(scorer, options, beside=found[0].backbone if found else None))
    if not found:
        raise ConfigurationError("name a scorer, or leave the option out for the default")
    first, columns = found[0], [scorer.column for scorer in found]
    for number, scorer in enumerate(found):
        if scorer.column in columns[:number]:
            raise ConfigurationError(f"two scorers fill the column {scorer.column}: name each only once")
        if scorer.backbone != first.backbone:
            raise ConfigurationError(
                f"{first.name} embeds with {first.backbone.id} and {scorer.name} with {scorer.backbone.id}, and a run "
                "has one backbone: score with each in a run of its own, into a directory of its own"
            )
    return tuple(found)


def scorer_of_column(column: str) -> Scorer | None:
    """Return the published scorer that fills a column of the rows; None where none does."""
    return next((scorer for scorer in published_scorers().values() if scorer.column == column), None)
