"""The pictures that look most like one, by the angle between their embeddings."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from tastemaker.scores.table import EMBEDDING, ScoreTable

MAX_ROWS = 200_000
"""Tables with more rows have no neighbours: every embedding is read for each answer."""

_ROWS_AT_ONCE = 50_000


def nearest(table: ScoreTable, row: int, number: int) -> list[tuple[int, float]]:
    """Return the rows most like this one, with their cosine similarity, the most alike first; itself left out.

    Empty where the table or the row has no embedding, or the table has more than `MAX_ROWS` rows.
    """
    if not can_answer(table):
        return []
    own = table.take([row], [EMBEDDING]).column(0).combine_chunks()
    if not len(own) or not own[0].is_valid:
        return []
    target = own.flatten().to_numpy().astype(np.float32)  # (768,)
    rows, similarities = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for start in range(0, len(table), _ROWS_AT_ONCE):
        part = table.query(
            f"SELECT row_id, {EMBEDDING} FROM rows WHERE row_id >= {start} AND row_id < {start + _ROWS_AT_ONCE} "
            f"AND len({EMBEDDING}) = {len(target)} AND row_id <> {row}"
        ).combine_chunks()
        if len(part):
            rows.append(part.column(0).to_numpy())
            similarities.append(_matrix(part.column(1), len(target)) @ target)
    together = np.concatenate(similarities)
    best = np.argsort(-together, kind="stable")[:number]
    return [(int(r), float(s)) for r, s in zip(np.concatenate(rows)[best], together[best], strict=True)]


def can_answer(table: ScoreTable) -> bool:
    """Return whether the pictures of a table have neighbours."""
    return EMBEDDING in table.columns and len(table) <= MAX_ROWS


def _matrix(column: pa.ChunkedArray, size: int) -> np.ndarray:
    """Return embeddings as float32 (n, size)."""
    flat = np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks])
    return flat.reshape(-1, size).astype(np.float32)
