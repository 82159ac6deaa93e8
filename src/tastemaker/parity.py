"""How far a faster way of scoring is from the exact one, on the user's own images: the parity certificate.

The exact way is Pillow's resize and the tower in plain float32 (`PlainClip`), which agrees with the published reference
to 1e-5.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tastemaker.errors import ConfigurationError
from tastemaker.models.aesthetic import AestheticPredictor
from tastemaker.models.clip import load_clip
from tastemaker.models.clip_plain import PlainClip
from tastemaker.models.device import choose_device
from tastemaker.models.hub import ensure_head, ensure_weights
from tastemaker.models.published.laion_v2 import AESTHETIC_PREDICTOR
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
from tastemaker.models.vit import Embeddings, Pixels, VisionTower
from tastemaker.stages.partition import FilePartitioningStage
from tastemaker.stages.read import ImageReaderStage, choose_resize
from tastemaker.storage import Options
from tastemaker.tasks import FileGroupTask

CUTOFFS = (4.5, 5.0, 5.5, 6.0, 6.5)
"""Scores at which images are counted that are on one side by the exact way and on the other by the chosen one."""

MAX_MEDIAN_DIFFERENCE = 0.01
MAX_DIFFERENCE = 0.05
"""Tolerance of a reduced precision, in scores: about a hundredth of the spread between photographs, and a twentieth."""

_PROGRESS_EVERY = 8

Spread = dict[str, float]


@dataclass(frozen=True)
class ParityReport:
    """How the scores of a chosen way differ from the exact ones, over a sample of images.

    Attributes:
        images: Images in the sample.
        exact: Backend, device and precision of the exact way.
        chosen: The same of the chosen one.
        cosine_distance: ``median``, ``p99`` and ``maximum`` of one minus the cosine between an image's embeddings.
        score_difference: The same of the absolute difference of its scores.
        side_changes: Cut-off -> images that it keeps by one way and drops by the other.
        rank_correlation: Spearman's, -1 to 1; None for fewer than two images or equal scores.
        exact_images_per_s: Speed of the exact model; 0 where it was not measured.
        chosen_images_per_s: Speed of the chosen one.
    """

    images: int
    exact: dict[str, str]
    chosen: dict[str, str]
    cosine_distance: Spread
    score_difference: Spread
    side_changes: dict[str, int]
    rank_correlation: float | None
    exact_images_per_s: float = 0.0
    chosen_images_per_s: float = 0.0

    @property
    def is_within_tolerance(self) -> bool:
        """Whether the scores differ by 0.01 or less in the median and by 0.05 or less at most."""
        difference = self.score_difference
        return difference["median"] <= MAX_MEDIAN_DIFFERENCE and difference["maximum"] <= MAX_DIFFERENCE


class Embedded(NamedTuple):
    """What one way made of a sample.

    Attributes:
        embeddings: float32 (n, 768), unit length.
        way: What made them: backend, device, precision.
        images_per_s: Its speed; 0 where it was not measured.
    """

    embeddings: Embeddings
    way: dict[str, str]
    images_per_s: float = 0.0


def compare_embeddings(exact: Embedded, chosen: Embedded, predictor: AestheticPredictor) -> ParityReport:
    """Return how two ways of embedding the same images (one or more, in the same order) differ."""
    exact_scores, chosen_scores = predictor.score(exact.embeddings), predictor.score(chosen.embeddings)
    return ParityReport(
        images=len(exact_scores),
        exact=exact.way,
        chosen=chosen.way,
        cosine_distance=_spread(_cosine_distances(exact.embeddings, chosen.embeddings)),
        score_difference=_spread(np.abs(exact_scores.astype(np.float64) - chosen_scores)),
        side_changes={str(cut): int(((exact_scores >= cut) != (chosen_scores >= cut)).sum()) for cut in CUTOFFS},
        rank_correlation=_rank_correlation(exact_scores, chosen_scores),
        exact_images_per_s=exact.images_per_s,
        chosen_images_per_s=chosen.images_per_s,
    )


@dataclass(frozen=True)
class Sample:
    """The same images as the model's input for both ways, uint8 (n, 224, 224, 3)."""

    exact: Pixels
    chosen: Pixels


