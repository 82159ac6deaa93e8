"""The pictures of a score table that words describe: the cosine of each embedding with that of the text."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tastemaker.errors import ConfigurationError
from tastemaker.models.hub import ensure_weights, file_sha256
from tastemaker.models.published import find_scorer, published_scorers
from tastemaker.models.records import Scorer
from tastemaker.models.text import TextTower
from tastemaker.scores.database import NO_EMBEDDINGS
from tastemaker.scores.neighbours import Found, cosines_of_rows, nearest_rows
from tastemaker.scores.table import EMBEDDING, ScoreTable


class TextSearch:
    """Finds the pictures of a table by words.

    Args:
        table: With the column ``embedding``.
        model_dir: Directory of models; None for ``$TASTEMAKER_MODEL_DIR`` or the user's cache directory.
        scorer: One on the backbone that made the embeddings; None for the one that the rows state.
        storage_options: Settings of the store of models at a URL.

    Raises:
        ConfigurationError: The table has no embeddings, or another model made them than the one that reads the text;
            the model embeds images only.
        WeightsNotFoundError: The model's weights or its tokenizer are not there and cannot be fetched.
    """

    def __init__(
        self,
        table: ScoreTable,
        model_dir: str | os.PathLike[str] | None = None,
        scorer: str | Scorer | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        backbone = (find_scorer(scorer) if scorer else stated_scorer(table)).backbone
        if EMBEDDING not in table.columns:
            raise ConfigurationError(NO_EMBEDDINGS)
        if backbone.text is None:
            raise ConfigurationError(
                f"{backbone.id} embeds images only, not text: these rows cannot be searched by words"
            )
        options = dict(storage_options or {})
        weights = ensure_weights(backbone, model_dir, options)
        _check_same_model(table, file_sha256(weights), backbone.id)
        self.table = table
        self._tower = TextTower(weights, ensure_weights(backbone.text.tokenizer, model_dir, options), backbone)

    def find(self, text: str, k: int = 50) -> Found:
        """Return the rows that a text describes best: their numbers, int64 (k,), and their cosines, float32 (k,).

        Rows without an embedding and rows of pictures that are gone are never found.

        Args:
            text: In English, which CLIP was trained on: "boats at sunset". What is beyond 77 tokens is not read.
            k: How many at most.
        """
        return nearest_rows(self.table, self._tower.embed([text])[0], k)

    def likeness(self, text: str) -> npt.NDArray[np.float32]:
        """Return the cosine of every row with a text, float32 (n,), NaN for those that `find` never finds."""
        return cosines_of_rows(self.table, self._tower.embed([text])[0])


def stated_scorer(table: ScoreTable) -> Scorer:
    """Return a published scorer on the backbone of a table, of embeddings alone; the default where none is stated."""
    made_by = [made for entry in table.provenance for made in entry.entries.get("scores", {}).values()]
    stated = {made.get("backbone") for made in made_by}
    known = [scorer for scorer in published_scorers().values() if not scorer.reads_captions]
    return next((scorer for scorer in known if scorer.backbone.id in stated), find_scorer())


def _check_same_model(table: ScoreTable, sha256: str, name: str) -> None:
    """Refuse rows whose embeddings lie in another space than the text's. Rows of given embeddings state no model."""
    stated = {str(entry.entries["clip_sha256"]) for entry in table.provenance if "clip_sha256" in entry.entries}
    others = stated - {sha256}
    if others:
        raise ConfigurationError(
            f"another model than {name} made the embeddings of these rows (its weights have the SHA-256 "
            f"{sorted(others)[0][:12]}..., these {sha256[:12]}...); name the folder of the one that did with "
            "--model-dir, or another model with `tastemaker search --scorer`"
        )
