"""What a run does, and how it treats what is there already."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from tastemaker.checks import check_choice, check_numbers, check_positive
from tastemaker.errors import ConfigurationError
from tastemaker.imaging.decode import MAX_IMAGE_PIXELS
from tastemaker.models.published import DEFAULT_SCORER, Scorers, find_scorers
from tastemaker.models.records import Scorer
from tastemaker.scores.schema import check_score_columns
from tastemaker.storage import Options, public_url

WITHOUT_MODEL = "technical_quality"
"""The column that a run without a model ranks by."""


@dataclass(frozen=True)
class RunOptions:
    """How a run makes rows. What of it changes rows is in their fingerprint (`tastemaker.runs.fingerprint`).

    Attributes:
        model_dir: Directory of models.
        scorer: What scores, as `find_scorers` takes it: one scorer, or several with one backbone. Each fills a column.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: ``auto``, ``f32``, ``bf16``, ``fp16`` or ``int8``.
        batch_size: Images in a batch, and in one inference on a GPU; None for 32, and 256 on a GPU.
        threads: Processor threads; None for all cores.
        preprocess: ``openai`` or ``transformers``; None as the scorer's record has it.
        exif_rotate: Turn images as their EXIF orientation says; None turns loose files, and no images in shards.
        convert_profiles: Convert images with a colour profile to sRGB.
        max_pixels: Larger images are recorded as decompression bombs.
        signals: Measure the technical signals; None for those of loose pictures, which the best frame of a burst is
            chosen by.
        min_technical_quality: Drop images below before they are embedded; implies ``signals``.
        embeddings: Store embeddings in the rows.
        column: Of tables and ``.npz``, the column or array with the pictures or embeddings; None to recognise it.
        exclude: Patterns of files and folders that are left out: ``*.png``, ``drafts``, ``2019/*``.
        root: Folder that the ids of files begin below that are named one by one; None for their own folders.
        copy_embeddings: Where the input is embeddings: store them in the rows, too.
        caption_column: Where the input is embeddings: the column with their captions; None for ``caption`` or ``text``.
        rank_by: The column of one of the scorers; None for that of the first; or ``technical_quality``, for which no
            model is loaded.
        verbose: Log each image that is dropped or cannot be read.
        executor: Where to run: ``local``, ``xenna`` or ``ray-data``.
        address: Of a Ray cluster; None for ``RAY_ADDRESS``, or a Ray of this run's own.
        storage_options: Settings of the stores of URLs; they are never written.
    """

    model_dir: str | None = None
    scorer: Scorers = DEFAULT_SCORER
    device: str = "auto"
    precision: str = "auto"
    batch_size: int | None = None
    threads: int | None = None
    preprocess: str | None = None
    exif_rotate: bool | None = None
    convert_profiles: bool = False
    max_pixels: int = MAX_IMAGE_PIXELS
    signals: bool | None = None
    min_technical_quality: float | None = None
    embeddings: bool = True
    column: str | None = None
    exclude: Sequence[str] = ()
    root: str | None = None
    copy_embeddings: bool = False
    caption_column: str | None = None
    rank_by: str | None = None
    verbose: bool = False
    executor: str = "local"
    address: str | None = None
    storage_options: Options | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_numbers(self)
        check_score_columns([scorer.column for scorer in self.scorers])
        if self.rank_by is not None:
            check_choice("rank_by", self.rank_by, (*(scorer.column for scorer in self.scorers), WITHOUT_MODEL))
        check_positive("threads", self.threads)
        if self.signals is False and (self.min_technical_quality is not None or not self.is_by_model):
            raise ConfigurationError(
                "technical quality is what the signals say: leave --no-signals (signals=False) out"
            )
        if self.address is not None and self.executor == "local":
            raise ConfigurationError(
                f"address={self.address!r} is of a cluster: add --executor xenna or ray-data, or leave it out"
            )

    @property
    def scorers(self) -> tuple[Scorer, ...]:
        """The records of what scores."""
        return find_scorers(self.scorer, self.storage_options)

    @property
    def ranking(self) -> str:
        """The column that images are ranked by."""
        return self.rank_by or self.scorers[0].column

    @property
    def is_by_model(self) -> bool:
        """Whether images are scored by models."""
        return self.rank_by != WITHOUT_MODEL

    def as_json(self) -> dict[str, Any]:
        """Return the options as JSON takes them, without secrets."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["model_dir"] = public_url(self.model_dir) if self.model_dir else None
        values["scorer"] = [public_url(scorer.head.path or scorer.name) for scorer in self.scorers]
        del values["storage_options"]
        return values


@dataclass(frozen=True)
class Slice:
    """A part of a run, for batch schedulers: every ``total``-th partition from number ``index`` on.

    Attributes:
        index: From 0.
        total: Number of slices.
    """

    index: int
    total: int

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.total < 1 or not 0 <= self.index < self.total:
            raise ConfigurationError(
                f"shard index {self.index} of {self.total}: the index counts from 0 and is less than the number"
            )

    def __str__(self) -> str:
        return f"{self.index}-of-{self.total}"


@dataclass(frozen=True)
class RunMode:
    """How a run treats what is there already, and the runs beside it. Nothing of it changes what a row says.

    Attributes:
        overwrite: Do partitions again whose rows were made otherwise.
        new_fingerprint_only: Leave rows alone that were made otherwise, and do partitions without rows only.
        retry_failed: Run the images that failed again.
        wait: Wait for another run on the directory instead of refusing.
        part: The slice to do; None does all.
        metrics_port: Port on loopback that serves Prometheus metrics while the run lasts; None serves none.
    """

    overwrite: bool = False
    new_fingerprint_only: bool = False
    retry_failed: bool = False
    wait: bool = False
    part: Slice | None = None
    metrics_port: int | None = None

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.overwrite and self.new_fingerprint_only:
            raise ConfigurationError(
                "overwrite replaces rows that were made otherwise, new_fingerprint_only leaves them; say one of the two"
            )


def slice_of_slurm_array(environment: Mapping[str, str] = os.environ) -> Slice:
    """Return the slice that this task of a Slurm job array is to do.

    Array indices may begin anywhere and have steps (``--array=1-9:2``); they must be evenly spaced.

    Raises:
        ConfigurationError: This is no task of an array, or its indices have gaps.

    Example:
        >>> slice_of_slurm_array({"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "9",
        ...     "SLURM_ARRAY_TASK_STEP": "2", "SLURM_ARRAY_TASK_COUNT": "5"})
        Slice(index=2, total=5)
        >>> slice_of_slurm_array({"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "5"})
        Slice(index=2, total=5)
    """
    values = {name: environment.get(f"SLURM_ARRAY_TASK_{name}", "") for name in ("ID", "MIN", "MAX", "STEP", "COUNT")}
    values["STEP"] = values["STEP"] or "1"
    known = {name: int(value) for name, value in values.items() if re.fullmatch(r"\d+", value)}
    if "COUNT" in known and not {"MIN", "MAX"} & set(known):  # schedulers that set as little as that count from 0
        known |= {"MIN": 0, "MAX": known["COUNT"] - 1}
    if not {"ID", "MIN", "MAX"} <= set(known):
        raise ConfigurationError("this is no task of a Slurm array (SLURM_ARRAY_TASK_ID, _MIN and _MAX are not set)")
    step = max(1, known["STEP"])
    total = (known["MAX"] - known["MIN"]) // step + 1
    if known.get("COUNT", total) != total or (known["ID"] - known["MIN"]) % step:
        raise ConfigurationError(
            f"the Slurm array has {known.get('COUNT')} tasks between {known['MIN']} and {known['MAX']}: some indices "
            "are left out, and their slices would be; use an array without gaps, such as --array=0-63"
        )
    return Slice((known["ID"] - known["MIN"]) // step, total)
