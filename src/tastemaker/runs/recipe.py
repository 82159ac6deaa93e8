"""The stages of a run, made of its options."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tastemaker.embeddings.stages import EmbeddingReaderStage, EmbeddingScoreStage, EmbeddingWriterStage
from tastemaker.errors import ConfigurationError
from tastemaker.machine import usable_cores
from tastemaker.models.device import choose_device
from tastemaker.parity import (
    CERTIFICATE_IMAGES,
    MAX_DIFFERENCE,
    MAX_MEDIAN_DIFFERENCE,
    find_certificate,
    verify_parity,
)
from tastemaker.provenance import add_provenance
from tastemaker.runs.options import RunOptions
from tastemaker.scores.layout import ROWS_FOLDER
from tastemaker.stages.aesthetic import ImageAestheticFilterStage
from tastemaker.stages.base import ProcessingStage
from tastemaker.stages.embed import ImageEmbeddingStage
from tastemaker.stages.read import ImageReaderStage, resize_for
from tastemaker.stages.signals import ImageSignalsStage
from tastemaker.stages.write import ImageWriterStage
from tastemaker.storage.place import Place
from tastemaker.tasks import FileGroupTask

GPU_BATCH_SIZE = 256
"""Images in a batch on a GPU: as many as it computes at a time, see `tastemaker.models.clip_torch`."""


def make_stages(output_dir: Place, options: RunOptions) -> list[ProcessingStage[Any, Any]]:
    """Return the stages of a run, the writer last."""
    on_gpu = choose_device(options.device) != "cpu"
    threads = options.threads or usable_cores()
    by_model, minimum = options.is_by_model, options.min_technical_quality
    reader = ImageReaderStage(
        batch_size=options.batch_size or (GPU_BATCH_SIZE if on_gpu else 32),
        preprocess=options.preprocess,
        apply_exif_rotation=options.exif_rotate,
        convert_profile=options.convert_profiles,
        max_pixels=options.max_pixels,
        verbose=options.verbose,
        num_threads=threads,
        resize=resize_for(options.device),
        scorer=options.scorers,
        column=options.column,
        signals=True if minimum is not None or not by_model else options.signals,
    )
    signals = [] if minimum is None else [ImageSignalsStage(minimum, threads)]
    embedder = ImageEmbeddingStage(
        model_dir=options.model_dir,
        num_gpus_per_worker=1,  # copies overlap computation: a second worker would only take from the first
        device=options.device,
        precision=options.precision,
        threads=options.threads,
        model_inference_batch_size=options.batch_size,
        preprocess=options.preprocess,
        storage_options=options.storage_options,
        scorer=options.scorers,
    )
    judge = ImageAestheticFilterStage(
        model_dir=options.model_dir,
        score_threshold=None,
        verbose=options.verbose,
        storage_options=options.storage_options,
        scorer=options.scorers,
    )
    writer = ImageWriterStage(
        (output_dir / ROWS_FOLDER).address,
        originals="none",
        write_embeddings=options.embeddings and by_model,
        storage_options=options.storage_options,
    )
    return [reader, *signals, *([embedder, judge] if by_model else []), writer]


def state_parity(groups: list[FileGroupTask], options: RunOptions) -> None:
    """Note this machine's parity certificate as provenance of what it will score; int8 does not run without one.

    It is of the run's first scorer that takes embeddings alone.

    Where there is none for int8, it is made of some of the run's own images. Their exact scores take a quarter of a
    minute.

    Raises:
        ConfigurationError: int8 does not hold the tolerance on them. The message has the figures.
    """
    scorer = next((scorer for scorer in options.scorers if not scorer.reads_captions), None)
    if scorer is None and options.precision == "int8":
        raise ConfigurationError("precision='int8' is compared by a scorer that reads no captions: name one, too")
    if scorer is None:
        return
    made_by: dict[str, Any] = {
        "model_dir": options.model_dir,
        "device": options.device,
        "precision": options.precision,
        "scorer": scorer,
        "storage_options": options.storage_options,
    }
    report = find_certificate(**made_by)
    if report is None and options.precision == "int8":
        report = verify_parity(
            groups, CERTIFICATE_IMAGES, threads=options.threads, preprocess=options.preprocess, **made_by
        )
        if not report.is_within_tolerance:
            difference = report.score_difference
            raise ConfigurationError(
                f"precision='int8' moves the scores of {report.images} of these images by {difference['median']:.3f} "
                f"in the median and {difference['maximum']:.3f} at most; {MAX_MEDIAN_DIFFERENCE} and {MAX_DIFFERENCE} "
                "are allowed. Use precision='auto'; `tastemaker verify --images` shows more"
            )
    if report is not None:
        for group in groups:
            add_provenance(group.partition, parity=asdict(report))


def check_embedding_options(options: RunOptions) -> None:
    """Raise `ConfigurationError` for options that need pictures, where the input is embeddings."""
    if options.signals or options.min_technical_quality is not None or not options.is_by_model:
        raise ConfigurationError("the input is embeddings, and technical quality is measured in pictures")


def make_embedding_stages(output_dir: Place, options: RunOptions) -> list[ProcessingStage[Any, Any]]:
    """Return the stages that read, score and write embeddings."""
    places = options.storage_options
    return [
        EmbeddingReaderStage(options.column, options.caption_column),
        EmbeddingScoreStage(options.model_dir, options.scorers, places),
        EmbeddingWriterStage((output_dir / ROWS_FOLDER).address, options.copy_embeddings, storage_options=places),
    ]
