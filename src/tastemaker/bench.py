"""What this machine can do, in a minute: decoding, resizing, shards, the model, a whole run, and which holds it up."""

from __future__ import annotations

import io
import tarfile
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tastemaker.errors import ConfigurationError
from tastemaker.imaging.decode import decode_image
from tastemaker.imaging.shards import read_samples
from tastemaker.machine import describe_machine
from tastemaker.models.clip import load_clip
from tastemaker.models.device import choose_device
from tastemaker.models.hub import check_weights, weights_path
from tastemaker.models.published import find_scorer
from tastemaker.models.quantized import ensure_quantized
from tastemaker.models.records import Model
from tastemaker.parity import built_in_sample
from tastemaker.runs.run import RunOptions, run_scoring
from tastemaker.runs.summary import describe_bottleneck
from tastemaker.stages.read import choose_resize, load_preprocess
from tastemaker.testing import VIT_L14, write_random_models

SIDES = (512, 1024, 3840)
"""Longer sides of the JPEGs, in pixels."""

_PRECISIONS = {"cpu": ("f32", "bf16", "int8"), "cuda": ("f32", "bf16", "fp16"), "mps": ("f32", "fp16")}
_BATCHES = {"cpu": (1, 8), "cuda": (32, 128, 256), "mps": (8, 32)}

Report = dict[str, Any]


def measure_machine(
    model_dir: str | None = None,
    device: str = "auto",
    on_progress: Callable[[str], None] = lambda what: None,
    each_s: float = 1.5,
) -> Report:
    """Return how fast this machine does each part of the work.

    Args:
        model_dir: Directory of models. Where it holds none, random weights of the real size take their place: the
            arithmetic is the same.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        on_progress: Called with what is measured next.
        each_s: How long each part is repeated, in seconds; the slow ones run once.

    Returns:
        ``machine``; ``decode`` and ``resize``, images a second and core, by the picture's longer side; ``shards``,
        images a second; ``model``, images a second by precision and batch size (None where the machine lacks it);
        ``run``, a whole run over 512-pixel JPEGs; ``bottleneck``, in words; ``weights``, ``found`` or ``random``.

    Raises:
        ConfigurationError: There is no such device.
    """
    chosen, scorer = choose_device(device), find_scorer()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        on_progress("decoding and resizing")
        make_input = load_preprocess("pillow" if chosen == "cpu" else choose_resize("auto"))
        pictures = {side: make_jpeg(side) for side in SIDES}
        decoded = {side: decode_image(data).pixels for side, data in pictures.items()}
        decode = {side: _rate(partial(decode_image, data), each_s) for side, data in pictures.items()}
        resize = {
            side: _rate(partial(make_input, pixels, scorer.backbone.preprocess), each_s)
            for side, pixels in decoded.items()
        }
        on_progress("reading shards")
        shard = _write_shard(root / "shard.tar", pictures[SIDES[0]], 500)
        shards = _rate(lambda: sum(1 for _ in read_samples(str(shard))), each_s, 500)
        found = all(_is_there(model, model_dir) for model in (scorer.backbone, scorer.head))
        if not found:
            on_progress("writing random weights")
            model_dir = str(write_random_models(root / "models", VIT_L14))
        model = _measure_model(weights_path(scorer.backbone, model_dir), chosen, each_s, on_progress)
        if not found and model.get("int8"):
            ensure_quantized(weights_path(scorer.backbone, model_dir), scorer.backbone.vit.names).unlink()
        on_progress("a whole run")
        options = RunOptions(model_dir=model_dir, device=device, batch_size=8 if chosen == "cpu" else None)
        run = _measure_run(root, pictures[SIDES[0]], options, 6 * each_s * _best(model))
    report = {
        "machine": describe_machine(),
        "device": chosen,
        "weights": "found" if found else "random",
        "decode": decode,
        "resize": resize,
        "shards": shards,
        "model": model,
        "run": run,
    }
    return {**report, "bottleneck": explain(report)}


