"""Options that must be numbers, where a text arrives: from YAML, a shell or a form."""

import numpy as np
import pytest

from tastemaker import (
    ConfigurationError,
    FilePartitioningStage,
    ImageAestheticFilterStage,
    ImageEmbeddingStage,
    ImageReaderStage,
    ImageSignalsStage,
    ImageWriterStage,
    Resources,
)
from tastemaker.runs.options import RunMode, RunOptions, Slice
from tastemaker.selections.selection import Selection


@pytest.mark.parametrize(
    ("make", "option", "value"),
    [
        (ImageAestheticFilterStage, "score_threshold", "5,5"),
        (ImageReaderStage, "batch_size", "5"),
        (ImageReaderStage, "batch_size", 5.5),
        (ImageReaderStage, "batch_size", None),
        (ImageReaderStage, "max_pixels", "1e6"),
        (ImageEmbeddingStage, "model_inference_batch_size", "32"),
        (ImageEmbeddingStage, "num_gpus_per_worker", [1]),
        (ImageSignalsStage, "min_technical_quality", "0.5"),
        (lambda **options: FilePartitioningStage("photos", **options), "limit", "1"),
        (lambda **options: ImageWriterStage("out", **options), "images_per_tar", "1000"),
        (Resources, "cpus", "1"),
        (RunOptions, "min_technical_quality", "0.5"),
        (RunMode, "metrics_port", "9000"),
        (lambda **options: Slice(total=2, **options), "index", "1"),
        (Selection, "min_score", "5.5"),
        (Selection, "top", "20%"),
    ],
)
def test_a_value_of_another_type_is_named_with_its_option(make, option, value):
    with pytest.raises(ConfigurationError) as raised:
        make(**{option: value})
    assert str(raised.value).startswith(f"{option}={value!r} is of type {type(value).__name__}; it must be ")


def test_a_cut_at_nan_is_an_error():
    with pytest.raises(ConfigurationError, match="min_score=nan is not a number"):
        Selection(min_score=float("nan"))


def test_numbers_of_numpy_and_whole_numbers_for_fractions_are_taken():
    assert ImageReaderStage(batch_size=np.int64(5)).batch_size == 5
    assert ImageAestheticFilterStage(score_threshold=np.float32(5.5)).score_threshold == 5.5
    assert ImageAestheticFilterStage(score_threshold=5).score_threshold == 5
    assert ImageAestheticFilterStage(score_threshold=None).score_threshold is None
    assert FilePartitioningStage("photos", blocksize="512MB").blocksize == "512MB"
