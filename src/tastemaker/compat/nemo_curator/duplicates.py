"""NeMo Curator's way to remove duplicates: embeddings as tables, a list of those to remove, and the stage that does it.

Its workflow clusters with k-means and compares within clusters, on GPUs. Here `tastemaker.scores.groups` finds the same
kind of duplicates by comparing all with all, or through an index.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tastemaker.checks import check_choice
from tastemaker.compat.nemo_curator.stages import ProcessingStage
from tastemaker.errors import ConfigurationError
from tastemaker.scores.files import read_rows
from tastemaker.scores.groups import group_duplicates
from tastemaker.scores.vectors import embeddings_of
from tastemaker.stages.base import OfBatches, WorkerMetadata
from tastemaker.storage import expand_path
from tastemaker.storage.inputs import digest_of
from tastemaker.storage.owned import OwnFiles
from tastemaker.storage.place import Place
from tastemaker.tasks import FileGroupTask, ImageBatch, Task

logger = logging.getLogger(__name__)


@dataclass
class DocumentBatch(Task[Any]):
    """Rows of a table.

    Attributes:
        data: A table of pyarrow; a DataFrame of pandas is taken, too.
    """

    dataset_name: str = ""
    data: Any = field(default_factory=lambda: pa.table({}))

    def to_pyarrow(self) -> pa.Table:
        """Return the rows as a table of pyarrow."""
        return self.data if isinstance(self.data, pa.Table) else pa.Table.from_pandas(self.data, preserve_index=False)

    def to_pandas(self) -> Any:  # noqa: ANN401 - pandas may not be there to name its type
        """Return the rows as a DataFrame of pandas."""
        return self.data.to_pandas() if isinstance(self.data, pa.Table) else self.data

    def get_columns(self) -> list[str]:
        """Return the names of the columns."""
        return list(self.to_pyarrow().column_names)

    @property
    def num_items(self) -> int:
        """Number of rows."""
        return len(self.data)


@dataclass
class ConvertImageBatchToDocumentBatchStage(ProcessingStage[ImageBatch, DocumentBatch]):
    """Images to rows of a table.

    Args:
        fields: Attributes of `tastemaker.ImageObject` that become columns; arrays become lists. Empty for ``image_id``.
    """

    fields: list[str] = field(default_factory=list)
    name: str = "convert_image_batch_to_document_batch"

    def process(self, task: ImageBatch) -> DocumentBatch:
        """Return the rows of a batch."""
        columns = {
            name: pa.array([_plain(getattr(image, name, None)) for image in task.data])
            for name in self.fields or ["image_id"]
        }
        return DocumentBatch(task.dataset_name, pa.table(columns), _metadata=task._metadata, task_id=task.task_id)


def _plain(value: Any) -> Any:  # noqa: ANN401
    return value.ravel() if isinstance(value, np.ndarray) else value


@dataclass
class ParquetWriter(ProcessingStage[DocumentBatch, FileGroupTask]):
    """A Parquet file for each batch. A run over the same input replaces its own files, and no others.

    Args:
        path: Directory of the files, or a URL.
        file_extension: Of the files.
        write_kwargs: For `pyarrow.parquet.write_table`, and ``storage_options`` for a URL.
        fields: Columns to write; None for all.
        mode: ``ignore``, or ``error`` where the directory may not be there yet.
    """

    path: str
    file_extension: str = "parquet"
    write_kwargs: dict[str, Any] = field(default_factory=dict)
    fields: list[str] | None = None
    name: str = "parquet_writer"
    mode: str = "ignore"
    is_sink_stage: bool = field(default=True, init=False, repr=False)

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, ("ignore", "error"))
        self.path = expand_path(self.path)
        if self.mode == "error" and self._folder().exists():
            raise ConfigurationError(f"{self._folder()} is there already: choose another directory, or mode='ignore'")

    def process(self, task: DocumentBatch) -> FileGroupTask:
        """Write a batch, and return the path of its file."""
        rows = task.to_pyarrow()
        made_of = [*(path for path, *_ in task.partition.files), task.partition.name, task.task_id]
        target = self._folder() / f"{digest_of('|'.join(made_of))[:16]}.{self.file_extension}"
        options = {name: value for name, value in self.write_kwargs.items() if name not in ("storage_options", "index")}
        _write_table(target, rows if self.fields is None else rows.select(self.fields), **options)
        return FileGroupTask(task.dataset_name, [target.address], _metadata=task._metadata, task_id=task.task_id)

    def _folder(self) -> Place:
        return Place.of(self.path, self.write_kwargs.get("storage_options"))


@dataclass
class ImageDuplicatesRemovalStage(OfBatches, ProcessingStage[ImageBatch, ImageBatch]):
    """Leaves out the images that a list of duplicates names. They get a row each, as dropped by this stage.

    Args:
        removal_parquets_dir: Directory of Parquet files, as `SemanticDeduplicationWorkflow` writes them.
        duplicate_id_field: Their column that names the images, by ``image_id`` or by ``image_path``.
        verbose: Log how many were left out of each batch.
    """

    removal_parquets_dir: str
    duplicate_id_field: str = "id"
    verbose: bool = False
    name: str = "image_dedup_filter"
    _removed: frozenset[str] = field(default=frozenset(), init=False, repr=False)

    def fingerprint(self) -> dict[str, Any]:
        """Return the options and what the list holds."""
        return {**super().fingerprint(), "removed": digest_of("|".join(sorted(self._read())))}

    def setup(self, worker_metadata: WorkerMetadata | None = None) -> None:
        """Read the list.

        Raises:
            FileNotFoundError: There is no Parquet file.
            ConfigurationError: A file has no such column.
        """
        self._removed = self._read()

    def process(self, task: ImageBatch) -> ImageBatch:
        """Return the batch without the images that the list names."""
        kept = [image for image in task.data if not {image.image_id, image.image_path} & self._removed]
        if self.verbose:
            logger.info("kept %d of %d images, the others are duplicates", len(kept), len(task.data))
        return replace(task, data=kept)

    def _read(self) -> frozenset[str]:
        folder = Place.of(self.removal_parquets_dir)
        files = _parquet_files(folder, recursive=False)
        if not files:
            raise FileNotFoundError(f"there are no Parquet files in {folder}")
        tables = [_read_table(file, [self.duplicate_id_field]) for file in files]
        return frozenset(str(name) for table in tables for name in table.column(0).to_pylist())


@dataclass
class WorkflowRunResult:
    """What a workflow came to.

    Attributes:
        workflow_name: Its name.
        pipeline_tasks: Name of a part -> the tasks that it returned.
        metadata: Its figures, by name.
    """

    workflow_name: str
    pipeline_tasks: dict[str, list[Task[Any]]] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)

    def get_metadata(self, key: str) -> Any:  # noqa: ANN401
        """Return a figure; None where there is none of that name."""
        return self.metadata.get(key)

    def add_metadata(self, key: str, value: Any) -> None:  # noqa: ANN401
        """Note a figure."""
        self.metadata[key] = value

    def extend_metadata(self, updates: dict[str, Any] | None = None) -> None:
        """Note several figures."""
        self.metadata |= updates or {}

    def add_pipeline_tasks(self, pipeline_name: str, tasks: list[Task[Any]] | None) -> None:
        """Note what a part returned; None is no tasks."""
        self.pipeline_tasks[pipeline_name] = list(tasks or [])


class WorkflowBase(ABC):
    """Something that runs as a whole, as pipelines do."""

    @abstractmethod
    def run(self, *args: Any, **kwargs: Any) -> WorkflowRunResult:  # noqa: ANN401
        """Run it, and return what it came to."""


class SemanticDeduplicationWorkflow(WorkflowBase):
    """Finds images whose embeddings are nearly the same, and lists all but the first of each such group, by name.

    Args:
        input_path: Directory of Parquet files with embeddings, or several.
        output_path: Directory in which ``duplicates/duplicates.parquet`` is written, with the column ``id``.
        n_clusters: Not used: nothing is clustered first. Nor are the arguments that are not named here.
        id_field: Column that names the images. It must name each once.
        embedding_field: Column of the embeddings.
        eps: Images are duplicates whose cosine is ``1 - eps`` or more, in [0, 1).
        input_filetype: ``parquet``; nothing else is read.
        distance_metric: ``cosine``; nothing else is computed.
        read_kwargs: ``storage_options`` for an input at a URL.
        write_kwargs: ``storage_options`` for an output at a URL.

    Raises:
        ConfigurationError: An argument asks for what is not done here.
    """

    def __init__(
        self,
        input_path: str | list[str],
        output_path: str,
        n_clusters: int | None = None,
        cache_path: str | None = None,
        id_field: str = "id",
        embedding_field: str = "embeddings",
        metadata_fields: list[str] | None = None,
        input_filetype: str = "parquet",
        input_file_extensions: list[str] | None = None,
        max_iter: int = 300,
        tol: float = 1e-4,
        random_state: int = 42,
        init: Any = "k-means||",  # noqa: ANN401 - a name, or an array
        n_init: int | str = 1,
        oversampling_factor: float = 2.0,
        max_samples_per_batch: int = 32768,
        fit_data_fraction: float | None = None,
        distance_metric: str = "cosine",
        which_to_keep: str = "hard",
        ranking_strategy: Any = None,  # noqa: ANN401 - a class that is not here
        pairwise_batch_size: int = 1024,
        eps: float | None = None,
        _duplicates_num_row_groups_hint: int | None = None,
        read_kwargs: dict[str, Any] | None = None,
        cache_kwargs: dict[str, Any] | None = None,
        write_kwargs: dict[str, Any] | None = None,
        clear_output: bool = True,
        verbose: bool = True,
        pairwise_compute_dtype: str = "float16",
        kmeans_embedding_output_dtype: str = "float16",
        *,
        embedding_dim: int | None = None,
    ) -> None:
        check_choice("input_filetype", input_filetype, ("parquet",))
        check_choice("distance_metric", distance_metric, ("cosine",))
        if eps is None or not 0 <= eps < 1:
            raise ConfigurationError(f"eps={eps} is not in [0, 1); duplicates are found at a cosine of 1 - eps")
        self.id_field, self.embedding_field, self.eps = id_field, embedding_field, eps
        options = (read_kwargs or {}).get("storage_options")
        paths = [input_path] if isinstance(input_path, str) else input_path
        self._inputs = [Place.of(path, options) for path in paths]
        self._output = Place.of(output_path, (write_kwargs or {}).get("storage_options"))

    def run(self, *_args: Any, **_kwargs: Any) -> WorkflowRunResult:  # noqa: ANN401
        """Write the list, and return how many are in it. Executors and checkpoints are taken, and not needed.

        Raises:
            ConfigurationError: There are no embeddings, or two images have one name.
            MissingExtraError: There are more than 30,000, and the extra ``groups`` is not installed.
        """
        started = time.perf_counter()
        rows = pa.concat_tables(list(self._read()), promote_options="permissive").sort_by(self.id_field)
        self._check_names(rows)
        groups = group_duplicates(embeddings_of(rows[self.embedding_field]), min_similarity=1 - self.eps)
        listed = rows.filter(pa.array(groups != np.arange(len(rows)))).select([self.id_field]).rename_columns(["id"])
        target = self._output / "duplicates" / "duplicates.parquet"
        _write_table(target, listed.sort_by("id"))
        spent = time.perf_counter() - started
        logger.warning("%d of %d images are duplicates of others: %s", len(listed), len(rows), target)
        task = FileGroupTask("duplicates", [target.address], _metadata={"num_removed": len(listed)})
        figures = {"total_time": spent, "num_duplicates": len(listed)}
        return WorkflowRunResult("semantic_deduplication", {"pairwise": [task]}, figures)

    def _read(self) -> Iterator[pa.Table]:
        files = [file for place in self._inputs for file in _parquet_files(place)]
        if not files:
            raise ConfigurationError(f"there are no Parquet files in {', '.join(map(str, self._inputs))}")
        for file in files:
            yield _read_table(file, [self.id_field, self.embedding_field])

    def _check_names(self, rows: pa.Table) -> None:
        counts = pc.value_counts(rows[self.id_field].combine_chunks())
        twice = next((count["values"].as_py() for count in counts if count["counts"].as_py() > 1), None)
        if twice is not None:
            raise ConfigurationError(
                f"two images are called {twice!r} in the column {self.id_field!r}, so a list of names would remove "
                "both. Name images by their paths: ConvertImageBatchToDocumentBatchStage(fields=['image_path', "
                "'embedding']), and id_field='image_path'"
            )


def _parquet_files(folder: Place, *, recursive: bool = True) -> Sequence[Place]:
    if folder.is_file():
        return [folder]
    found = sorted(folder.list(recursive=recursive), key=lambda entry: str(entry.place))
    return [entry.place for entry in found if entry.place.name.endswith(".parquet")]


def _read_table(file: Place, columns: list[str]) -> pa.Table:
    try:
        table = read_rows(file, columns)
    except pa.ArrowException as error:
        raise ConfigurationError(f"{file} cannot be read: {error}") from error
    if missing := [name for name in columns if name not in table.column_names]:
        raise ConfigurationError(f"{file} has no column {missing[0]!r}")
    return table


def _write_table(target: Place, rows: pa.Table, **options: Any) -> None:  # noqa: ANN401
    """Write a Parquet file that was ours or is new.

    Raises:
        ConfigurationError: A file of somebody else is there.
    """
    with OwnFiles.of_one_file(target).drafted(target.name) as draft:
        pq.write_table(rows, Path(draft.path), **options)
