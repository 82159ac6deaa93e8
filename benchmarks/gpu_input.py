"""Parts of `gpu.py` about what comes before the model: preprocessing, decoding on the GPU, whole runs."""

import functools
import io
import statistics
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from common import photographs, print_rates
from gpu import Bench

from tastemaker.errors import ConfigurationError, MissingExtraError
from tastemaker.imaging.decode import decode_image
from tastemaker.imaging.preprocess import preprocess
from tastemaker.imaging.preprocess_torch import preprocess_with_torch
from tastemaker.machine import usable_cores
from tastemaker.models.aesthetic import AestheticPredictor
from tastemaker.models.hub import AESTHETIC_PREDICTOR, weights_path

# Before the tower


def compare_preprocessing(bench: Bench) -> None:
    """Print images a second of one core: decoding, and decoding and resizing in both ways."""
    count = 4 if bench.options.tiny else 24
    for side in (512, 1024):
        encoded = photographs(side, count)
        actions = {
            "decode": lambda encoded=encoded: [decode_image(data) for data in encoded],
            "decode, Pillow": lambda encoded=encoded: [preprocess(decode_image(data).pixels) for data in encoded],
            "decode, torch": lambda encoded=encoded: [
                preprocess_with_torch(decode_image(data).pixels) for data in encoded
            ],
        }
        bench.rates(f"one core, JPEGs of {side} pixels", actions, count, "decode, Pillow")


def compare_gpu_decoding(bench: Bench) -> None:
    """Compare decoding and resizing by the processors with --decode gpu: rates, pixels and scores."""
    threads = 2 if bench.options.tiny else usable_cores()
    try:
        from tastemaker.imaging.gpu_decode import GpuDecoder

        decoder = GpuDecoder(bench.options.device, 0)
    except (MissingExtraError, ConfigurationError) as error:
        decoder = None
        print(f"\n--decode gpu: skipped ({error})")
    for side in (1024, 3840):
        encoded = photographs(side, 6) + [noisy(data) for data in photographs(side, 2 if bench.options.tiny else 6)]
        print(f"\nJPEGs of {side} pixels: {sum(map(len, encoded)) / len(encoded) / 1e6:.2f} MB on average")
        actions = {
            f"processors, {threads} threads": functools.partial(in_threads, threads, decode_on_processor, encoded),
            "processor, 1 thread": lambda encoded=encoded: [decode_on_processor(data) for data in encoded],
            "the check alone, 1 thread": lambda encoded=encoded: [decode_small(data) for data in encoded],
        }
        if decoder is not None:
            decode = functools.partial(decode_on_gpu, decoder)
            name = "GPU" if bench.is_cuda else "nvImageCodec without a GPU"
            for count in (threads, 2 * threads):
                actions[f"{name}, {count} threads"] = functools.partial(in_threads, count, decode, encoded)
            actions[f"{name}, no check, no resize, one call"] = functools.partial(decode_unchecked, decoder, encoded)
        repeats = 1 if bench.options.tiny else 4
        encoded *= repeats
        title = f"decoding and resizing, JPEGs of {side} pixels"
        bench.rates(title, actions, len(encoded), f"processors, {threads} threads")
        if decoder is not None:
            compare_decoders(bench, decoder, encoded[:: 2 * repeats], title)


def in_threads(threads: int, function, encoded: list[bytes]) -> None:
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(function, encoded))


def decode_on_processor(data: bytes) -> np.ndarray:
    return preprocess_with_torch(decode_image(data).pixels)


def decode_small(data: bytes) -> np.ndarray:
    return simplejpeg.decode_jpeg(data, strict=True, min_height=1, min_width=1, min_factor=8)


def decode_on_gpu(decoder, data: bytes) -> np.ndarray | None:
    return decoder.make_input(data, "openai")


def decode_unchecked(decoder, encoded: list[bytes]) -> None:
    sources = [decoder._nvimgcodec.CodeStream(data) for data in encoded]
    for start in range(0, len(sources), 16):  # as many as the reader hands over at most
        decoder._codec.decode(sources[start : start + 16], params=decoder._params)
    if decoder._device.type == "cuda":
        torch.cuda.synchronize(decoder._device)


def compare_decoders(bench: Bench, decoder, encoded: list[bytes], title: str) -> None:
    """Print how far pixels and scores move."""
    found = [(data, pixels) for data in encoded if (pixels := decode_on_gpu(decoder, data)) is not None]
    print(f"    {len(encoded) - len(found)} of {len(encoded)} JPEGs were left to the processor (the log says why)")
    if not found:
        return
    made = np.stack([pixels for _, pixels in found])
    expected = np.stack([preprocess(decode_image(data).pixels) for data, _ in found])
    differences = np.abs(made.astype(int) - expected)
    predictor = AestheticPredictor.from_file(weights_path(AESTHETIC_PREDICTOR, bench.model_dir))
    tower = bench.tower("eager", min(8, len(made)), "f32")
    errors = np.abs(predictor.score(tower.embed(made)) - predictor.score(tower.embed(expected)))
    print(f"    pixels differ by {differences.max()} of 255 at most, {differences.mean():.3f} in the mean; ", end="")
    print(f"scores by {np.median(errors):.4f} in the median, {errors.max():.4f} at most")
    bench.keep(f"{title}: score errors", [float(error) for error in errors])


def noisy(data: bytes) -> bytes:
    """Return a JPEG with a camera's noise: enlarged photographs have none, and too few bits to read."""
    pixels = decode_image(data).pixels
    noise = np.random.default_rng(0).normal(0, 8, pixels.shape)
    return simplejpeg.encode_jpeg((pixels + noise).clip(0, 255).astype(np.uint8), 92, colorsubsampling="420")


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
