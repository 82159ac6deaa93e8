"""The rows without a score, by the reason that they have none."""

from __future__ import annotations

from typing import Any

from tastemaker.scores.schema import kind_of_reason
from tastemaker.scores.table import ScoreTable

MAX_SHOWN = 200
"""Rows of a group that are sent at once."""

_MAX_REASONS = 5000


def group_failures(table: ScoreTable, by: str) -> list[dict[str, Any]]:
    """Return the rows that have no value in a column, counted by kind of reason, the commonest first.

    Args:
        table: The rows.
        by: The column that pictures are ranked by.
    """
    without = table.lacks_value(by)
    query = f"SELECT reason, status, count(*) AS number FROM rows WHERE {without} GROUP BY ALL ORDER BY 3 DESC"
    groups: dict[tuple[str, str], int] = {}
    for row in table.query(f"{query} LIMIT {_MAX_REASONS}").to_pylist():
        kind = kind_of_reason(row["reason"] or "no reason given")
        key = (kind, row["status"] or "")
        groups[key] = groups.get(key, 0) + row["number"]
    ordered = sorted(groups.items(), key=lambda item: -item[1])
    return [{"reason": kind, "status": status, "images": number} for (kind, status), number in ordered]


def list_failures(table: ScoreTable, by: str, kind: str, start: int) -> list[dict[str, Any]]:
    """Return some of the rows of one group, in the order of the table."""
    query = f"SELECT DISTINCT reason FROM rows WHERE {table.lacks_value(by)} LIMIT {_MAX_REASONS}"
    reasons = [row["reason"] for row in table.query(query).to_pylist()]
    wanted = [reason for reason in reasons if kind_of_reason(reason or "no reason given") == kind]
    condition = "list_contains($wanted, reason)" + (" OR reason IS NULL" if None in wanted else "")
    found = table.query(
        f"SELECT row_id AS row, image_id, image_path, reason FROM rows WHERE {table.lacks_value(by)} AND ({condition}) "
        f"ORDER BY row_id LIMIT {MAX_SHOWN} OFFSET {int(start)}",
        {"wanted": [reason for reason in wanted if reason is not None]},
    )
    rows: list[dict[str, Any]] = found.to_pylist()
    return rows


def count_without_score(table: ScoreTable, by: str) -> dict[str, int]:
    """Return how many rows have no value in a column: those that failed, and those that something else dropped."""
    found = table.query(
        f"SELECT status = 'failed' AS failed, count(*) AS number FROM rows WHERE {table.lacks_value(by)} GROUP BY 1"
    )
    counts = {bool(row["failed"]): row["number"] for row in found.to_pylist()}
    return {"failed": counts.get(True, 0), "unscored": counts.get(False, 0)}
