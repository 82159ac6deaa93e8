"""Options that several commands share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer


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


class Preprocess(StrEnum):
    """Which reference the centre crop follows."""

    OPENAI = "openai"
    TRANSFORMERS = "transformers"


_MODEL, _IMAGES, _EMBEDDINGS, _OUTPUT = "Model", "Images", "Embeddings as input", "Results"

InputsArgument = Annotated[
    list[str], typer.Argument(metavar="INPUT...", help="Folders, tar shards, image files, or files of embeddings.")
]
OutputOption = Annotated[Path, typer.Option("--output", "-o", help="Directory of the results.", file_okay=False)]
ModelDirOption = Annotated[
    str | None,
    typer.Option(
        "--model-dir",
        help="Directory of models. Default: $TASTEMAKER_MODEL_DIR, else the user's cache directory.",
        rich_help_panel=_MODEL,
    ),
]
PredictorOption = Annotated[
    str | None,
    typer.Option(
        "--predictor", help="Another predictor of the same layers, .safetensors or .pth.", rich_help_panel=_MODEL
    ),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option("--precision", help="auto: fp16 on a GPU, bf16 where the processor has it.", rich_help_panel=_MODEL),
]
DeviceOption = Annotated[
    Device, typer.Option("--device", help="auto: a GPU where there is one.", rich_help_panel=_MODEL)
]
BatchSizeOption = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        min=1,
        help="Images in a batch. Default: 32; on a GPU the size that is quickest there.",
        rich_help_panel=_MODEL,
    ),
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="Processor threads. Default: all cores.", rich_help_panel=_MODEL)
]
PreprocessOption = Annotated[
    Preprocess,
    typer.Option(
        "--preprocess",
        help="openai: as the predictor's own scripts. transformers: as NeMo Curator.",
        rich_help_panel=_IMAGES,
    ),
]
ExifRotateOption = Annotated[
    bool,
    typer.Option(
        "--exif-rotate", help="Turn images as their EXIF says; the references do not.", rich_help_panel=_IMAGES
    ),
]
MaxMegapixelsOption = Annotated[
    float,
    typer.Option("--max-megapixels", min=0.001, help="Larger images are recorded as bombs.", rich_help_panel=_IMAGES),
]
SignalsOption = Annotated[
    bool,
    typer.Option(
        "--signals", help="Measure sharpness, exposure, noise and more, into columns.", rich_help_panel=_IMAGES
    ),
]
MinTechnicalQualityOption = Annotated[
    float | None,
    typer.Option(
        "--min-technical",
        min=0,
        max=1,
        help="Drop images below before they are embedded; implies --signals.",
        rich_help_panel=_IMAGES,
    ),
]
NoEmbeddingsOption = Annotated[
    bool, typer.Option("--no-embeddings", help="Leave embeddings out of the rows.", rich_help_panel=_OUTPUT)
]
EmbeddingColumnOption = Annotated[
    str | None,
    typer.Option(
        "--embedding-column",
        help="Column (or array of a .npz) that holds them. Default: found by name and type.",
        rich_help_panel=_EMBEDDINGS,
    ),
]
CopyEmbeddingsOption = Annotated[
    bool, typer.Option("--copy-embeddings", help="Store them in the rows, too.", rich_help_panel=_EMBEDDINGS)
]
MaxFailuresOption = Annotated[
    str | None,
    typer.Option(
        "--max-failures",
        help="Exit with 1 if more images fail than this number, or this share (1%).",
        rich_help_panel=_OUTPUT,
    ),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace rows made with other options.", rich_help_panel=_OUTPUT)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.", rich_help_panel=_OUTPUT)]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Log what happens to each image.", rich_help_panel=_OUTPUT)
]


def run_options(
    model_dir: ModelDirOption = None,
    predictor: PredictorOption = None,
    precision: PrecisionOption = Precision.AUTO,
    device: DeviceOption = Device.AUTO,
    batch_size: BatchSizeOption = None,
    threads: ThreadsOption = None,
    preprocess: PreprocessOption = Preprocess.OPENAI,
    exif_rotate: ExifRotateOption = False,
    max_megapixels: MaxMegapixelsOption = 178.95697,
    signals: SignalsOption = False,
    min_technical_quality: MinTechnicalQualityOption = None,
    no_embeddings: NoEmbeddingsOption = False,
    embedding_column: EmbeddingColumnOption = None,
    copy_embeddings: CopyEmbeddingsOption = False,
    verbose: VerboseOption = False,
) -> Any:  # noqa: ANN401 - RunOptions, which is imported only when a command runs
    """Return the `RunOptions` of a command; `takes_run_options` gives it these parameters."""
    import logging

    from tastemaker.scores.run import RunOptions

    if verbose:
        logging.getLogger("tastemaker").setLevel(logging.INFO)
    return RunOptions(
        model_dir=model_dir,
        predictor=predictor,
        precision=precision.value,
        device=device.value,
        batch_size=batch_size,
        threads=threads,
        preprocess=preprocess.value,
        exif_rotate=exif_rotate,
        max_pixels=round(max_megapixels * 1e6),
        signals=signals,
        min_technical_quality=min_technical_quality,
        embeddings=not no_embeddings,
        embedding_column=embedding_column,
        copy_embeddings=copy_embeddings,
        verbose=verbose,
    )


def takes_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the parameters of `run_options` beside its own; it gets their result as ``options``."""
    shared = inspect.signature(run_options).parameters
    own = [p for p in inspect.signature(command).parameters.values() if p.name != "options"]

    @functools.wraps(command)
    def with_options(**arguments: Any) -> None:  # noqa: ANN401 - whatever the command line parsed
        options = run_options(**{name: arguments.pop(name) for name in shared})
        command(**arguments, options=options)

    hints = get_type_hints(command, include_extras=True) | get_type_hints(run_options, include_extras=True)
    parameters = [
        p.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[p.name]) for p in [*own, *shared.values()]
    ]
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {p.name: p.annotation for p in parameters}
    return with_options
