"""New scores for rows that are there, from the embeddings that they hold. No picture is read."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tastemaker.errors import ConfigurationError
from tastemaker.models.aesthetic import AestheticPredictor, score_of_any_length
from tastemaker.models.hub import ensure_head
from tastemaker.models.published import DEFAULT_SCORER, find_scorer
from tastemaker.models.records import Scorer
from tastemaker.provenance import weights_provenance
from tastemaker.runs.lock import only_run_on
from tastemaker.scores.files import RowsFile, check_own_rows
from tastemaker.scores.layout import ROWS_FOLDER
from tastemaker.scores.locations import RowsSource, open_rows, provenance_of
from tastemaker.scores.schema import COUNTS_KEY, METADATA_KEY
from tastemaker.scores.table import EMBEDDING, ScoreTable
from tastemaker.scores.vectors import vectors_of
from tastemaker.storage import Options
from tastemaker.storage.place import Place

if TYPE_CHECKING:
    from tastemaker.models.records import Predictor

_SCORE = Scorer.column
_RESCORED_FROM = "rescored_from"
_ROWS_AT_ONCE = 32_768


@dataclass(frozen=True)
class RescoreSummary:
    """What became of the rows of a table.

    Attributes:
        output_dir: Where the new rows are.
        rows: All rows.
        scored: Rows with a score, new or, where a file was finished already, from before.
        files: Rows files.
        finished_before: Files of them that an earlier call had finished.
        rounding: How far a score may be from that of the float32 embedding, because rows store float16; None where
            the head is not linear.
    """

    output_dir: str
    rows: int
    scored: int
    files: int
    finished_before: int
    rounding: float | None


def rescore(
    scores: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    *,
    predictor: str | None = None,
    scorer: str | Scorer = DEFAULT_SCORER,
    model_dir: str | os.PathLike[str] | None = None,
    storage_options: Options | None = None,
) -> RescoreSummary:
    """Write the rows of a run once more, with the scores of another head.

    All columns but ``aesthetic_score`` stay as they are, and so do the rows of pictures that failed. A call that was
    stopped goes on where it stopped: rows files that are finished and whose source has not changed stay.

    Args:
        scores: Directory that `tastemaker score` or `filter` wrote, with embeddings, or a URL.
        output_dir: Another directory for the new rows, or a URL.
        predictor: Weights of the head, such as those that `learn_taste` wrote; None for those of the scorer.
        scorer: The one whose backbone made the embeddings.
        model_dir: Directory of models; None for ``$TASTEMAKER_MODEL_DIR`` or the user's cache directory.
        storage_options: For URLs; see docs/remote-data.md.

    Raises:
        ConfigurationError: The rows have no embeddings, or files are in the way that Tastemaker did not write.
        ModelError: The head takes other embeddings.
    """
    table, found = ScoreTable(scores, storage_options=storage_options), find_scorer(scorer)
    if EMBEDDING not in table.columns:
        raise ConfigurationError("scoring again needs the embeddings, and these rows were made with --no-embeddings")
    source, place = Place.of(scores, storage_options), Place.of(output_dir, storage_options)
    inside = (source.resolve(), (source / ROWS_FOLDER).resolve())
    if place.resolve() in inside or f"{place.resolve()}".startswith(f"{inside[1]}/"):
        raise ConfigurationError(f"{place} holds the rows that are to be scored: choose another directory")
    weights = ensure_head(found.head, predictor, model_dir, storage_options)
    head = found.head.load(weights)
    made_by = {"scorer": found.name, **weights_provenance("predictor", found.head, weights)}
    targets = {file: place / ROWS_FOLDER / _name_below(source, Place.at(file.path)) for file in table.sources}
    for target in targets.values():
        _check_target(target)
    scored = finished = 0
    place.make_folder()
    with only_run_on(place):
        (place / ROWS_FOLDER).remove_drafts()
        for file, target in targets.items():
            metadata = _describe(file, made_by, storage_options)
            counted = _count_finished(target, metadata)
            finished += counted is not None
            scored += _write(file, target, metadata, head, found, storage_options) if counted is None else counted
    return RescoreSummary(place.address, len(table), scored, len(targets), finished, _rounding(head))


def _name_below(source: Place, file: Place) -> str:
    """Return what a rows file is called below the folder of rows; the file's own name where ``source`` is the file."""
    if source == file:
        return file.name
    name = file.relative_to(source)
    return name.removeprefix(f"{ROWS_FOLDER}/")


