"""What a run came to: counted in its rows, with where its time went; and the file that keeps it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tastemaker.executors.timing import StageTiming, find_bottleneck
from tastemaker.machine import describe_machine
from tastemaker.parity import ParityReport
from tastemaker.scores.cutoff import rows_path
from tastemaker.scores.files import write_whole
from tastemaker.scores.schema import METADATA_KEY, kind_of_reason
from tastemaker.tasks import FileGroupTask

PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)
"""Percentiles of the scores that a summary states."""

RUN_FILE = "_tastemaker/run.json"
"""In the output directory: what the last run came to, where its time went, its options and machine.

Readers of a directory of Parquet files pass over names that begin with an underscore, and fail on other files.
"""

REMEDIES = {
    "image_reader": "faster storage, or more and faster cores",
    "image_signals": "more and faster cores, or no signals",
    "image_embedding": "a GPU, more and faster cores, or a lower precision",
    "image_writer": "faster storage, or rows without embeddings",
    "embedding_reader": "faster storage",
    "embedding_score": "more and faster cores",
    "embedding_writer": "more and faster cores, or fewer columns beside the embeddings",
}
"""Stage -> what would make a run faster when that stage is its bottleneck."""


@dataclass
class RunSummary:
    """What a run came to, counted in the rows on disk.

    Attributes:
        output_dir: Where the results are.
        images: All images: kept, dropped and failed.
        kept: Those that pass.
        dropped: Those that do not.
        failed: Those that could not be read or scored.
        reasons: Reason -> number, for the failed and for those dropped for anything but their score.
        percentiles: Percentile -> score, over all scored images; empty if there are none.
        cutoff: The lowest score that is kept; None where nothing was cut.
        seconds: How long the run took.
        images_scored_now: Images that this run did; the others were there from an earlier one.
        provenance: What made the scores.
        stages: Where the time of each stage went in this run, in seconds.
        bottleneck: The stage that the others waited for, and what would change it; empty where nothing ran.
        embeddings_normalised: Embeddings that were given without unit length, and divided by their length.
        parity: How the scores differ from exact ones on a sample of this run; None where none was taken.
    """

    output_dir: str
    images: int = 0
    kept: int = 0
    dropped: int = 0
    failed: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    percentiles: dict[int, float] = field(default_factory=dict)
    cutoff: float | None = None
    seconds: float = 0.0
    images_scored_now: int = 0
    provenance: dict[str, Any] = field(default_factory=dict)
    stages: list[StageTiming] = field(default_factory=list)
    bottleneck: str = ""
    embeddings_normalised: int = 0
    parity: ParityReport | None = None


def summarise(groups: list[FileGroupTask], output_dir: Path, rank_by: str = "aesthetic_score") -> RunSummary:
    """Return the counts in the rows of these partitions, and the percentiles of a column."""
    statuses: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    scores: list[np.ndarray] = []
    provenance: dict[str, Any] = {}
    normalised = 0
    for group in groups:
        table = pq.read_table(rows_path(output_dir, group), columns=["status", "reason", rank_by])
        statuses.update({item["values"]: item["counts"] for item in pc.value_counts(table["status"]).to_pylist()})
        explained = table.filter(pc.or_(pc.equal(table["status"], "failed"), table[rank_by].is_null()))
        reasons.update(kind_of_reason(reason) for reason in explained["reason"].to_pylist())
        scores.append(table[rank_by].drop_null().to_numpy())
        provenance = json.loads(table.schema.metadata[METADATA_KEY])
        normalised += provenance.get("embeddings_normalised", 0)
    together = np.concatenate(scores) if scores else np.empty(0)
    return RunSummary(
        output_dir=str(output_dir),
        images=statuses.total(),
        kept=statuses["kept"],
        dropped=statuses["dropped"],
        failed=statuses["failed"],
        reasons=dict(reasons.most_common()),
        percentiles={p: round(float(np.percentile(together, p)), 4) for p in PERCENTILES} if len(together) else {},
        provenance=provenance,
        embeddings_normalised=normalised,
    )


def describe_bottleneck(timings: list[StageTiming]) -> str:
    """Return which stage the others waited for, and what would make it faster; empty where nothing ran."""
    slowest = find_bottleneck(timings)
    if slowest is None:
        return ""
    remedy = REMEDIES.get(slowest.name)
    change = f"; {remedy} would make the run faster" if remedy else ""
    return f"{slowest.name} worked {slowest.busy_share:.0%} of the time{change}"


def write_run_file(
    output_dir: Path, inputs: list[str], options: dict[str, Any], started_at: datetime, summary: RunSummary
) -> None:
    """Write what the run came to, on what machine: for people and programs that look at it later."""
    record = {
        "started": started_at.isoformat(timespec="seconds"),
        "inputs": inputs,
        "options": options,
        "machine": describe_machine(),
        "summary": asdict(summary),
    }
    path = output_dir / RUN_FILE
    path.parent.mkdir(exist_ok=True)
    write_whole(path, (json.dumps(record, indent=2) + "\n").encode())
