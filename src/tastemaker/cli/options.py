"""Options that several commands share."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any, get_type_hints

import typer

from tastemaker.cli.mode import run_mode
from tastemaker.models.published import DEFAULT_SCORER


class Precision(StrEnum):
    """Arithmetic of the vision tower."""

    AUTO = "auto"
    F32 = "f32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"


class Device(StrEnum):
    """Where the vision tower runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


class RankBy(StrEnum):
    """The column that images are ranked by."""

    AESTHETIC_SCORE = "aesthetic_score"
    TECHNICAL_QUALITY = "technical_quality"


class Executor(StrEnum):
    """What runs the stages."""

    LOCAL = "local"
    XENNA = "xenna"
    RAY_DATA = "ray-data"


class Preprocess(StrEnum):
    """Which reference the centre crop follows."""

    OPENAI = "openai"
    TRANSFORMERS = "transformers"


_MODEL, _IMAGES, _EMBEDDINGS, _OUTPUT = "Model", "Images", "Embeddings as input", "Results"
_CLUSTER = "Cluster"

InputsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT", help="Folders, tars, Parquet and Arrow files, images, patterns, embeddings; also s3://, ..."
    ),
]
FilesFromOption = Annotated[
    str | None,
    typer.Option(
        "--files-from", metavar="FILE", help="Read a path from each line of this file, - for the standard input."
    ),
]
NullOption = Annotated[bool, typer.Option("--null", "-0", help="Paths in it end with a NUL, as of find -print0.")]
AnyOutputOption = Annotated[
    str, typer.Option("--output", "-o", metavar="DIRECTORY", help="Directory of the results, local or s3://, ...")
]
StorageOptionsOption = Annotated[
    str | None,
    typer.Option(
        "--storage-options",
        metavar="JSON",
        help='Options for URLs: {"endpoint_url": "..."}, or {"s3": {...}, "gs": {...}}.',
    ),
]
OriginalsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--originals",
        metavar="PLACE",
        help="Where originals may be read: a folder, a file or a URL; repeatable. Inputs of your own runs are known.",
    ),
]
ModelDirOption = Annotated[
    str | None,
    typer.Option(
        "--model-dir",
        help="Directory of models, local or a URL. Default: $TASTEMAKER_MODEL_DIR, else the user's cache directory.",
        rich_help_panel=_MODEL,
    ),
]
ScorerOption = Annotated[
    str,
    typer.Option(
        "--scorer",
        metavar="NAME",
        help="What scores: laion-v2, laion-v1-l14, laion-v1-b16, laion-v1-b32, or your own as package.module:NAME.",
        rich_help_panel=_MODEL,
    ),
]
PredictorOption = Annotated[
    str | None,
    typer.Option(
        "--predictor", help="Other weights for the scorer's head, .safetensors or .pth.", rich_help_panel=_MODEL
    ),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option("--precision", help="auto: fp16 on a GPU, bf16 where the processor has it.", rich_help_panel=_MODEL),
]
DeviceOption = Annotated[
    Device, typer.Option("--device", help="auto: a GPU where there is one.", rich_help_panel=_MODEL)
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="Processor threads. Default: all cores.", rich_help_panel=_MODEL)
]
PreprocessOption = Annotated[
    Preprocess | None,
    typer.Option(
        "--preprocess",
        help="openai: as the predictor's own scripts. transformers: as NeMo Curator. Default: as the scorer has it.",
        rich_help_panel=_IMAGES,
    ),
]
MaxFailuresOption = Annotated[
    str | None,
    typer.Option(
        "--max-failures",
        help="Exit with 1 if more images fail than this number, or this share (1%).",
        rich_help_panel=_OUTPUT,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.", rich_help_panel=_OUTPUT)]
VerboseOption = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        help="Log each image that fails or is dropped. Print percentiles, and the times of the stages.",
        rich_help_panel=_OUTPUT,
    ),
]


