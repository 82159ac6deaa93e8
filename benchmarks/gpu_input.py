"""Parts of `gpu.py` about what comes before the model: preprocessing and whole runs."""

import functools
import io
import statistics
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from common import photographs, print_rates
from gpu import Bench

from tastemaker.imaging.decode import decode_image
from tastemaker.imaging.preprocess import preprocess, preprocess_with_torch
from tastemaker.machine import usable_cores
from tastemaker.models.published.openai_clip import CLIP_VIT_L14

HOW = CLIP_VIT_L14.preprocess

# Before the tower


def compare_preprocessing(bench: Bench) -> None:
    """Print images a second of one core: decoding, and decoding and resizing in both ways."""
    count = 4 if bench.options.tiny else 24
    for side in (512, 1024):
        encoded = photographs(side, count)
        actions = {
            "decode": lambda encoded=encoded: [decode_image(data) for data in encoded],
            "decode, Pillow": lambda encoded=encoded: [preprocess(decode_image(data).pixels, HOW) for data in encoded],
            "decode, torch": lambda encoded=encoded: [
                preprocess_with_torch(decode_image(data).pixels, HOW) for data in encoded
            ],
        }
        bench.rates(f"one core, JPEGs of {side} pixels", actions, count, "decode, Pillow")


# Whole runs


def compare_whole_runs(bench: Bench) -> None:
    """Compare `run_scoring` over shards of JPEGs with the model alone, its start left out."""
    from tastemaker.runs.run import RunOptions, run_scoring

    tower = bench.tower("graph" if bench.is_cuda else "eager")
    pixels = bench.pixels(bench.options.images)
    for side, share in ((512, 1), (1024, 2)):
        shards = write_shards(bench.folder / f"shards{side}", side, bench.options.images // share)
        alone, whole, starts = [], [], []
        for run in range(3):
            alone.append(len(pixels) / timed(functools.partial(embed_in_batches, tower, pixels)))
            output = bench.folder / f"out{side}-{run}"
            options = RunOptions(model_dir=str(bench.model_dir), device=bench.options.device)
            rate, start_s = scoring_rate(run_scoring, shards, output, options)
            whole.append(rate)
            starts.append(start_s)
        rates = {"model alone": alone, "tastemaker score": whole}
        print_rates(f"end to end, shards of {side}-pixel JPEGs, {usable_cores()} cores", rates, "model alone")
        print(f"    the first rows came after {statistics.median(starts):.1f} s")
        bench.keep(f"end to end, {side}", rates)


def embed_in_batches(tower, pixels: np.ndarray) -> None:
    size = tower.batch_size
    with ThreadPoolExecutor(tower.concurrency) as pool:
        list(pool.map(tower.embed, [pixels[start : start + size] for start in range(0, len(pixels), size)]))


def timed(call) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def scoring_rate(run_scoring, shards: Path, output: Path, options) -> tuple[float, float]:
    """Return images a second between the first batch with rows and the last, and the seconds before."""
    started, times, images = time.perf_counter(), [], []

    def note(progress) -> None:
        times.append(time.perf_counter())
        images.append(progress.images)

    run_scoring([str(shards)], output, options, on_progress=note)
    first = next(number for number, count in enumerate(images) if count)
    return (images[-1] - images[first]) / max(times[-1] - times[first], 1e-9), times[first] - started


def write_shards(folder: Path, side: int, count: int, per_shard: int = 1000) -> Path:
    folder.mkdir()
    encoded = photographs(side, 6 if count < 64 else 60)
    per_shard = min(per_shard, max(1, count // 4))
    for start in range(0, count, per_shard):
        with tarfile.open(folder / f"{start:06d}.tar", "w") as tar:
            for number in range(start, min(start + per_shard, count)):
                info = tarfile.TarInfo(f"{number:06d}.jpg")
                data = encoded[number % len(encoded)]
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return folder
