"""Options that several commands share."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_type_hints

import typer

from tastemaker.cli.mode import run_mode, run_part
from tastemaker.models.published import DEFAULT_SCORER

_MODEL, _IMAGES, _EMBEDDINGS, _OUTPUT = "Model", "Images", "Embeddings as input", "Results"
_CLUSTER = "Cluster"

InputsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT",
        help="Score these: folders, tars, Parquet and Arrow files, images, patterns, embeddings; also s3://...",
    ),
]
FilesFromOption = Annotated[
    str | None,
    typer.Option(
        "--files-from", metavar="FILE", help="Read one input from each line of this file. - reads the standard input."
    ),
]
NullOption = Annotated[
    bool, typer.Option("--null", "-0", help="The paths in that file end with NUL, as find -print0 writes them.")
]
AnyOutputOption = Annotated[
    str, typer.Option("--output", "-o", metavar="DIRECTORY", help="Write the results to this folder or URL (s3://...).")
]
StorageOptionsOption = Annotated[
    str | None,
    typer.Option(
        "--storage-options",
        metavar="JSON",
        help='Access URLs with these settings, by store: {"s3": {...}, "https://host": {...}}.',
    ),
]
OriginalsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--originals",
        metavar="PLACE",
        help="Read originals in this folder, file or URL, too. Repeatable. Inputs of your own runs are known.",
    ),
]
ModelDirOption = Annotated[
    str | None,
    typer.Option(
        "--model-dir",
        help="Take the weights from this folder or URL. Default: $TASTEMAKER_MODEL_DIR, else your cache folder.",
        rich_help_panel=_MODEL,
    ),
]
_SCORERS = (
    "NAME: `tastemaker scorers` lists them; FILE: what `tastemaker learn` wrote, or other layers; "
    "PROMPTS: 'sharp: a sharp photo | a blurry photo'."
)
_SCORER = typer.Option(
    "--scorer", metavar="NAME|FILE|PROMPTS", help=f"Take this scorer. {_SCORERS}", rich_help_panel=_MODEL
)
ScorerOption = Annotated[str, _SCORER]
OwnScorerOption = Annotated[str | None, _SCORER]  # None: the one that the rows state
ScorersOption = Annotated[
    list[str] | None,
    typer.Option(
        "--scorer",
        metavar="NAME|FILE|PROMPTS",
        help=f"Score with this scorer. Repeat the option for several. {_SCORERS} Default: {DEFAULT_SCORER}.",
        rich_help_panel=_MODEL,
    ),
]
PrecisionOption = Annotated[
    Literal["auto", "f32", "bf16", "fp16", "int8"],
    typer.Option(
        "--precision",
        help="Compute in this precision. auto takes fp16 on a GPU, and bf16 or f32 on a processor.",
        rich_help_panel=_MODEL,
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="auto|cpu|cuda|cuda:N|mps",
        help="Compute on this device. auto takes a GPU if there is one.",
        rich_help_panel=_MODEL,
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads", min=1, help="Use this many processor threads. Default: one for each core.", rich_help_panel=_MODEL
    ),
]
PreprocessOption = Annotated[
    Literal["openai", "transformers"] | None,
    typer.Option(
        "--preprocess",
        help="Crop images as openai does (LAION's own scripts) or as transformers does (NeMo Curator). "
        "Default: what the model was made with.",
        rich_help_panel=_IMAGES,
    ),
]
MaxFailuresOption = Annotated[
    str | None,
    typer.Option(
        "--max-failures",
        help="Exit with code 1 if more images fail than this number (10) or share (1%).",
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
    scorer: ScorersOption = None,
    precision: PrecisionOption = "auto",
    device: DeviceOption = "auto",
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            min=1,
            help="Compute this many images at a time. Default: 32, and 256 on a GPU.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    threads: ThreadsOption = None,
    preprocess: PreprocessOption = None,
    exif_rotate: Annotated[
        bool | None,
        typer.Option(
            "--exif-rotate/--no-exif-rotate",
            help="Turn images upright, as their EXIF data says. Default: files are turned, images in shards and tables "
            "are not. The reference programs turn none.",
            show_default=False,
            rich_help_panel=_IMAGES,
        ),
    ] = None,
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
        typer.Option(
            "--max-megapixels",
            min=0.001,
            help="Record larger images as failed, and do not read them.",
            rich_help_panel=_IMAGES,
        ),
    ] = 178.95697,
    signals: Annotated[
        bool | None,
        typer.Option(
            "--signals/--no-signals",
            help="Measure sharpness, exposure, noise and more, and add them to the rows. Default: of image files only.",
            rich_help_panel=_IMAGES,
        ),
    ] = None,
    min_technical_quality: Annotated[
        float | None,
        typer.Option(
            "--min-technical",
            min=0,
            max=1,
            help="Drop images of a lower technical quality before the model sees them. Turns --signals on.",
            rich_help_panel=_IMAGES,
        ),
    ] = None,
    rank_by: Annotated[
        str | None,
        typer.Option(
            "--rank-by",
            metavar="COLUMN",
            help="Rank by the column of one of the scorers. Default: the first. technical_quality (sharpness, "
            "exposure, noise) needs no weights.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    no_embeddings: Annotated[
        bool, typer.Option("--no-embeddings", help="Do not store embeddings in the rows.", rich_help_panel=_OUTPUT)
    ] = False,
    column: Annotated[
        str | None,
        typer.Option(
            "--column",
            help="Find the pictures or embeddings in this column of a table or array of a .npz. Default: recognised.",
            rich_help_panel=_IMAGES,
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            metavar="PATTERN",
            help="Skip files and folders that fit, such as '*.png', drafts or '2019/*'. Repeat it for more.",
            rich_help_panel=_IMAGES,
        ),
    ] = None,
    copy_embeddings: Annotated[
        bool,
        typer.Option(
            "--copy-embeddings", help="Store the given embeddings in the rows, too.", rich_help_panel=_EMBEDDINGS
        ),
    ] = False,
    caption_column: Annotated[
        str | None,
        typer.Option(
            "--caption-column",
            help="Take the captions from this column of the table or metadata. Default: caption or text.",
            rich_help_panel=_EMBEDDINGS,
        ),
    ] = None,
    executor: Annotated[
        Literal["local", "xenna", "ray-data"],
        typer.Option(
            "--executor",
            help="Run on this machine (local) or on a Ray cluster (xenna and ray-data, two names for the same).",
            rich_help_panel=_CLUSTER,
        ),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            help="Join this Ray cluster: host:port, or auto. Default: $RAY_ADDRESS, else a new one on this machine.",
            rich_help_panel=_CLUSTER,
        ),
    ] = None,
    verbose: VerboseOption = False,
    storage_options: StorageOptionsOption = None,
) -> Any:  # noqa: ANN401 - RunOptions, which is imported only when a command runs
    """Return the `RunOptions` of a command; `takes_run_options` gives it these parameters, called as its fields."""
    given = dict(locals())
    import logging

    from tastemaker.runs.options import RunOptions

    if verbose:
        logging.getLogger("tastemaker").setLevel(logging.INFO)
    given["embeddings"] = not given.pop("no_embeddings")
    given["max_pixels"] = round(given.pop("max_megapixels") * 1e6)
    given |= {"scorer": tuple(scorer or (DEFAULT_SCORER,)), "exclude": tuple(exclude or ())}
    return RunOptions(**{**given, "storage_options": parse_storage_options(storage_options)})


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
        raise ConfigurationError(
            f'--storage-options is no JSON ({error}); write \'{{"s3": {{"anon": true}}}}\''
        ) from None
    if not isinstance(options, dict):
        raise ConfigurationError('--storage-options must be a JSON object, such as \'{"s3": {"anon": true}}\'')
    return options


def takes_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the parameters of `run_options`, `run_mode` and `run_part` beside its own.

    It gets their results as ``options``, ``mode`` and ``part``, those of them that it takes.
    """
    known: dict[str, Callable[..., Any]] = {"options": run_options, "mode": run_mode, "part": run_part}
    makers = {name: maker for name, maker in known.items() if name in inspect.signature(command).parameters}
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