def run_options(
    model_dir: ModelDirOption = None,
    scorer: ScorerOption = DEFAULT_SCORER,
    predictor: PredictorOption = None,
    precision: PrecisionOption = Precision.AUTO,
    device: DeviceOption = Device.AUTO,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            min=1,
            help="Images in a batch. Default: 32; on a GPU the size that is quickest there.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    threads: ThreadsOption = None,
    preprocess: PreprocessOption = None,
    exif_rotate: Annotated[
        bool,
        typer.Option(
            "--exif-rotate",
            help="Turn images as their EXIF says. The reference programs do not.",
            rich_help_panel=_IMAGES,
        ),
    ] = False,
    convert_profiles: Annotated[
        bool,
        typer.Option(
            "--convert-profiles",
            help="Convert images with a colour profile to sRGB. The reference programs do not.",
            rich_help_panel=_IMAGES,
        ),
    ] = False,
    max_megapixels: Annotated[
        float,
        typer.Option("--max-megapixels", min=0.001, help="Larger images become failed rows.", rich_help_panel=_IMAGES),
    ] = 178.95697,
    signals: Annotated[
        bool,
        typer.Option(
            "--signals", help="Measure sharpness, exposure, noise and more, into columns.", rich_help_panel=_IMAGES
        ),
    ] = False,
    min_technical_quality: Annotated[
        float | None,
        typer.Option(
            "--min-technical",
            min=0,
            max=1,
            help="Drop images of a lower technical quality before they are embedded; implies --signals.",
            rich_help_panel=_IMAGES,
        ),
    ] = None,
    rank_by: Annotated[
        RankBy,
        typer.Option(
            "--rank-by",
            help="technical_quality: rank by sharpness, exposure and noise. That needs no weights.",
            rich_help_panel=_MODEL,
        ),
    ] = RankBy.AESTHETIC_SCORE,
    no_embeddings: Annotated[
        bool, typer.Option("--no-embeddings", help="Leave embeddings out of the rows.", rich_help_panel=_OUTPUT)
    ] = False,
    column: Annotated[
        str | None,
        typer.Option(
            "--column",
            help="Column of a table, or array of a .npz, with the pictures or embeddings. Default: recognised.",
            rich_help_panel=_IMAGES,
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            metavar="PATTERN",
            help="Leave out files and folders that fit, such as '*.png', drafts or '2019/*'. Say it again for more.",
            rich_help_panel=_IMAGES,
        ),
    ] = None,
    copy_embeddings: Annotated[
        bool,
        typer.Option("--copy-embeddings", help="Copy the embeddings into the rows, too.", rich_help_panel=_EMBEDDINGS),
    ] = False,
    executor: Annotated[
        Executor,
        typer.Option(
            "--executor",
            help="This machine, or a Ray cluster: xenna and ray-data are two names for the same.",
            rich_help_panel=_CLUSTER,
        ),
    ] = Executor.LOCAL,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            help="Ray cluster, host:port or auto. Default: $RAY_ADDRESS, else a Ray on this machine for this run.",
            rich_help_panel=_CLUSTER,
        ),
    ] = None,
    verbose: VerboseOption = False,
    storage_options: StorageOptionsOption = None,
) -> Any:  # noqa: ANN401 - RunOptions, which is imported only when a command runs
    """Return the `RunOptions` of a command; `takes_run_options` gives it these parameters."""
    import logging

    from tastemaker.runs.options import RunOptions

    if verbose:
        logging.getLogger("tastemaker").setLevel(logging.INFO)
    return RunOptions(
        model_dir=model_dir,
        scorer=scorer,
        predictor=predictor,
        precision=precision.value,
        device=device.value,
        batch_size=batch_size,
        threads=threads,
        preprocess=preprocess.value if preprocess else None,
        exif_rotate=exif_rotate,
        convert_profiles=convert_profiles,
        max_pixels=round(max_megapixels * 1e6),
        signals=signals,
        min_technical_quality=min_technical_quality,
        rank_by=rank_by.value,
        embeddings=not no_embeddings,
        column=column,
        exclude=tuple(exclude or ()),
        copy_embeddings=copy_embeddings,
        verbose=verbose,
        executor=executor.value,
        address=address,
        storage_options=parse_storage_options(storage_options),
    )


def parse_storage_options(text: str | None) -> dict[str, Any] | None:
    """Return the options in a JSON object.

    Raises:
        ConfigurationError: It is none.

    Example:
        >>> parse_storage_options('{"anon": true}')
        {'anon': True}
    """
    from tastemaker.errors import ConfigurationError

    if text is None:
        return None
    try:
        options = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"--storage-options is no JSON ({error}); write '{{\"anon\": true}}'") from None
    if not isinstance(options, dict):
        raise ConfigurationError("--storage-options must be a JSON object, such as '{\"anon\": true}'")
    return options


def takes_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the parameters of `run_options` and `run_mode` beside its own.

    It gets their results as ``options`` and ``mode``.
    """
    makers: dict[str, Callable[..., Any]] = {"options": run_options, "mode": run_mode}
    shared = {name: inspect.signature(maker).parameters for name, maker in makers.items()}
    own = [p for p in inspect.signature(command).parameters.values() if p.name not in makers]

    @functools.wraps(command)
    def with_options(**arguments: Any) -> None:  # noqa: ANN401 - whatever the command line parsed
        made = {name: maker(**{p: arguments.pop(p) for p in shared[name]}) for name, maker in makers.items()}
        command(**arguments, **made)

    hints = get_type_hints(command, include_extras=True)
    for maker in makers.values():
        hints |= get_type_hints(maker, include_extras=True)
    every = [*own, *(p for parameters in shared.values() for p in parameters.values())]
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[p.name]) for p in every]
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {p.name: p.annotation for p in parameters}
    return with_options