def verify_parity(
    sample: Sample,
    *,
    model_dir: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    predictor: str | None = None,
    storage_options: Options | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> ParityReport:
    """Return how the chosen device and precision differ from the exact way, on a sample of images.

    Args:
        sample: See `sample_images` and `built_in_sample`.
        model_dir: Directory of models.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: ``auto``, ``f32``, ``bf16``, ``fp16`` or ``int8``.
        threads: Processor threads; None for all cores.
        predictor: Path of another predictor.
        storage_options: Arguments of the fsspec file system of models at a URL.
        on_progress: Called with the images done: each counts twice, once for each way.

    Raises:
        ConfigurationError: This machine does not have the device or the precision.
        WeightsNotFoundError: The models are not there and cannot be fetched.
    """
    weights = ensure_weights(CLIP_VIT_L14, model_dir, storage_options)
    scorer = AestheticPredictor.from_file(ensure_head(AESTHETIC_PREDICTOR, predictor, model_dir, storage_options))
    # One tower after the other: two would need twice the memory.
    chosen = _embed(load_clip(weights, device, precision, threads), sample.chosen, on_progress)
    exact = _embed(PlainClip(weights), sample.exact, lambda done: on_progress(len(sample.chosen) + done))
    return compare_embeddings(exact, chosen, scorer)


def _embed(tower: VisionTower, pixels: Pixels, on_progress: Callable[[int], None]) -> Embedded:
    tower.embed(pixels[:1])  # makes kernels and reads the weights
    started = time.perf_counter()
    parts: list[Embeddings] = []
    for start in range(0, len(pixels), _PROGRESS_EVERY):
        parts.append(tower.embed(pixels[start : start + _PROGRESS_EVERY]))
        on_progress(start + len(parts[-1]))
    return Embedded(np.concatenate(parts), tower.describe(), len(pixels) / (time.perf_counter() - started))


def sample_images(inputs: list[str], limit: int, preprocess: str | None = None, device: str = "auto") -> Sample:
    """Return up to ``limit`` readable images spread over files, folders and shards.

    Args:
        inputs: Files, folders and globs.
        limit: Images at most.
        preprocess: ``openai`` or ``transformers``.
        device: Of the chosen way, which decides how it resizes.

    Raises:
        ConfigurationError: None can be read, or ``limit`` is less than 1.
    """
    groups = FilePartitioningStage(file_paths=inputs, files_per_partition=1).process()
    return sample_groups(groups, limit, preprocess, device)


def sample_groups(groups: list[FileGroupTask], limit: int, preprocess: str | None, device: str) -> Sample:
    """Return up to ``limit`` readable images of groups of files, as many of each; see `sample_images`."""
    if limit < 1:
        raise ConfigurationError(f"a sample of {limit} images is too small")
    spread = [groups[number * len(groups) // min(limit, len(groups))] for number in range(min(limit, len(groups)))]
    exact = _read(spread, limit, preprocess, "pillow")
    resize = "pillow" if choose_device(device) == "cpu" else choose_resize("auto")
    return Sample(exact, exact if resize == "pillow" else _read(spread, limit, preprocess, resize))


def _read(groups: list[FileGroupTask], limit: int, preprocess: str | None, resize: str) -> Pixels:
    reader = ImageReaderStage(batch_size=1, preprocess=preprocess, resize=resize)
    found: list[Pixels] = []
    try:
        for number, group in enumerate(groups, 1):
            images = (image for batch in reader.stream(group) for image in batch.data)
            wanted = limit * number // len(groups) - len(found)  # more where earlier groups had too few
            found += [image.model_input for image in islice(images, wanted) if image.model_input is not None]
    finally:
        reader.teardown()
    if not found:
        raise ConfigurationError(f"no image of {', '.join(group.data[0] for group in groups[:3])} can be read")
    return np.stack(found)


def built_in_sample(count: int = 32) -> Sample:
    """Return pictures made by arithmetic: soft and rough textures, edges and gradients, from dark to bright.

    They exercise the model and are no photographs; a statement on photographs needs some (``--images``).
    """
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:224, 0:224] / 224
    pictures = []
    for number in range(count):
        picture = np.full((224, 224, 3), 40 + 170 * rng.random())
        for cells in (2, 4, 7, 14, 28, 56, 112, 224):
            noise = rng.standard_normal((cells, cells, 3)) * 90 / cells ** (0.3 + 0.9 * rng.random())
            picture += noise.repeat(224 // cells, axis=0).repeat(224 // cells, axis=1)
        angle = 2 * np.pi * rng.random()
        side = np.cos(angle) * (rows - 0.5) + np.sin(angle) * (columns - 0.5) > 0.3 * (rng.random() - 0.5)
        picture += (side if number % 2 else rows + columns - 1)[..., None] * rng.uniform(-120, 120, 3)
        pictures.append(picture.clip(0, 255).astype(np.uint8))
    pixels = np.stack(pictures)
    return Sample(pixels, pixels)


def _cosine_distances(first: Embeddings, second: Embeddings) -> npt.NDArray[np.float64]:
    first, second = first.astype(np.float64), second.astype(np.float64)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    distances: npt.NDArray[np.float64] = np.maximum(1 - (first * second).sum(axis=1) / lengths, 0)
    return distances


def _spread(values: npt.NDArray[np.float64]) -> Spread:
    return {
        "median": float(np.median(values)),
        "p99": float(np.percentile(values, 99)),
        "maximum": float(values.max()),
    }


def _rank_correlation(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> float | None:
    """Return Spearman's rank correlation: Pearson's of the ranks, equal values sharing the mean of theirs."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(_ranks(first), _ranks(second))[0, 1])


def _ranks(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: npt.NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[which]
    return ranks
