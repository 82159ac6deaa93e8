"""What travels between the stages that score embeddings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.embeddings.arrays import EmbeddingBlock
from tastemaker.tasks import Task


@dataclass
class EmbeddingBatch(Task[EmbeddingBlock | None]):
    """Some rows of a file of embeddings, of one partition.

    Attributes:
        data: The rows; None where the batch only tells of a problem.
        first: Position of the first row in the file.
        source_bytes: Of the embeddings in memory, which is about what was read of the file.
        problem: What is wrong with the file behind these rows; it becomes a failed row of its own.
        scores: float32 (n,), NaN where a row has none. Set by the stage that scores.
        reasons: Strings (n,), null for a row that is kept. Set by it, too.
        is_failed: bool (n,), rows that could not be scored.
        normalised: How many rows were not of unit length, and were divided by their length.
    """

    dataset_name: str = ""
    data: EmbeddingBlock | None = None
    first: int = field(default=0, kw_only=True)
    source_bytes: int = field(default=0, kw_only=True)
    problem: str = field(default="", kw_only=True)
    scores: npt.NDArray[np.float32] | None = field(default=None, kw_only=True)
    reasons: Any = field(default=None, kw_only=True)
    is_failed: npt.NDArray[np.bool_] | None = field(default=None, kw_only=True)
    normalised: int = field(default=0, kw_only=True)

    @property
    def num_items(self) -> int:
        """Number of embeddings."""
        return 0 if self.data is None else len(self.data.vectors)

    def count_images(self) -> tuple[int, int]:
        """Return the embeddings, with the row of a problem, and their bytes."""
        return self.num_items + bool(self.problem), self.source_bytes

    def status(self) -> pa.Array:
        """Return ``kept``, ``dropped`` or ``failed`` for each row."""
        is_kept = self.reasons.is_null()
        return pc.if_else(is_kept, "kept", pc.if_else(pa.array(self.is_failed), "failed", "dropped"))
