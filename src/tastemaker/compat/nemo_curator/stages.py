"""The stages with NeMo Curator's defaults, and a base for users' own stages that has NeMo Curator's habits."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any, ClassVar, get_args, get_origin, get_type_hints

import numpy as np

from tastemaker.compat.nemo_curator.models import PRECISION
from tastemaker.errors import ConfigurationError, UnreadableImageError
from tastemaker.scores.copies import TarCopies
from tastemaker.stages import aesthetic, base, embed, partition, read, write
from tastemaker.stages.base import X, Y
from tastemaker.tasks import EmptyTask, FileGroupTask, ImageBatch, ImageObject

_SIZES = ("num_workers", "num_workers_per_node")
_SPECS = ("ray_stage_spec", "xenna_stage_spec")


def _old_name_of(name: str) -> Any:  # noqa: ANN401 - a property, which mypy would want to know the type of
    """Return an attribute for the name that another one had in NeMo Curator 1.0, ``_resources`` for ``resources``."""
    return property(attrgetter(name), lambda stage, value: setattr(stage, name, value))


class ProcessingStage(base.ProcessingStage[X, Y]):
    """One step of a pipeline, as scripts for NeMo Curator write their own.

    Other than Tastemaker's own, a stage may override `process_batch` alone, take an engine's options in `with_`,
    record metrics, and have ``_name``, ``_resources`` and ``_batch_size`` (NeMo Curator 1.0).
    """

    name: str = "ProcessingStage"
    batch_size: int = 1
    runtime_env: dict[str, Any] | None = None
    is_source_stage: bool = False
    is_resumable: bool = True

    _kept_by_with: ClassVar[tuple[str, ...]] = ()
    """What `with_` takes and does not change."""

    _name = _old_name_of("name")
    _resources = _old_name_of("resources")
    _batch_size = _old_name_of("batch_size")

    def __init_subclass__(cls, **options: Any) -> None:  # noqa: ANN401
        super().__init_subclass__(**options)
        for name, kind in (("name", str), ("resources", base.Resources), ("batch_size", int)):
            old = cls.__dict__.get(f"_{name}")
            if isinstance(old, kind) and name not in cls.__dict__:
                setattr(cls, name, old)

    def process_batch(self, tasks: list[X]) -> list[Y]:
        """Return the results of several tasks, in order; None stands for a task that nothing is left of.

        Raises:
            ValueError: A task lacks what `inputs` says.
        """
        results: list[Any] = []
        for task in tasks:
            if not self.validate_input(task):
                raise ValueError(f"stage {self.name!r}: {base.describe_task(task)} lacks some of {self.inputs()}")
            result = self.process(task)
            results += result if isinstance(result, list) else [result]
        return results

    def stream(self, task: X) -> Iterator[Y]:
        """Yield the results of one task: of `process_batch` where the stage has one of its own, else of `process`."""
        if self.supports_batch_processing():
            yield from (result for result in self.process_batch([task]) if result is not None)
        else:
            yield from super().stream(task)

    def supports_batch_processing(self) -> bool:
        """Return whether the stage has a `process_batch` of its own."""
        return type(self).process_batch is not ProcessingStage.process_batch

    def input_spec_for_task(self, task: X) -> tuple[list[str], list[str]]:
        """Return what `inputs` says of a task: the entry of its class, or of the nearest one above.

        Raises:
            TypeError: The stage takes no such task.
        """
        spec = self.inputs()
        if isinstance(spec, tuple):
            return spec
        found = next((spec[kind] for kind in type(task).__mro__ if kind in spec), None)
        if found is None:
            known = ", ".join(kind.__name__ for kind in spec)
            raise TypeError(f"stage {self.name!r} takes {known or 'no tasks'}, not {type(task).__name__}")
        return found

    def validate_input(self, task: X) -> bool:
        """Return whether a task has what `inputs` says: its own attributes, and attributes or columns of its data."""
        try:
            of_task, of_data = self.input_spec_for_task(task)
        except TypeError:
            return False
        columns = task.get_columns() if hasattr(task, "get_columns") else ()
        return all(hasattr(task, name) for name in of_task) and all(
            hasattr(task.data, name) or name in columns for name in of_data
        )

    def is_fanout_stage(self) -> bool:
        """Return whether `process` says by its annotation that it may return a list."""
        try:
            returned = get_type_hints(type(self).process).get("return")
        except (AttributeError, NameError, TypeError):  # a name that only type checkers import
            return False
        return list in {get_origin(kind) or kind for kind in (returned, *get_args(returned))}

    def get_config(self) -> dict[str, Any]:
        """Return name, resources and batch size, and whether the stage has a `process_batch` of its own."""
        config = {name: getattr(self, name) for name in ("name", "resources", "batch_size")}
        return {**config, "supports_batch_processing": self.supports_batch_processing()}

    def num_workers_per_node(self) -> float | None:
        """Return how many workers the stage wants on each machine; None leaves it to the executor."""
        return None

    def ray_stage_spec(self) -> dict[str, Any]:
        """Return options for Ray Data."""
        return {"is_fanout_stage": self.is_fanout_stage()}

    def xenna_stage_spec(self) -> dict[str, Any]:
        """Return options for Xenna."""
        return {}

    def with_(
        self,
        name: str | None = None,
        resources: base.Resources | None = None,
        batch_size: int | None = None,
        runtime_env: dict[str, Any] | None = None,
        **changes: Any,  # noqa: ANN401 - options of an engine, or any attribute of the stage
    ) -> base.ProcessingStage[X, Y]:
        """Return a copy of the stage with other attributes, or other options of an engine. None changes nothing.

        Args:
            name: The first four may be given by their position.
            resources: See ``name``.
            batch_size: See ``name``.
            runtime_env: See ``name``.
            changes: ``num_workers`` and ``num_workers_per_node``, where None leaves it to the executor again;
                ``ray_stage_spec`` and ``xenna_stage_spec``, which add to those of the stage; any other attribute.

        Raises:
            ConfigurationError: The stage has no such attribute.
        """
        given = {"name": name, "resources": resources, "batch_size": batch_size, "runtime_env": runtime_env}
        own = {name: value for name, value in changes.items() if name not in (*_SIZES, *_SPECS)}
        wanted = {name: value for name, value in given.items() if value is not None and name not in self._kept_by_with}
        changed = super().with_(**wanted, **own)
        for option in (option for option in _SIZES if option in changes):
            setattr(changed, option, partial(_return, changes[option]))
        for option in (option for option in _SPECS if changes.get(option) is not None):
            setattr(changed, option, partial(_return, {**getattr(changed, option)(), **changes[option]}))
        return changed

    def take_metrics(self) -> dict[str, float]:
        """Return what the stage has noted with `_log_metrics` since it was last asked."""
        noted: dict[str, float] = vars(self).pop("_noted", {})
        return noted

    def _log_metrics(self, metrics: dict[str, float]) -> None:
        vars(self).setdefault("_noted", {}).update(metrics)

    def _log_metric(self, name: str, value: float) -> None:
        self._log_metrics({name: value})

    @contextmanager
    def _time_metric(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self._log_metric(name, time.perf_counter() - started)


class CompositeStage(ProcessingStage[X, Y]):
    """Several stages under one name. A pipeline runs those that `decompose` returns."""

    @abstractmethod
    def decompose(self) -> list[base.ProcessingStage[Any, Any]]:
        """Return the stages."""

    def with_(self, stage_with_dict: dict[str, Any]) -> CompositeStage[X, Y]:  # type: ignore[override]
        """Note what `with_` of the stages is to be given, by their names; return this stage."""
        vars(self).setdefault("_changes", []).append(stage_with_dict)
        return self

    def decompose_and_apply_with(self) -> list[base.ProcessingStage[Any, Any]]:
        """Return the stages, changed as `with_` was told.

        Raises:
            ConfigurationError: There is no stage of that name.
        """
        stages = self.decompose()
        for changes in vars(self).get("_changes", []):
            unknown = sorted(changes.keys() - {stage.name for stage in stages})
            if unknown:
                raise ConfigurationError(f"{self.name!r} has no stage {unknown[0]!r}")
            stages = [stage.with_(**changes[stage.name]) if stage.name in changes else stage for stage in stages]
        return stages

    def get_description(self) -> str:
        """Return what the stage is, for a person to read."""
        return f"Composite stage: {self.name}"

    def process(self, task: X) -> Y | list[Y] | None:
        """Raise `NotImplementedError`: the stages of `decompose` do the work."""
        raise NotImplementedError(f"{self.name!r} is run by a pipeline, as the stages that it is made of")


@dataclass
class FilePartitioningStage(partition.FilePartitioningStage, ProcessingStage[EmptyTask, FileGroupTask]):
    """`tastemaker.FilePartitioningStage`, whose default is every image and shard, not NeMo Curator's text files."""


