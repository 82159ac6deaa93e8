"""How far a faster way of scoring is from the exact one: the parity certificate of a machine.

The exact way is Pillow's resize and the tower in float32 on the processor, which agrees with the published reference to
1e-5. A certificate holds for the weights, the precision and the machine that it was measured with. It is kept in the
user's cache directory, and the rows of later runs state it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from tastemaker.checks import check_positive
from tastemaker.errors import ConfigurationError
from tastemaker.machine import describe_machine
from tastemaker.models.clip import load_clip, resolve_precision
from tastemaker.models.device import choose_device
from tastemaker.models.hub import cache_dir, ensure_weights, file_sha256
from tastemaker.models.published import DEFAULT_SCORER, find_scorer
from tastemaker.models.records import Scorer
from tastemaker.models.vit import Pixels, VisionTower
from tastemaker.models.words import load_head, refuse_captions
from tastemaker.stages.partition import FilePartitioningStage
from tastemaker.stages.read import ImageReaderStage, resize_for
from tastemaker.storage import Options
from tastemaker.storage.place import Place
from tastemaker.tasks import FileGroupTask

if TYPE_CHECKING:
    from tastemaker.models.records import Predictor

MAX_MEDIAN_DIFFERENCE = 0.01
MAX_DIFFERENCE = 0.05
"""Tolerance of a reduced precision, in scores: about a hundredth of the spread between photographs, and a twentieth."""

CERTIFICATE_IMAGES = 16
"""A comparison of fewer images is not kept for later runs."""

_PROGRESS_EVERY = 8

Scores = npt.NDArray[np.float32]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ParityReport:
    """How the scores of a chosen way differ from the exact ones, over a sample of images.

    Attributes:
        images: Images in the sample.
        exact: Backend, device and precision of the exact way.
        chosen: The same of the chosen one.
        score_difference: ``median``, ``p99`` and ``maximum`` of the absolute difference of an image's scores.
        side_changes: Customary cut-off -> images that it keeps by one way and drops by the other.
        exact_images_per_s: Speed of the exact model.
        chosen_images_per_s: Speed of the chosen one.
    """

    images: int
    exact: dict[str, str]
    chosen: dict[str, str]
    score_difference: dict[str, float]
    side_changes: dict[str, int]
    exact_images_per_s: float
    chosen_images_per_s: float

    @property
    def is_within_tolerance(self) -> bool:
        """Whether the scores differ by 0.01 or less in the median and by 0.05 or less at most."""
        difference = self.score_difference
        return difference["median"] <= MAX_MEDIAN_DIFFERENCE and difference["maximum"] <= MAX_DIFFERENCE


class Scored(NamedTuple):
    """What one way made of a sample.

    Attributes:
        scores: float32 (n,).
        way: What made them: backend, device, precision.
        images_per_s: Its speed.
    """

    scores: Scores
    way: dict[str, str]
    images_per_s: float


def compare_scores(exact: Scored, chosen: Scored, cutoffs: Sequence[float]) -> ParityReport:
    """Return how two ways of scoring the same images (one or more, in the same order) differ, also at cut-offs."""
    difference = np.abs(exact.scores.astype(np.float64) - chosen.scores)
    return ParityReport(
        images=len(difference),
        exact=exact.way,
        chosen=chosen.way,
        score_difference={
            "median": float(np.median(difference)),
            "p99": float(np.percentile(difference, 99)),
            "maximum": float(difference.max()),
        },
        side_changes={str(cut): int(((exact.scores >= cut) != (chosen.scores >= cut)).sum()) for cut in cutoffs},
        exact_images_per_s=exact.images_per_s,
        chosen_images_per_s=chosen.images_per_s,
    )


def verify_parity(
    inputs: Sequence[str] | Sequence[FileGroupTask] = (),
    limit: int = 32,
    *,
    model_dir: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    preprocess: str | None = None,
    scorer: str | Scorer = DEFAULT_SCORER,
    storage_options: Options | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> ParityReport:
    """Return how the chosen device and precision differ from the exact way, on some images.

    A result within the tolerance becomes this machine's certificate if there are 16 images or more. A result beyond it
    deletes the certificate.

    Args:
        inputs: Files, folders and globs, or groups of files. The images are spread over them; those that cannot be read
            are left out. Without inputs, pictures made by arithmetic are compared. They exercise the model and are no
            photographs.
        limit: Images at most.
        model_dir: Directory of models.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: ``auto``, ``f32``, ``bf16``, ``fp16`` or ``int8``.
        threads: Processor threads; None for all cores.
        preprocess: ``openai`` or ``transformers``; None for that of the scorer's record.
        scorer: What scores, as `find_scorer` takes it.
        storage_options: Settings of the store of models at a URL.
        on_progress: Called with the images done and their number: each counts twice, once for each way.

    Raises:
        ConfigurationError: No image can be read, ``limit`` is less than 1, or this machine does not have the device or
            the precision.
        WeightsNotFoundError: The models are not there and cannot be fetched.
    """
    check_positive("limit", limit)
    found = find_scorer(scorer, storage_options)
    refuse_captions([found], "and the sample has none: name another scorer")
    resize = resize_for(device)
    for_exact = for_chosen = _read(inputs, limit, preprocess, "pillow", found) if inputs else _draw(limit, found)
    if inputs and resize != "pillow":
        for_chosen = _read(inputs, limit, preprocess, resize, found)
    weights = ensure_weights(found.backbone, model_dir, storage_options)
    predict, _ = load_head(found, model_dir, storage_options)

    def score(pixels: Pixels, where: str, how: str, before: int) -> Scored:
        tower = load_clip(weights, where, how, threads, backbone=found.backbone)
        return _score(tower, predict, pixels, lambda done: on_progress(before + done, 2 * len(pixels)))

    # One tower after the other: two would need twice the memory.
    chosen = score(for_chosen, device, precision, 0)
    exact = score(for_exact, "cpu", "f32", len(for_chosen))
    report = compare_scores(exact, chosen, found.customary_cutoffs)
    path = _certificate_path(found, model_dir, device, precision, storage_options)
    if not report.is_within_tolerance:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    elif report.images >= CERTIFICATE_IMAGES:
        try:
            Place.at(str(path)).write(json.dumps(asdict(report)).encode())
        except OSError as error:  # a home that is read only
            logger.warning("the certificate cannot be kept (%s: %s); the next run compares anew", path, error.strerror)
    return report


def find_certificate(
    *,
    model_dir: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    scorer: str | Scorer = DEFAULT_SCORER,
    storage_options: Options | None = None,
) -> ParityReport | None:
    """Return this machine's certificate for these weights and this precision, None where there is none.

    The arguments are those of `verify_parity`, which makes it.
    """
    path = _certificate_path(find_scorer(scorer, storage_options), model_dir, device, precision, storage_options)
    with contextlib.suppress(OSError, ValueError, TypeError):
        return ParityReport(**json.loads(path.read_text("utf-8")))
    return None


def _certificate_path(
    scorer: Scorer,
    model_dir: str | None,
    device: str,
    precision: str,
    storage_options: Options | None,
) -> Path:
    machine, device = describe_machine(), choose_device(device)
    key = [
        file_sha256(ensure_weights(scorer.backbone, model_dir, storage_options)),
        file_sha256(ensure_weights(scorer.head, model_dir, storage_options)),
        resolve_precision(device, precision),
        device if device == "cpu" else f"{device} of {platform.node()}",  # the processor does not tell the GPU
        *(machine[name] for name in ("processor", "instructions", "versions")),
    ]
    return cache_dir() / "parity" / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()}.json"


def _score(tower: VisionTower, predict: Predictor, pixels: Pixels, on_progress: Callable[[int], None]) -> Scored:
    tower.embed(pixels[:1])  # makes kernels and reads the weights
    started = time.perf_counter()
    parts: list[Scores] = []
    for start in range(0, len(pixels), _PROGRESS_EVERY):
        parts.append(predict(tower.embed(pixels[start : start + _PROGRESS_EVERY])))
        on_progress(start + len(parts[-1]))
    return Scored(np.concatenate(parts), tower.describe(), len(pixels) / (time.perf_counter() - started))


def _read(
    inputs: Sequence[str] | Sequence[FileGroupTask], limit: int, preprocess: str | None, resize: str, scorer: Scorer
) -> Pixels:
    """Return the model input of images spread over files, uint8 (n, s, s, 3)."""
    groups = [group for group in inputs if isinstance(group, FileGroupTask)]
    groups = groups or FilePartitioningStage(file_paths=list(map(str, inputs)), files_per_partition=1).process()
    count = min(limit, len(groups))
    groups = [groups[number * len(groups) // count] for number in range(count)]
    reader = ImageReaderStage(batch_size=1, preprocess=preprocess, resize=resize, scorer=scorer)
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


def _draw(count: int, scorer: Scorer) -> Pixels:
    """Return pictures of soft and rough textures with edges, from dark to bright; uint8 (n, s, s, 3)."""
    rng, size = np.random.default_rng(0), scorer.backbone.preprocess.size
    pictures = np.full((count, size, size, 3), 128.0)
    for cells in (1, 2, 4, 7, 14, 28, 56, 112, size):
        places, strength = np.arange(size) * cells // size, 60 / cells ** rng.uniform(0.3, 1.2, (count, 1, 1, 1))
        noise = rng.standard_normal((count, cells, cells, 3)) * strength
        pictures += noise[:, places][:, :, places]
    return pictures.clip(0, 255).astype(np.uint8)