def explain(report: Report) -> str:
    """Return which part holds a run over 512-pixel JPEGs up, and what would change it."""
    cores = report["machine"]["cores"]
    decoding = cores / (1 / report["decode"][SIDES[0]] + 1 / report["resize"][SIDES[0]])
    default = report["run"]["precision"]
    model = max(report["model"][default].values())
    if model >= decoding:
        return (
            f"Decoding is the bottleneck: {cores} cores prepare {decoding:,.0f} images/s, and the model could score "
            f"{model:,.0f}. More or faster cores would change it."
        )
    faster = {name: max(rates.values()) for name, rates in report["model"].items() if rates}
    name = max(faster, key=lambda precision: faster[precision])
    gain = (
        f" --precision {name} ({faster[name]:,.1f} images/s) would change it; try tastemaker verify --precision {name} "
        "on your own images first."
        if faster[name] > 1.1 * model
        else ""
    )
    gpu = " A GPU would change it most." if report["device"] == "cpu" else ""
    return (
        f"The model is the bottleneck: it scores {model:,.1f} images/s in {default}, and {cores} cores could prepare "
        f"{decoding:,.0f}.{gain}{gpu}"
    )


def make_jpeg(side: int) -> bytes:
    """Return a JPEG of 3:2 with that longer side: a built-in picture, enlarged, and grain on it."""
    size = (side, side * 2 // 3)
    picture = Image.fromarray(built_in_sample(2).exact[1]).resize(size, Image.Resampling.BICUBIC)
    grain = np.random.default_rng(0).normal(0, 4, (size[1], size[0], 1))
    file = io.BytesIO()
    Image.fromarray((np.asarray(picture) + grain).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=88)
    return file.getvalue()


def _rate(action: Callable[[], object], each_s: float, units: int = 1) -> float:
    """Return how many units a second an action does, repeated for a while: the median of its runs."""
    action()
    times: list[float] = []
    while not times or (sum(times) < each_s and len(times) < 1000):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return round(units / float(np.median(times)), 3)


def _measure_model(
    weights: Path, device: str, each_s: float, on_progress: Callable[[str], None]
) -> dict[str, dict[int, float] | None]:
    rates: dict[str, dict[int, float] | None] = {}
    for precision in _PRECISIONS[device]:
        on_progress(f"the model in {precision}")
        try:
            tower = load_clip(weights, device, precision, batch_size=max(_BATCHES[device]))
        except ConfigurationError:  # the processor has no such arithmetic
            rates[precision] = None
            continue
        pixels = built_in_sample(max(_BATCHES[device])).exact
        rates[precision] = {
            batch: _rate(partial(tower.embed, pixels[:batch]), each_s, batch) for batch in _BATCHES[device]
        }
    return rates


def _best(model: dict[str, dict[int, float] | None]) -> float:
    return max(max(rates.values()) for rates in model.values() if rates)


def _measure_run(root: Path, picture: bytes, options: RunOptions, wanted: float) -> Report:
    """Return the speed of a run of some seconds, from the first row to the last, and where its time went."""
    images = int(min(max(wanted, 16), 20_000))
    shard = _write_shard(root / "run.tar", picture, images)
    summary = run_scoring([str(shard)], root / "out", options)
    embedding = next(stage for stage in summary.stages if stage.name == "image_embedding")
    seconds = embedding.busy_s + embedding.waiting_for_input_s + embedding.waiting_for_output_s
    return {
        "images": images,
        "images_per_s": round(images / seconds, 3),
        "precision": summary.provenance["precision"],
        "bottleneck": describe_bottleneck(summary.stages),
    }


def _is_there(model: Model, model_dir: str | None) -> bool:
    return not check_weights(model, weights_path(model, model_dir)).problems


def _write_shard(path: Path, picture: bytes, images: int) -> Path:
    with tarfile.open(path, "w") as tar:
        for number in range(images):
            for extension, data in (("jpg", picture), ("txt", b"a caption")):
                member = tarfile.TarInfo(f"{number:06}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path
