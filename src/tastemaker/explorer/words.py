"""Pictures ranked by words: the likeness of each to a text, of the texts that were asked for last."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from threading import Lock

import numpy as np
import numpy.typing as npt

from tastemaker.errors import WeightsNotFoundError
from tastemaker.models.hub import find_weights
from tastemaker.models.records import Model
from tastemaker.scores.search import TextSearch, stated_scorer
from tastemaker.scores.table import EMBEDDING, ScoreTable
from tastemaker.storage import is_remote

_KEPT_TEXTS = 4


class Words:
    """The likeness of a table's pictures to words. The text half is loaded at the first search, and never downloaded.

    Args:
        table: The rows.
        model_dir: Directory of models, or its URL; None for ``$TASTEMAKER_MODEL_DIR`` or the user's cache directory.
    """

    def __init__(self, table: ScoreTable, model_dir: str | None = None) -> None:
        self._table, self._model_dir = table, model_dir
        self._search: TextSearch | None = None
        self._lock = Lock()
        self._kept = lru_cache(_KEPT_TEXTS)(self._make)

    def likeness(self, text: str) -> npt.NDArray[np.float32]:
        """Return the cosine of each picture with a text, as `TextSearch.likeness` does: float32 (n,).

        Raises:
            ConfigurationError: The rows have no embeddings, or another model made them than the one that is here.
            WeightsNotFoundError: The model's weights or its tokenizer are not on this machine.
            ModelError: They cannot be read.
        """
        with self._lock:  # what two pages ask for at once is computed once
            return self._kept(text)

    def _make(self, text: str) -> npt.NDArray[np.float32]:
        if self._search is None:
            self._check_weights()
            self._search = TextSearch(self._table, self._model_dir, storage_options=self._table.storage_options)
        return self._search.likeness(text)

    def _check_weights(self) -> None:
        """Raise `WeightsNotFoundError` where a search would have to download: nobody who types words expects that."""
        scorer = stated_scorer(self._table)
        if EMBEDDING in self._table.columns and scorer.backbone.text is not None:  # else TextSearch says what is wrong
            refuse_missing(
                [scorer.backbone, scorer.backbone.text.tokenizer], scorer.name, self._model_dir, "a search by words"
            )


def refuse_missing(models: Sequence[Model], scorer: str, model_dir: str | None, what: str) -> None:
    """Raise `WeightsNotFoundError` where files of a scorer are not on this machine: the page downloads nothing.

    Args:
        models: What is needed.
        scorer: The name of the scorer that they belong to.
        model_dir: Directory of models. A URL was named by the user, and is not looked into.
        what: What needs them, for the message.
    """
    for model in () if is_remote(model_dir or "") else models:
        check = find_weights(model, model_dir)
        if check.problems:
            raise WeightsNotFoundError(
                f"{what} needs {check.path} ({check.problems[0]}): run `tastemaker scorers pull "
                f"--scorer {scorer}`, or start the explorer with --model-dir"
            )
