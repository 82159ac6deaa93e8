"""Learn a taste of one's own from the ratings of a table's pictures, and keep it as a file that scores."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tastemaker import taste
from tastemaker.errors import ConfigurationError
from tastemaker.models.aesthetic import AestheticPredictor
from tastemaker.models.own import NOTES_KEY
from tastemaker.models.published import find_scorer
from tastemaker.models.records import Scorer
from tastemaker.models.words import load_head, refuse_captions
from tastemaker.provenance import check_backbone
from tastemaker.scores.groups import group_duplicates
from tastemaker.scores.marks import REJECTED, Ratings, ratings_of
from tastemaker.scores.search import stated_scorer
from tastemaker.scores.table import ScoreTable
from tastemaker.storage import expand_path
from tastemaker.storage.owned import OwnFiles
from tastemaker.storage.place import Place

Rows = npt.NDArray[np.int64]

_LARGEST_RATING = 1e9


@dataclass(frozen=True)
class LearnSummary(taste.Worth):
    """What was learned, and what it is worth.

    Attributes:
        output: The file.
        source: Where the examples come from.
        unmatched: Lines of the CSV that name no picture of the table, one without an embedding, or one twice.
        scorer: The scorer that it began with; ``reference`` is of that.
    """

    output: str
    source: str
    unmatched: int
    scorer: str


@dataclass(frozen=True)
class _Examples:
    """Rows with their ratings, or winners with their losers."""

    source: str
    rows: Rows
    ratings: npt.NDArray[np.float64] | None
    losers: Rows
    unmatched: int = 0


def learn_taste(
    table: ScoreTable,
    output: str | os.PathLike[str],
    examples: str | os.PathLike[str] | Ratings | None = None,
    *,
    scorer: str | Scorer | None = None,
    model_dir: str | os.PathLike[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> LearnSummary:
    """Learn a head from ratings or pairs, write it, and return what it is worth.

    The file is a scorer like others: ``--scorer FILE`` and ``RunOptions(scorer=FILE)`` take it. Its column is called as
    the file is.

    Args:
        table: Rows with embeddings.
        output: The file, ``.safetensors``.
        examples: A CSV with the columns ``image`` and ``rating``, or ``winner`` and ``loser``. Pictures are named by
            ``image_path``, ``image_id`` or a file name that only one of them has. Or a rating for each row, int8 (n,).
            None for the ratings that people gave: in the explorer, and where there is none, in the picture's file.
        scorer: One on the backbone of the rows; what is learned begins with its score. None for a published one.
        model_dir: Directory of models; None for ``$TASTEMAKER_MODEL_DIR`` or the user's cache directory.
        storage_options: Settings of the store of models at a URL.

    Raises:
        ConfigurationError: There are too few examples, the rows have no embeddings, or those of another backbone, or a
            file is there that Tastemaker did not write there.
        ModelError: The scorer's head is not linear.
    """
    place = Place.of(output, storage_options)
    if not place.address.endswith(".safetensors"):
        raise ConfigurationError(f"{place} does not end in .safetensors")
    OwnFiles.of_one_file(place).refuse_foreign(place.name)
    stored = table.embeddings
    options = dict(storage_options or {})
    found = find_scorer(scorer, options) if scorer else stated_scorer(table)
    for entry in table.provenance:
        check_backbone(entry.entries, found)
    refuse_captions([found], "and a taste is learned from embeddings alone")
    base, _ = load_head(found, model_dir, options)
    if not isinstance(base, AestheticPredictor):
        raise ConfigurationError(f"the head of {found.name} is not linear: a taste cannot begin with it")
    if isinstance(examples, str | os.PathLike):
        chosen = _read_csv(table, Path(expand_path(examples)))
    else:
        chosen = _read_ratings(ratings_of(table) if examples is None else examples)
    rows, places = np.unique(np.concatenate([chosen.rows, chosen.losers]), return_inverse=True)
    if stored.size != base.embedding_size:
        raise ConfigurationError(
            f"the embeddings have {stored.size} numbers, {found.name} takes {base.embedding_size}: name their --scorer"
        )
    embeddings, is_there = stored.take_unit(rows)
    if not is_there.any():
        raise ConfigurationError("none of the rated pictures has an embedding")
    groups = group_duplicates(embeddings)
    first, second = places[: len(chosen.rows)], places[len(chosen.rows) :]
    if chosen.ratings is not None:
        used = is_there[first]
        learned = taste.learn_from_ratings(embeddings[first[used]], chosen.ratings[used], groups[first[used]], base)
    else:
        used = is_there[first] & is_there[second]
        learned = taste.learn_from_pairs(embeddings, first[used], second[used], groups, base)
    worth = {field: value for field, value in vars(learned).items() if field not in ("weight", "bias")}
    unmatched = chosen.unmatched + int((~used).sum())
    summary = LearnSummary(output=place.address, source=chosen.source, unmatched=unmatched, scorer=found.name, **worth)
    OwnFiles.write_one_file(place, _as_file(learned, summary, found.backbone.id))
    return summary


def _read_ratings(ratings: Ratings) -> _Examples:
    rows = np.flatnonzero(ratings)
    if not len(rows):
        raise ConfigurationError(
            "none of these pictures has a rating: rate some in `tastemaker explore`, or name a CSV with --from"
        )
    stars = np.where(ratings[rows] == REJECTED, 0, ratings[rows]).astype(np.float64)
    return _Examples("stars and rejections", rows, stars, np.empty(0, np.int64))


def _read_csv(table: ScoreTable, path: Path) -> _Examples:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            head = file.readline()
            delimiter = max(",;\t", key=head.count)
            names = [name.strip().lower() for name in next(csv.reader([head], delimiter=delimiter), [])]
            lines = [line for line in csv.DictReader(file, names, delimiter=delimiter) if line.get("rating") != ""]
    except (OSError, ValueError, csv.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"{path} cannot be read as a CSV: {why}") from error
    columns = set(lines[0]) if lines else set()
    names = ["image"] if {"image", "rating"} <= columns else ["winner", "loser"]
    if not set(names) <= columns:
        raise ConfigurationError(f"{path} has neither the columns image and rating, nor winner and loser")
    known = _rows_by_name(table, {line[name] or "" for line in lines for name in names})
    rows = np.array([[known.get(line[name] or "", -1) for name in names] for line in lines], np.int64)  # (n, 1 or 2)
    is_known = (rows >= 0).all(axis=1)
    if len(names) == 2:
        is_known &= rows[:, 0] != rows[:, 1]
    if not is_known.any():
        raise ConfigurationError(
            f"no line of {path} names a picture of the table; the first names {lines[0][names[0]]!r}"
        )
    ratings = None if len(names) == 2 else np.array([_number(line["rating"], path) for line in lines])[is_known]
    losers = rows[is_known, 1] if len(names) == 2 else np.empty(0, np.int64)
    return _Examples(str(path), rows[is_known, 0], ratings, losers, int((~is_known).sum()))


def _number(text: str | None, path: Path) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = float("nan")
    if not abs(value) <= _LARGEST_RATING:
        raise ConfigurationError(f"{path}: {text!r} is no rating; a rating is a number")
    return value


def _rows_by_name(table: ScoreTable, wanted: Collection[str]) -> dict[str, int]:
    """Return name -> row, for those names that only one picture has; the more exact kind of name goes first."""
    named = table.query(
        "WITH wanted AS (SELECT unnest($names)) SELECT row_id, image_path, image_id FROM rows "
        "WHERE status <> 'deleted' AND (image_path IN (FROM wanted) OR image_id IN (FROM wanted) "
        "OR parse_filename(image_path) IN (FROM wanted)) "
        "ORDER BY row_id",
        {"names": list(wanted)},
    ).to_pydict()
    found: dict[str, int] = {}
    for names in (
        named["image_path"],
        named["image_id"],
        [os.path.basename(path or "") for path in named["image_path"]],
    ):
        rows: dict[str, int] = {}
        for name, row in zip(names, named["row_id"], strict=True):
            rows[name] = -1 if name in rows else row
        found = {**rows, **found}
    return found


def _as_file(learned: taste.Taste, summary: LearnSummary, backbone: str) -> bytes:
    from safetensors.numpy import save

    stated = {name: value for name, value in asdict(summary).items() if name != "output"}
    notes = stated | {"backbone": backbone, "learned_at": datetime.now(UTC).isoformat(timespec="seconds")}
    tensors = {"weight": learned.weight[None].astype(np.float32), "bias": np.array([learned.bias], np.float32)}
    return save(tensors, {NOTES_KEY: json.dumps(notes)})
