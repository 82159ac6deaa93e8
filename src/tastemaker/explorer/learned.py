"""The taste that was learned from a table's ratings: kept beside them, a ranking of the page, and what to rate next."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from tastemaker.errors import ConfigurationError
from tastemaker.explorer.exports import path_here
from tastemaker.explorer.words import refuse_missing
from tastemaker.models.aesthetic import score_of_any_length
from tastemaker.models.own import read_notes
from tastemaker.models.published import find_scorer
from tastemaker.models.words import load_head
from tastemaker.provenance import check_backbone
from tastemaker.scores.marks import Ratings
from tastemaker.scores.search import stated_scorer
from tastemaker.scores.table import EMBEDDING, ScoreTable
from tastemaker.scores.vectors import Floats
from tastemaker.selections.learn import learn_taste
from tastemaker.selections.proposals import propose
from tastemaker.storage.owned import OwnFiles
from tastemaker.storage.place import Place

TASTE = "your taste"
"""The ranking by what was learned. No column can be called so."""

NEEDED = 30
"""From so many ratings on, the page offers to learn."""

_GROWTH = 1.2
"""With so many times the ratings that it was learned from, the page offers to learn again."""

_SAMPLED = 10_000
"""Pictures at most among which those to rate next are looked for: that takes a second or two."""

_DOZEN = 12

Rows = npt.NDArray[np.int64]


class OwnTaste:
    """What was learned from the ratings of a table's pictures. Several threads may use it.

    Args:
        table: The rows.
        ratings_file: The file of the ratings. What was learned lies beside it, in ``ratings.safetensors``.
        ratings: Returns what counts of each row, as `ratings_of` does.
        model_dir: Directory of models, or its URL; None for the default. Nothing is downloaded into it.
    """

    def __init__(
        self, table: ScoreTable, ratings_file: Path, ratings: Callable[[], Ratings], model_dir: str | None = None
    ) -> None:
        self._table, self._ratings, self._model_dir = table, ratings, model_dir
        self._place = Place.at(str(ratings_file.with_suffix(".safetensors")))
        self._lock = Lock()
        self._kept = lru_cache(1)(self._score)

    @property
    def version(self) -> str:
        """A text that changes when something is learned; empty where nothing was, or the rows have no embeddings."""
        found = self._place.stat() if EMBEDDING in self._table.columns else None
        return found.version if found else ""

    def describe(self) -> dict[str, Any]:
        """Return how many ratings there are, how many it takes to learn (again), and what is known of what was learned.

        ``refusal`` says why nothing can be learned from these rows; it is empty where something can.
        """
        learned = read_notes(self._place) if self.version else {}
        needed = max(NEEDED, int(np.ceil(_GROWTH * learned.get("examples", 0))))
        refusal = ""
        if EMBEDDING not in self._table.columns:
            refusal = (
                "A taste is learned from embeddings, and these rows have none. Scoring stores them, unless "
                "--no-embeddings or --rank-by technical_quality is said."
            )
        return {
            "ratings": int(np.count_nonzero(self._ratings())),
            "needed": needed,
            "learned": learned or None,
            "refusal": refusal,
            "name": TASTE,
        }

    def learn(self) -> dict[str, Any]:
        """Learn anew from the ratings, as ``tastemaker learn`` does, and return what `describe` does then.

        It takes a second for 200 ratings. What was learned is kept beside them.

        Raises:
            ConfigurationError: As `learn_taste`.
            WeightsNotFoundError: The head of the score that it begins with is not on this machine.
        """
        if EMBEDDING in self._table.columns:
            scorer = stated_scorer(self._table)
            refuse_missing([scorer.head], scorer.name, self._model_dir, "learning")
        with self._lock:
            learn_taste(
                self._table,
                self._place.address,
                self._ratings(),
                model_dir=self._model_dir,
                storage_options=self._table.storage_options,
            )
        return self.describe()

    def save(self, to: str) -> str:
        """Write what was learned into a file on this machine, as ``tastemaker learn`` does, and return its path.

        Raises:
            ConfigurationError: Nothing was typed, a URL, nothing was learned, the name does not end in
                ``.safetensors``, or a file is there that Tastemaker did not write.
        """
        path = path_here(to, "learn --output")
        self._refuse_unlearned()
        if path.suffix != ".safetensors":
            raise ConfigurationError(f"{path} does not end in .safetensors")
        OwnFiles.write_one_file(Place.at(str(path)), self._place.read())
        return str(path)

    def scores(self) -> npt.NDArray[np.float32]:
        """Return the score of each row, float32 (n,), as `rescore` computes it; NaN for pictures that are gone.

        Raises:
            ConfigurationError: Nothing was learned, or on other embeddings than these rows have.
            ModelError: The file cannot be read.
        """
        self._refuse_unlearned()
        with self._lock:
            return self._kept(self.version)

    def next_rows(self) -> Rows:
        """Return a dozen rows whose ratings would tell most, as `propose` chooses them. Nothing need be learned before.

        In a table of more than 10,000 pictures, they are of a sample of so many, which is always the same.

        Raises:
            ConfigurationError: The rows have no embeddings.
        """
        rows, vectors = self._sample
        ratings = self._ratings()
        known, is_there = self._table.embeddings.take_unit(np.flatnonzero(ratings))
        return rows[propose(vectors, known[is_there], ratings[rows] != 0, _DOZEN)]

    @cached_property
    def _sample(self) -> tuple[Rows, npt.NDArray[np.float32]]:
        """Rows, ascending, and their unit embeddings."""
        rows = self._table.present_rows()
        if len(rows) > _SAMPLED:
            rows = np.sort(np.random.default_rng(0).choice(rows, _SAMPLED, replace=False))
        vectors, is_there = self._table.embeddings.take_unit(rows)
        return rows[is_there], vectors[is_there]

    def _score(self, _version: str) -> npt.NDArray[np.float32]:
        scorer = find_scorer(self._place.address)
        for entry in self._table.provenance:
            check_backbone(entry.entries, scorer)
        head, _ = load_head(scorer)
        scores, is_gone = np.full(len(self._table), np.nan, np.float32), np.ones(len(self._table), np.bool_)
        is_gone[self._table.present_rows()] = False

        def score(start: int, block: Floats) -> None:
            scores[start : start + len(block)] = score_of_any_length(head, block)[0]

        self._table.embeddings.visit(score)
        scores[is_gone] = np.nan
        return scores

    def _refuse_unlearned(self) -> None:
        if not self.version:
            raise ConfigurationError("nothing was learned from these ratings yet")
