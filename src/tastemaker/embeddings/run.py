"""What a run over embeddings does differently from one over images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tastemaker.embeddings.stages import EmbeddingReaderStage, EmbeddingScoreStage, EmbeddingWriterStage
from tastemaker.errors import ConfigurationError
from tastemaker.scores.layout import ROWS_FOLDER
from tastemaker.stages.base import ProcessingStage
from tastemaker.storage.place import Place

if TYPE_CHECKING:
    from tastemaker.runs.options import RunOptions


def check_options(options: RunOptions) -> None:
    """Raise `ConfigurationError` for options that need pictures, where the input is embeddings."""
    if options.signals or options.min_technical_quality is not None or options.rank_by != "aesthetic_score":
        raise ConfigurationError("the input is embeddings, and technical quality is measured in pictures")


def make_embedding_stages(output_dir: Place, options: RunOptions) -> list[ProcessingStage[Any, Any]]:
    """Return the stages that read, score and write embeddings."""
    places = options.storage_options
    return [
        EmbeddingReaderStage(),
        EmbeddingScoreStage(options.model_dir, options.predictor, options.copy_embeddings, storage_options=places),
        EmbeddingWriterStage((output_dir / ROWS_FOLDER).address, options.copy_embeddings, storage_options=places),
    ]
