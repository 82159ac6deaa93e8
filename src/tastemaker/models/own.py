"""Scorers of a user's own: files that `tastemaker learn` wrote, files of other layers over embeddings, and prompts."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tastemaker.errors import ConfigurationError, ModelError
from tastemaker.models.records import Backbone, Head, Scorer, TextHead
from tastemaker.storage import Options
from tastemaker.storage.place import Place

if TYPE_CHECKING:
    from tastemaker.models.records import Predictor

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt")
"""By these endings a name is that of a file, and not of a scorer."""

NOTES_KEY = "tastemaker_taste"
"""The entry of a file's metadata that says, as JSON, what it was learned from and what it is worth."""

_MAX_HEADER_BYTES = 2**20


def read_notes(place: Place) -> dict[str, Any]:
    """Return what a file says of its learning; empty where Tastemaker did not learn it."""
    with place.open() as file:
        size = int.from_bytes(file.read(8), "little")
        header = file.read(min(size, _MAX_HEADER_BYTES))
    try:
        notes = json.loads(json.loads(header)["__metadata__"][NOTES_KEY])
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return notes if isinstance(notes, dict) else {}


def describe_notes(notes: Mapping[str, Any]) -> str:
    """Return what a head was learned from, when, and what it is worth, in one line; empty where the notes do not say.

    Example:
        >>> own = {"value": 0.61, "low": 0.49, "high": 0.71}
        >>> notes = {"examples": 120, "kind": "ratings", "learned_at": "2026-11-30", "measure": "rank correlation"}
        >>> describe_notes(notes | {"own": own})
        '120 ratings, 2026-11-30, rank correlation 0.61 (0.49 to 0.71)'
    """
    try:
        figures = "{value:.2f} ({low:.2f} to {high:.2f})".format(**notes["own"])
        return "{examples} {kind}, {learned_at}, {measure} ".format(**notes) + figures
    except (KeyError, TypeError, ValueError):
        return ""


def scorer_in_file(
    path: str, backbones: Iterable[Backbone], beside: Backbone | None, options: Options | None = None
) -> Scorer:
    """Return the scorer in a file. Its name is that of the file, and so is its column: ``my-taste.pth``, ``my_taste``.

    Its backbone is the one that the file says it was learned on, else that of the scorers named beside it, else the
    first of ``backbones``.

    Args:
        path: Of the file, or a URL.
        backbones: Those that are known, the default first.
        beside: That of the scorers that were named with it; None where there are none.
        options: Settings of the URL's store.

    Raises:
        ConfigurationError: There is no such file, or it was learned on a backbone that is not known.
    """
    place = Place.of(path, options)
    if not place.is_file():
        raise ConfigurationError(f"scorer: {place} does not exist")
    known = {backbone.id: backbone for backbone in (*([beside] if beside else ()), *backbones)}
    stated = read_notes(place).get("backbone", next(iter(known)))
    if stated not in known:
        raise ConfigurationError(f"{place} was learned on embeddings of {stated}: name a scorer of it before this file")
    backbone, name = known[stated], Path(place.name).stem
    if not _column_of(name):
        raise ConfigurationError(f"{place} names its column, which takes letters from a to z: call it mine.safetensors")
    head = Head(
        id=place.name,
        description=f"a scorer in a file, on {backbone.id}",
        filename=place.name,
        path=path,
        dimension=backbone.dimension,
        load=functools.partial(_load, backbone=backbone.id, dimension=backbone.dimension),
    )
    return Scorer(
        name=name,
        column=_column_of(name),
        backbone=backbone,
        head=head,
        score_range=(1.0, 10.0),
    )


def scorer_of_prompts(text: str, backbone: Backbone) -> Scorer:
    """Return the scorer that ``NAME: PROMPT | PROMPT`` means: how much sooner the first describes an image, 0 to 1.

    Args:
        text: ``sharp: a sharp photo | a blurry photo``, of two prompts or more. The column is called as the name is.
        backbone: What embeds the images and the prompts.

    Raises:
        ConfigurationError: There is no name, or a prompt is empty.
    """
    name, separator, texts = text.partition(":")
    prompts = tuple(prompt.strip() for prompt in texts.split("|"))
    if not separator or not _column_of(name) or len(prompts) < 2 or not all(prompts):
        raise ConfigurationError(
            f'scorer={text!r}: prompts, two or more, are written as "sharp: a sharp photo | a blurry photo"'
        )
    head = TextHead.of(backbone, *prompts)
    return Scorer(name=text, column=_column_of(name), backbone=backbone, head=head, score_range=(0.0, 1.0))


def _column_of(name: str) -> str:
    column = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return column if column[:1].isalpha() or not column else f"score_{column}"


def _load(path: Path, backbone: str, dimension: int) -> Predictor:
    from tastemaker.models.heads import read_head

    head = read_head(path)
    if head.embedding_size != dimension:
        raise ModelError(
            f"{path} takes embeddings of {head.embedding_size} numbers, and {backbone} gives {dimension}; name a "
            "scorer of the right backbone before this file"
        )
    return head