@dataclass
class ImageReaderStage(read.ImageReaderStage, ProcessingStage[FileGroupTask, ImageBatch]):
    """`tastemaker.ImageReaderStage` with NeMo Curator's pixels: transformers' crop, and turned as EXIF says.

    The first parameter is ``dali_batch_size``, the number of images in an ImageBatch.
    """

    verbose: bool = True
    preprocess: str = "transformers"
    apply_exif_rotation: bool = True  # as DALI's decoder does (adjust_orientation)

    def __post_init__(self, dali_batch_size: int | None, task_batch_size: int | None) -> None:
        super().__post_init__(dali_batch_size, task_batch_size)
        self.dali_batch_size = self.batch_size

    _kept_by_with = ("batch_size",)  # of images; that of `with_` is NeMo Curator's: tasks at a time


@dataclass
class ImageEmbeddingStage(embed.ImageEmbeddingStage, ProcessingStage[ImageBatch, ImageBatch]):
    """`tastemaker.ImageEmbeddingStage` with NeMo Curator's numbers: transformers' crop, float32 arithmetic."""

    preprocess: str = "transformers"
    precision: str = PRECISION


@dataclass
class BaseFilterStage(base.OfBatches, ProcessingStage[ImageBatch, ImageBatch]):
    """What filters of one's own derive from: NeMo Curator's parameters, and images in batches for a model."""

    model_dir: str | None = None
    num_gpus_per_worker: float = 0.25
    model_inference_batch_size: int = 32
    score_threshold: float = 0.5
    verbose: bool = False
    name: str = "image_filter"

    def __post_init__(self) -> None:
        self.resources = base.Resources(gpus=self.num_gpus_per_worker)

    def yield_next_batch(self, task: ImageBatch) -> Iterator[list[ImageObject]]:
        """Yield the images of a batch, ``model_inference_batch_size`` at a time."""
        for start in range(0, len(task.data), self.model_inference_batch_size):
            yield task.data[start : start + self.model_inference_batch_size]


