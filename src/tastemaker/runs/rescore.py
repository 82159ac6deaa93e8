"""Columns of scores for rows that are there, from the embeddings that they hold. No picture is read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tastemaker.errors import ConfigurationError, ModelError
from tastemaker.machine import usable_cores
from tastemaker.models.aesthetic import AestheticPredictor, score_of_any_length
from tastemaker.models.published import DEFAULT_SCORER, Scorers, find_scorers
from tastemaker.models.words import CaptionLikeness, load_head
from tastemaker.provenance import check_backbone, score_provenance
from tastemaker.runs.lock import only_run_on
from tastemaker.scores.files import RowsFile, check_own_rows
from tastemaker.scores.layout import ROWS_FOLDER, results_of
from tastemaker.scores.locations import RowsSource
from tastemaker.scores.schema import METADATA_KEY, check_score_columns, score_columns
from tastemaker.scores.table import EMBEDDING, ScoreTable
from tastemaker.scores.vectors import Floats, vectors_of
from tastemaker.storage import Options
from tastemaker.storage.parquet import ParquetFile

if TYPE_CHECKING:
    from tastemaker.models.records import Scorer

_SAMPLED = 1000
"""Embeddings by which it is measured how far rounding moves the score of a head that is not linear."""


@dataclass(frozen=True)
class RescoreSummary:
    """What became of the rows of a table.

    Attributes:
        rows: All rows.
        scored: Column -> rows with a score in it.
        files: Rows files.
        finished_before: Files of them that had all the columns already.
        rounding: Column -> how far a score may be from that of the float32 embedding, because rows store float16. For
            a linear head no score is farther off; for others it is the most that 1,000 embeddings showed.
    """

    rows: int
    scored: dict[str, int]
    files: int
    finished_before: int
    rounding: dict[str, float]


@dataclass(frozen=True)
class _Column:
    """A column that is to be filled: by which head, and what the provenance says of it."""

    head: Any
    scorer: Scorer
    made_by: dict[str, str]


def rescore(
    scores: str | os.PathLike[str],
    scorer: Scorers = DEFAULT_SCORER,
    *,
    model_dir: str | os.PathLike[str] | None = None,
    storage_options: Options | None = None,
) -> RescoreSummary:
    """Add the columns of scorers to the rows of a run, or renew them where other weights filled them.

    Everything else in the rows stays as it is. Each file is replaced whole. A call that was stopped goes on where it
    stopped: files that have the columns stay. A column that the same weights have filled is never touched.

    Args:
        scores: Directory that `tastemaker score` or `filter` wrote, with embeddings, or a URL.
        scorer: What `find_scorers` takes: one scorer, or several, on the backbone that made the embeddings.
        model_dir: Directory of models; None for ``$TASTEMAKER_MODEL_DIR`` or the user's cache directory.
        storage_options: For URLs; see docs/remote-data.md.

    Raises:
        ConfigurationError: The rows have no embeddings, or those of another backbone; a column of that name holds
            something else; a run is writing there; or a file was not written by Tastemaker.
        ModelError: The embeddings have another number of dimensions.
    """
    table, found = ScoreTable(scores, storage_options=storage_options), find_scorers(scorer, storage_options)
    stored = table.embeddings
    for file in table.sources:
        check_own_rows(file.place)
        for each in found:
            check_backbone(file.provenance, each)
            _check_free(file, each.column)
    if stored.size not in (0, found[0].backbone.dimension):
        raise ModelError(
            f"the embeddings have {stored.size} numbers, {found[0].name} takes {found[0].backbone.dimension}"
        )
    columns = {}
    for each in found:
        head, weights = load_head(each, model_dir, storage_options)
        made_by = {**score_provenance(each, weights), "embedding": "float16"}
        columns[each.column] = _Column(head, each, made_by)
    results = results_of(table.sources[0].place.parent)
    with only_run_on(results), ThreadPoolExecutor(usable_cores()) as pool:
        (results / ROWS_FOLDER).remove_drafts()
        try:
            done = list(pool.map(partial(_rescore, columns=columns), table.sources))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    after = ScoreTable(scores, storage_options=storage_options)
    scored = {name: int(np.isfinite(after.values(name)).sum()) for name in columns}
    sample, is_there = stored.take_unit(np.arange(min(len(table), _SAMPLED)))
    rounding = {name: _rounding(column.head, sample[is_there]) for name, column in columns.items()}
    return RescoreSummary(len(table), scored, len(done), len(done) - sum(done), rounding)


def _check_free(file: RowsSource, column: str) -> None:
    check_score_columns([column])
    if column in file.schema.names and column not in score_columns(file.provenance):
        raise ConfigurationError(f"{file.path} has a column {column} that no scorer filled: rename the scorer's file")


def _rescore(file: RowsSource, columns: Mapping[str, _Column]) -> bool:
    """Fill what a file lacks of some columns; return whether it lacked any."""
    made_by = file.provenance
    stated = made_by.get("scores", {})
    wanted = {name: column for name, column in columns.items() if not _is_filled(stated.get(name, {}), column)}
    if not wanted:
        return False
    schema = _new_schema(file.schema, made_by, wanted)
    rows = RowsFile(file.place, schema)
    try:
        with file.place.open() as opened:
            parquet = ParquetFile(opened)
            for number in range(parquet.num_row_groups):
                table = parquet.read_row_group(number).cast(file.schema.remove_metadata())
                filled = _scores(table, wanted)
                arrays = [filled.get(field.name) or table[field.name] for field in schema]
                rows.add_rows(pa.table(arrays, schema=schema.remove_metadata()))
        rows.commit()
    except BaseException:
        rows.discard()
        raise
    return True


def _is_filled(stated: Mapping[str, Any], column: _Column) -> bool:
    is_same = all(stated.get(name) == column.made_by.get(name) for name in ("sha256", "prompts"))
    return is_same and not stated.get("is_partial")


def _new_schema(schema: pa.Schema, made_by: Mapping[str, Any], wanted: Mapping[str, _Column]) -> pa.Schema:
    """Return the columns with the new ones behind the scores that are there, and what made them in the metadata."""
    fields = list(schema)
    known = [number for number, field in enumerate(fields) if field.name in score_columns(made_by)]
    new = [pa.field(name, pa.float32()) for name in wanted if name not in schema.names]
    fields[max(known, default=-1) + 1 :] = [*new, *fields[max(known, default=-1) + 1 :]]
    scores = {**made_by.get("scores", {}), **{name: column.made_by for name, column in wanted.items()}}
    fingerprint = dict(made_by.get("fingerprint", {}))
    stages = [stage for stage in fingerprint.values() if isinstance(stage, dict)]
    own = {name: column.made_by for name, column in wanted.items() if any(name in s.get("scores", {}) for s in stages)}
    if own:  # the run made this column with other weights: it never takes these rows for its own
        fingerprint["rescored"] = {**fingerprint.get("rescored", {}), **own}
    entries = {**made_by, "scores": scores, **({"fingerprint": fingerprint} if fingerprint else {})}
    return pa.schema(fields, {**(schema.metadata or {}), METADATA_KEY: json.dumps(entries).encode()})


def _scores(table: pa.Table, columns: Mapping[str, _Column]) -> dict[str, pa.Array]:
    """Return the scores of rows, float32; null for those without an embedding of the backbone's size."""
    backbone = next(iter(columns.values())).scorer.backbone  # all have the same
    vectors, _ = vectors_of(table[EMBEDDING].combine_chunks(), backbone.dimension)
    found = {}
    for name, column in columns.items():
        if column.scorer.reads_captions:
            scores = column.head(vectors, table["caption"].to_pylist())
        else:
            scores, _ = score_of_any_length(column.head, vectors)
        found[name] = pa.array(scores, pa.float32(), from_pandas=True)  # NaN is none
    return found


def _rounding(head: Any, sample: Floats) -> float:  # noqa: ANN401 - what `load_head` returns
    """Return how far rounding each number of a unit vector to float16 moves a score.

    Each number is off by 2^-11 of itself at most. So a linear score is off by the length of the weights times that, and
    the cosine with a caption by that. Of other heads it is measured: the numbers of a sample are moved by as much, up
    or down by chance.
    """
    if isinstance(head, AestheticPredictor):
        return float(np.linalg.norm(head.weight) * 2**-11)
    if isinstance(head, CaptionLikeness):
        return 2**-11
    if not len(sample):
        return 0.0
    moved = sample * (1 + 2**-11 * np.random.default_rng(0).choice([-1, 1], sample.shape))
    return float(np.abs(head(moved.astype(np.float32)) - head(sample)).max())
