"""The summary of a run: counts of its rows, and where its time went."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow.compute as pc

from tastemaker.errors import ReasonKind
from tastemaker.executors.timing import StageTiming, find_bottleneck
from tastemaker.parity import ParityReport
from tastemaker.runs.index import RowsIndex, rows_path
from tastemaker.scores.cutoff import find_percentiles
from tastemaker.scores.files import read_metadata, read_rows
from tastemaker.scores.schema import DELETED, provenance_of
from tastemaker.storage.place import Place

SAMPLED_PARTITIONS = 2000
"""At most so many partitions are read for the percentiles, which takes two seconds. The counts cover all."""

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
    """The result of a run, counted in the rows on disk.

    Attributes:
        output_dir: Where the results are.
        images: All images: kept, dropped and failed.
        kept: Those that no stage dropped. A selection cuts them later.
        dropped: Those that a stage dropped, because their technical quality was too low.
        failed: Those that could not be read or scored.
        deleted: Rows of pictures that are gone; not among the images.
        reasons: `tastemaker.errors.ReasonKind` -> images, for the failed and the dropped; the most frequent first.
        passed_over: Kind of file -> how many of the input folders were not read: ``.zip``, ``linked folder``,
            ``in @eaDir``, ``excluded``. Sidecars of pictures are not among them.
        percentiles: Percentile -> score, over the scored images; empty if there are none.
        percentiles_of: Which partitions the percentiles are of, where they are not of all: a sample, evenly spread.
        seconds: How long the run took.
        images_scored_now: Images that this run did; the others were there from an earlier one.
        provenance: What made the scores.
        stages: Where the time of each stage went in this run, in seconds.
        bottleneck: The stage that the others waited for, and what would change it; empty where nothing ran.
        embeddings_normalised: Embeddings that were given without unit length, and divided by their length.
        is_mixed: Some rows were made with other models or options, and were left alone.
        other_rows_files: Rows files in the directory that are of no input of this run; not counted in a slice.
        redone: Why rows were made again in this run -> how many.
        moved: Files that were found at another place than their rows said; the rows know the new one now.
        rerated: Images whose sidecars say another rating than their rows did; the rows state it now.
        not_retried: Failed images that were not run again, because what is wrong lies in how their shard is made.
        rows_files: The rows files of the input, in its order.
        parity: How scores differ from exact ones on this machine; None where it has no certificate.
    """

    output_dir: str
    images: int = 0
    kept: int = 0
    dropped: int = 0
    failed: int = 0
    deleted: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    passed_over: dict[str, int] = field(default_factory=dict)
    percentiles: dict[int, float] = field(default_factory=dict)
    percentiles_of: str = ""
    seconds: float = 0.0
    images_scored_now: int = 0
    provenance: dict[str, Any] = field(default_factory=dict)
    stages: list[StageTiming] = field(default_factory=list)
    bottleneck: str = ""
    embeddings_normalised: int = 0
    is_mixed: bool = False
    other_rows_files: int = 0
    redone: dict[str, int] = field(default_factory=dict)
    moved: int = 0
    rerated: int = 0
    not_retried: int = 0
    parity: ParityReport | None = None
    rows_files: list[str] = field(default_factory=list, repr=False)

    def as_json(self) -> dict[str, Any]:
        """Return the summary for JSON, without the list of rows files, which may have a million entries."""
        values = asdict(self)
        del values["rows_files"]
        return values


def summarise(names: list[str], index: RowsIndex, rank_by: str) -> RunSummary:
    """Return the counts of the rows of these partitions, and the percentiles of a column.

    Counts stand in the metadata of each rows file. Scores are read, of at most `SAMPLED_PARTITIONS` partitions.

    Args:
        names: The partitions; all of them have rows.
        index: The rows files.
        rank_by: The column.
    """
    output_dir, notes = index.output_dir, index.notes(names)
    statuses: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for note in notes.values():
        statuses.update(note.counts.get("statuses", {}))
        reasons.update(note.counts.get("reasons", {}))
    sampled = names[:: -(-len(names) // SAMPLED_PARTITIONS)] if names else []
    scores = [_read_scores(rows_path(output_dir, name), rank_by) for name in sampled]
    last = next((name for name in reversed(names) if name in notes), None)
    return RunSummary(
        output_dir=str(output_dir),
        images=statuses["kept"] + statuses["dropped"] + statuses["failed"],
        kept=statuses["kept"],
        dropped=statuses["dropped"],
        failed=statuses["failed"],
        deleted=statuses["deleted"],
        reasons={kind: number for kind, number in reasons.most_common() if kind != ReasonKind.DELETED},
        percentiles=_percentiles(scores),
        embeddings_normalised=sum(note.counts.get("more", {}).get("normalised", 0) for note in notes.values()),
        percentiles_of=f"{len(sampled):,} of {len(names):,} partitions" if len(sampled) < len(names) else "",
        provenance=provenance_of(read_metadata(rows_path(output_dir, last))) if last else {},
    )


def _read_scores(path: Place, column: str) -> np.ndarray:
    table = read_rows(path, columns=[column, "status"])
    scores: np.ndarray = table.filter(pc.not_equal(table["status"], DELETED))[column].drop_null().to_numpy()
    return scores


def _percentiles(scores: list[np.ndarray]) -> dict[int, float]:
    found = find_percentiles(np.concatenate(scores)) if scores else {}
    return {percentile: round(score, 4) for percentile, score in found.items()}


def describe_bottleneck(timings: list[StageTiming]) -> str:
    """Return which stage the others waited for, and what would make it faster; empty where nothing ran."""
    slowest = find_bottleneck(timings)
    if slowest is None:
        return ""
    remedy = REMEDIES.get(slowest.name)
    change = f"; {remedy} would make the run faster" if remedy else ""
    return f"{slowest.name} worked {slowest.busy_share:.0%} of the time{change}"