@dataclass
class ImageAestheticFilterStage(aesthetic.ImageAestheticFilterStage, ProcessingStage[ImageBatch, ImageBatch]):
    """`tastemaker.ImageAestheticFilterStage`, which has NeMo Curator's parameters as they are."""


@dataclass
class ImageWriterStage(write.ImageWriterStage, ProcessingStage[ImageBatch, FileGroupTask]):
    """`tastemaker.ImageWriterStage`, which also writes pixels that a stage has changed: as JPEG, quality 92.

    The output directory is there as soon as the stage is.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._output().make_folder()

    def _place(self, image: ImageObject, tars: TarCopies, root: str) -> tuple[str, str] | None:
        if not _has_changed_pixels(image):
            return super()._place(image, tars, root)
        source = image.encoded, image.member
        image.encoded = image.member = None  # the pixels are all there is
        try:
            return super()._place(image, tars, root)
        finally:
            image.encoded, image.member = source  # the row says where the image came from


def _has_changed_pixels(image: ImageObject) -> bool:
    """Return whether the pixels in memory are others than those of the source; decodes it to find out."""
    if not image.has_pixels or (image.encoded is None and image.member is None):
        return False
    try:
        return not np.array_equal(image.pixels(), image.decode().pixels)
    except UnreadableImageError:
        return True


def _return(value: Any) -> Any:  # noqa: ANN401
    return value
