"""The rows without a score, by the reason that they have none."""

from __future__ import annotations

from typing import Any

from tastemaker.scores.table import ScoreTable

MAX_SHOWN = 200
"""Rows of a group that are sent at once."""

KIND = "coalesce(reason_kind, 'no_score')"
"""SQL over ``rows``: why a row has no score. One without a reason was not asked for a score."""


def group_failures(table: ScoreTable, by: str) -> list[dict[str, Any]]:
    """Return the rows that have no value in a column, counted by kind of reason, the commonest first.

    Args:
        table: The rows.
        by: The column that pictures are ranked by.
    """
    found = table.query(
        f"SELECT {KIND} AS kind, replace({KIND}, '_', ' ') AS reason, status, count(*) AS images FROM rows "
        f"WHERE {table.lacks_value(by)} GROUP BY ALL ORDER BY images DESC, kind"
    )
    groups: list[dict[str, Any]] = found.to_pylist()
    return groups


def list_failures(table: ScoreTable, by: str, kind: str, start: int) -> list[dict[str, Any]]:
    """Return some of the rows of one group, in the order of the table."""
    found = table.query(
        f"SELECT row_id AS row, image_id, image_path, reason FROM rows WHERE {table.lacks_value(by)} AND {KIND} = ? "
        f"ORDER BY row_id LIMIT {MAX_SHOWN} OFFSET {int(start)}",
        [kind],
    )
    rows: list[dict[str, Any]] = found.to_pylist()
    return rows