def _check_target(target: Place) -> None:
    """Raise `ConfigurationError` where there is a file that no call of `rescore` wrote."""
    check_own_rows(target)
    if target.is_file() and "rescored" not in _provenance_of(target).get("fingerprint", {}):
        raise ConfigurationError(f"{target} has the rows of a run: choose another directory")


def _provenance_of(path: Place) -> dict[str, Any]:
    with path.open() as file:
        return provenance_of(pq.read_schema(file))


def _describe(file: RowsSource, made_by: dict[str, str], options: Options | None) -> dict[bytes, bytes]:
    """Return the metadata of the new rows: that of the old ones, with what made the new scores."""
    entry = Place.at(file.path, options).stat()
    known = provenance_of(file.schema)
    stages = dict(known.get("fingerprint", {}))
    stages["rescored"] = {**made_by, "embedding": "float16"}  # a run never takes these rows for its own
    state = [] if entry is None else [entry.size, entry.modified, entry.version]
    entries = {**known, **made_by, "fingerprint": stages, _RESCORED_FROM: [Place.at(file.path).name, *state]}
    kept = {key: value for key, value in (file.schema.metadata or {}).items() if key != COUNTS_KEY}
    return {**kept, METADATA_KEY: json.dumps(entries).encode()}


def _count_finished(target: Place, metadata: dict[bytes, bytes]) -> int | None:
    """Return how many scores a finished file has; None where it is not there, or its source or head was another."""
    if not target.is_file():
        return None
    with target.open() as opened:
        footer = pq.ParquetFile(opened)
        if (footer.metadata.metadata or {}).get(METADATA_KEY) != metadata[METADATA_KEY]:
            return None
        column = footer.read([_SCORE]).column(0)
    return int(len(column) - column.null_count)


def _write(
    file: RowsSource,
    target: Place,
    metadata: dict[bytes, bytes],
    head: Predictor,
    scorer: Scorer,
    options: Options | None,
) -> int:
    """Write the new rows of one file, and return how many have a score."""
    rows, scored = RowsFile(target, file.schema.with_metadata(metadata)), 0
    try:
        with open_rows(file.path, options) as opened:
            for batch in pq.ParquetFile(opened).iter_batches(_ROWS_AT_ONCE):
                table = pa.Table.from_batches([batch]).cast(file.schema.remove_metadata())
                scores = _score(table, head, scorer)
                scored += len(scores) - scores.null_count
                number = table.schema.get_field_index(_SCORE)
                rows.add_rows(table.set_column(number, table.schema.field(number), scores))
        rows.commit()
    except BaseException:
        rows.discard()
        raise
    return scored


def _score(table: pa.Table, head: Predictor, scorer: Scorer) -> pa.Array:
    """Return the scores of rows, float32; null for those without an embedding of the backbone's size."""
    vectors, _ = vectors_of(table[EMBEDDING].combine_chunks(), scorer.backbone.dimension)
    scores, _ = score_of_any_length(head, vectors)
    return pa.array(scores, pa.float32(), from_pandas=True)  # NaN is none


def _rounding(head: Predictor) -> float | None:
    """Return the most that rounding each number of a unit vector to float16 can move a linear score.

    Each number is off by 2^-11 of itself at most, so the score by the length of the weights times that.
    """
    if not isinstance(head, AestheticPredictor):
        return None
    return float(np.linalg.norm(head.weight) * 2**-11)
