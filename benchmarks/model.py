"""The vision tower alone: images a second, score errors and memory, each backend in alternating runs.

    python benchmarks/model.py [--model-dir DIR] [--images 32] [--runs 5] [--micro-batches 4 8 16 32]

Without --model-dir it uses random weights of the real size: the arithmetic, and so the time, is the same.
Prints the machine, the versions, medians and ratios. PyTorch and transformers are compared where they are installed.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from tastemaker.models import clip_openvino
from tastemaker.models.aesthetic import AestheticPredictor
from tastemaker.models.clip import PIXEL_MEAN, PIXEL_STD, read_config
from tastemaker.models.clip_openvino import OpenVinoClip
from tastemaker.models.hub import AESTHETIC_PREDICTOR, CLIP_VIT_L14, weights_path
from tastemaker.testing import VIT_L14, write_random_models

Embed = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model-dir", type=Path)
    parser.add_argument("--images", type=int, default=32, help="images in one run")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--micro-batches", type=int, nargs="+", default=[4, 8, 16, 32], help="of OpenVINO")
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)  # the process whose memory is measured
    arguments = parser.parse_args()
    if arguments.memory_of:
        print(json.dumps(measure_start(arguments.memory_of)))
        return
    with tempfile.TemporaryDirectory() as folder:
        model_dir = arguments.model_dir or write_random_models(Path(folder), VIT_L14)
        weights = weights_path(CLIP_VIT_L14, model_dir)
        print_machine()
        print_memory(weights)
        pixels = demo_pixels(arguments.images)
        backends = load_backends(weights, arguments.micro_batches)
        print_rates(backends, pixels, arguments.runs)
        print_errors(backends, pixels, AestheticPredictor.from_file(weights_path(AESTHETIC_PREDICTOR, model_dir)))


def print_machine() -> None:
    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    flags = next((line for line in _lines("/proc/cpuinfo") if line.startswith("flags")), "").split()
    matrix = [flag for flag in flags if flag.startswith("amx") or flag in ("avx2", "avx512f", "avx512_bf16")]
    print(f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, {' '.join(matrix)}")
    print(", ".join(filter(None, map(_version, ("openvino", "numpy", "torch", "transformers")))))


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _version(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return ""


def demo_pixels(count: int) -> np.ndarray:
    """Return smooth random pictures, uint8 (count, 224, 224, 3): noise at 8 scales, as photographs have."""
    rng = np.random.default_rng(0)
    picture = np.zeros((count, 224, 224, 3), np.float32)
    for side in (2, 4, 7, 14, 28, 56, 112, 224):
        noise = rng.standard_normal((count, side, side, 3), np.float32)
        picture += noise.repeat(224 // side, axis=1).repeat(224 // side, axis=2) * (30 / side**0.5)
    return (picture + 128).clip(0, 255).astype(np.uint8)


# Speed


def load_backends(weights: Path, micro_batches: list[int]) -> dict[str, Embed]:
    """Return name -> function. The first, f32, is what the others' scores are compared with."""
    backends: dict[str, Embed] = {}
    precisions = ["f32"] if OpenVinoClip(weights).precision == "f32" else ["f32", "bf16"]
    for precision in precisions:
        tower = OpenVinoClip(weights, precision)
        for size in micro_batches:
            backends[f"OpenVINO {precision}, {size} at a time"] = _in_chunks(tower, size)
    if find_spec("torch"):
        from tastemaker.models.clip_torch import TorchClip

        backends["torch bf16 (sdpa), 8 at a time"] = TorchClip(weights, "cpu", "bf16", batch_size=8).embed
    if find_spec("transformers"):
        backends["transformers f32 (eager), 8 at a time"] = load_transformers(weights)
    return backends


def _in_chunks(tower: OpenVinoClip, size: int) -> Embed:
    def embed(pixels: np.ndarray) -> np.ndarray:
        clip_openvino.MICRO_BATCH = size
        return tower.embed(pixels)

    return embed


def load_transformers(weights: Path) -> Embed:
    import torch
    from safetensors.numpy import load_file
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = read_config(weights)
    with torch.device("meta"):
        tower = CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=config.width,
                intermediate_size=config.mlp,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                image_size=config.image_size,
                patch_size=config.patch,
                projection_dim=config.projection,
                attn_implementation="eager",
            )
        )
    tensors = {n: torch.from_numpy(t) for n, t in load_file(weights).items() if not n.startswith("text_model.")}
    tower.load_state_dict(tensors, assign=True, strict=False)
    tower.vision_model.embeddings.position_ids = torch.arange(config.tokens)[None]
    tower.eval()
    mean, std = np.array(PIXEL_MEAN, np.float32), np.array(PIXEL_STD, np.float32)

    @torch.inference_mode()
    def embed(pixels: np.ndarray) -> np.ndarray:
        values = torch.from_numpy(((pixels.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2).copy())
        embeddings = torch.cat([tower(pixel_values=part).image_embeds for part in values.split(8)])
        return torch.nn.functional.normalize(embeddings, dim=-1).numpy()

    return embed


def print_rates(backends: dict[str, Embed], pixels: np.ndarray, runs: int) -> None:
    rates: dict[str, list[float]] = {name: [] for name in backends}
    for embed in backends.values():
        embed(pixels[: max(32, len(pixels) // 2)])  # warm: memory is paged in, kernels are made
    for _ in range(runs):
        for name, embed in backends.items():
            started = time.perf_counter()
            embed(pixels)
            rates[name].append(len(pixels) / (time.perf_counter() - started))
    baseline = statistics.median(list(rates.values())[-1])
    print(f"\n{'':40} images/s: median (range) of {runs} alternating runs, ratio to the last line")
    for name, values in rates.items():
        median = statistics.median(values)
        print(f"{name:40} {median:7.2f} ({min(values):.2f} to {max(values):.2f})  {median / baseline:.2f}")


# Scores


def print_errors(backends: dict[str, Embed], pixels: np.ndarray, predictor: AestheticPredictor) -> None:
    (_, reference), *others = backends.items()
    expected = predictor.score(reference(pixels))
    print(f"\n{'':40} score error against OpenVINO f32: median, maximum (scores spread by {expected.std():.2f})")
    for name, embed in others:
        errors = np.abs(predictor.score(embed(pixels)) - expected)
        print(f"{name:40} {np.median(errors):.6f} {errors.max():.6f}")


# Memory


def print_memory(weights: Path) -> None:
    command = [sys.executable, __file__, "--memory-of", str(weights)]
    starts = [json.loads(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(3)]
    print("\none process, precision auto, medians of 3:", end=" ")
    print(", ".join(f"{name} {statistics.median(start[name] for start in starts):.2f}" for name in starts[0]))


def measure_start(weights: Path) -> dict[str, float]:
    """Return what it takes to load a tower and embed 64 images. Memory in GB (Linux)."""
    started = time.perf_counter()
    tower = OpenVinoClip(weights)
    tower.embed(np.zeros((1, 224, 224, 3), np.uint8))
    first_embedding_s = time.perf_counter() - started
    tower.embed(demo_pixels(64))
    status = dict(line.split(":", 1) for line in _lines("/proc/self/status"))
    memory = {field: int(status[field].split()[0]) / 2**20 for field in ("VmHWM", "RssAnon", "RssFile") if status}
    return {"s to the first embedding": first_embedding_s, **{f"{name} GB": size for name, size in memory.items()}}


if __name__ == "__main__":
    main()
