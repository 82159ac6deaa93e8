"""The first minute: real photographs, each also damaged in four ways, through the whole pipeline."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from tastemaker.errors import ConfigurationError, MissingExtraError, WeightsNotFoundError
from tastemaker.explorer.report import write_report
from tastemaker.models.hub import ensure_weights
from tastemaker.models.published import find_scorer
from tastemaker.runs.options import WITHOUT_MODEL, RunMode, RunOptions
from tastemaker.runs.summary import RunSummary
from tastemaker.scores.cutoff import Top
from tastemaker.scores.table import ScoreTable
from tastemaker.selections.filter import filter_images
from tastemaker.selections.selection import Selection
from tastemaker.storage.owned import OwnFiles
from tastemaker.storage.place import Place

PHOTOGRAPHS = (
    *("astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "motorcycle_left.png", "retina.jpg"),
    "rocket.jpg",
)
"""Photographs in scikit-image's package; the functions of `skimage.data` say where they come from."""

KEPT = Top(share=0.2)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DemoResult:
    """What a demo made.

    Attributes:
        ranking: (name, score) of each picture, best first.
        ranked_by: The column: that of the default scorer, or ``technical_quality``.
        why: Why it is not the aesthetic score; empty if it is.
        page: The report.
        summary: Of the run.
        kept: Pictures that the cut keeps.
    """

    ranking: list[tuple[str, float]]
    ranked_by: str
    why: str
    page: Path
    summary: RunSummary
    kept: int


def run_demo(output_dir: Path, model_dir: str | None = None) -> DemoResult:
    """Score photographs and their damaged versions, keep the best fifth, and write a report.

    Uses the real models where they are or can be fetched, and the technical signals otherwise.

    Args:
        output_dir: ``input`` (the pictures), ``results`` (rows, and the kept) and ``index.html`` are made in it.
        model_dir: Directory of models.

    Raises:
        MissingExtraError: scikit-image, which brings the photographs, is not installed.
    """
    pictures = output_dir / "input"
    results = output_dir / "results"
    own = OwnFiles(Place.of(pictures))
    own.list_there()
    if own.foreign():
        raise ConfigurationError(f"{pictures} has files of others ({own.foreign()[0]}): choose another directory")
    own.folder.remove_drafts()
    own.write(dict(make_pictures()))
    own.finish()

    why = _why_no_models(model_dir)
    options = RunOptions(model_dir=model_dir, signals=True, rank_by=WITHOUT_MODEL if why else None)
    ranked_by = options.ranking
    again = RunMode(overwrite=True)  # rows of a demo without models, or of an earlier version, may be there
    found = filter_images([str(pictures)], results, Selection(top=KEPT), options, again, kind="folder")
    kept = found.selection.chosen if found.selection else 0
    table = ScoreTable(found.run.rows_files)
    rows = table.query(f"SELECT image_path, {ranked_by} FROM rows").to_pylist()
    rows.sort(key=lambda row: -row[ranked_by])
    page = output_dir / "index.html"
    write_report(table, page, top=KEPT, samples=len(PHOTOGRAPHS), title="Tastemaker demo")
    ranking = [(Path(row["image_path"]).stem, row[ranked_by]) for row in rows]
    return DemoResult(ranking, ranked_by, why, page, found.run, kept)


def make_pictures() -> Iterator[tuple[str, bytes]]:
    """Yield file name and bytes of each photograph as it is, blurred, darkened, noised and badly compressed.

    Raises:
        MissingExtraError: scikit-image is not installed.
    """
    try:
        import skimage
    except ImportError as error:
        raise MissingExtraError(
            'the demo uses the photographs of scikit-image: pip install "tastemaker[demo]"; '
            "for your own pictures: tastemaker filter PICTURES --top 20% --output best/"
        ) from error
    folder = Path(skimage.__file__).parent / "data"
    for name in PHOTOGRAPHS:
        data = (folder / name).read_bytes()
        stem = Path(name).stem
        yield name, data
        image = Image.open(io.BytesIO(data)).convert("RGB")
        noise = np.random.default_rng(0).normal(0, 30, (image.height, image.width, 3))
        yield f"{stem}-blurred.jpg", _encode(image.filter(ImageFilter.GaussianBlur(3)))
        yield f"{stem}-darkened.jpg", _encode(image.point(lambda value: value * 0.15))
        yield (
            f"{stem}-noised.jpg",
            _encode(Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))),
        )
        yield f"{stem}-compressed.jpg", _encode(image, quality=5)


def _why_no_models(model_dir: str | None) -> str:
    """Return why the models cannot be used, or an empty string once they are there."""
    try:
        for model in (find_scorer().backbone, find_scorer().head):
            ensure_weights(model, model_dir)
    except WeightsNotFoundError as error:
        logger.info("%s", error)
        return "The models' weights are not here and cannot be fetched: ranked by technical quality instead."
    return ""


def _encode(image: Image.Image, quality: int = 95) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()
