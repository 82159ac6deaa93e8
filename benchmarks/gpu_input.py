"""Everything about one GPU in one command: the matrix peak, our tower in every mode, timm's, whole runs, decoding.

    python benchmarks/gpu.py [--batch-sizes 32 64 128 256 512] [--runs 5] [--images 4096] [--json FILE] [--only PART]

On a machine without a GPU, ``--device cpu --tiny`` runs all of it with a tiny model: the figures mean nothing then.
A part that fails is told and left out. Without --model-dir it uses random weights of the real size: the arithmetic,
and so the time, is the same. ``--only tuned`` adds the mode "tuned", which compiles for minutes.
"""

import argparse
import contextlib
import functools
import gc
import io
import json
import statistics
import sys
import tarfile
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from common import alternate, photographs, print_machine, print_rates, smooth_pixels

from tastemaker.errors import ConfigurationError, MissingExtraError
from tastemaker.imaging.decode import decode_image
from tastemaker.imaging.preprocess import preprocess
from tastemaker.imaging.preprocess_torch import preprocess_with_torch
from tastemaker.models.aesthetic import AestheticPredictor
from tastemaker.models.clip import load_clip
from tastemaker.models.clip_torch import TorchClip
from tastemaker.models.hub import AESTHETIC_PREDICTOR, CLIP_VIT_L14, weights_path
from tastemaker.runs.run import RunOptions, run_scoring
from tastemaker.testing import TINY, VIT_L14, write_random_models

FLOP_OF_IMAGE = 162.0e9
"""Multiplications and additions of ViT-L/14 for one image. Ours leaves 3.5% of them out (see `class_token_layer`)."""

PEER = "vit_large_patch14_clip_quickgelu_224"
PEER_BATCH = 128
NVIMGCODEC = ("nvidia-nvimgcodec-cu12", "nvidia-nvimgcodec-cu13", "nvidia-nvjpeg")


@dataclass
class Bench:
    """What the parts share."""

    options: argparse.Namespace
    folder: Path
    model_dir: Path
    results: dict[str, object] = field(default_factory=dict)
    peak_tflops: float = 0.0

    @property
    def is_cuda(self) -> bool:
        return self.options.device.startswith("cuda")

    @property
    def weights(self) -> Path:
        return weights_path(CLIP_VIT_L14, self.model_dir)

    @property
    def precision(self) -> str:
        return "fp16" if self.is_cuda else "f32"

    @property
    def peer_batch(self) -> int:
        return min(PEER_BATCH, max(self.options.batch_sizes))

    def tower(self, mode: str, batch_size: int | None, precision: str | None = None) -> TorchClip:
        if mode == "graph" and not self.is_cuda:
            mode = "compiled"
        return TorchClip(self.weights, self.options.device, precision or self.precision, batch_size, mode)

    def pixels(self, count: int) -> np.ndarray:
        """Return pictures like photographs, 64 different ones."""
        return smooth_pixels(64)[np.arange(count) % 64]

    def rates(self, title: str, actions: dict, images: int, baseline: str, *, of_peak: bool = False) -> dict:
        rates = alternate(actions, self.options.runs, images)
        print_rates(title, rates, baseline)
        if of_peak and self.is_cuda and self.peak_tflops:
            for name, values in rates.items():
                share = statistics.median(values) * FLOP_OF_IMAGE / 1e12 / self.peak_tflops
                print(f"    {name}: {share:.1%} of the matrix peak")
        self.results[title] = rates
        return rates


def main() -> None:
    options = parse_options()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("torch finds no CUDA GPU here. To see that the program runs: benchmarks/gpu.py --device cpu --tiny")
    with tempfile.TemporaryDirectory() as folder:
        config = TINY if options.tiny else VIT_L14
        model_dir = options.model_dir or write_random_models(Path(folder) / "models", config)
        bench = Bench(options, Path(folder), model_dir)
        for name, part in PARTS.items():
            if name in options.only:
                run_part(bench, name, part)
    if options.json:
        options.json.write_text(json.dumps(bench.results, indent=1, default=str))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--tiny", action="store_true", help="a tiny model and few images")
    parser.add_argument("--model-dir", type=Path)
    parser.add_argument("--batch-sizes", type=int, nargs="+")
    parser.add_argument("--images", type=int, help="images in a whole run")
    parser.add_argument("--runs", type=int)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=[n for n in PARTS if n != "tuned"])
    options = parser.parse_args()
    options.batch_sizes = options.batch_sizes or ([4, 8] if options.tiny else [32, 64, 128, 256, 512])
    options.images = options.images or (40 if options.tiny else 4096)
    options.runs = options.runs or (2 if options.tiny else 5)
    return options


def run_part(bench: Bench, name: str, part) -> None:
    """Run a part. What fails must not cost the figures of the parts after it: time on a GPU is dear."""
    started = time.perf_counter()
    try:
        part(bench)
    except Exception as error:  # noqa: BLE001
        traceback.print_exc()
        print(f"\n{name}: FAILED, {type(error).__name__}: {error}")
        bench.results[f"{name} failed"] = str(error)
    free_memory()
    print(f"  [{name}: {time.perf_counter() - started:.0f} s]", flush=True)


def free_memory() -> None:
    torch.compiler.reset()  # it gives up after 8 shapes of one function
    gc.collect()
    torch.cuda.empty_cache()


# The machine


def show_machine(bench: Bench) -> None:
    print_machine("torch", "triton", "timm", "numpy", "pillow", "simplejpeg", "openvino", *NVIMGCODEC)
    if bench.is_cuda:
        found = torch.cuda.get_device_properties(bench.options.device)
        print(f"{torch.cuda.device_count()} x {found.name}, {found.total_memory / 2**30:.0f} GiB, ", end="")
        print(f"{found.multi_processor_count} multiprocessors, CUDA {torch.version.cuda}, hip {torch.version.hip}")
        bench.results["gpu"] = found.name
    bench.results["torch"] = torch.__version__


def measure_peak(bench: Bench) -> None:
    """Measure a large square matrix product on noise: zeros take less power, and are quicker."""
    side = 8192 if bench.is_cuda else 256
    dtype = torch.float16 if bench.is_cuda else torch.float32
    a, b = (torch.randn(side, side, device=bench.options.device).to(dtype) for _ in range(2))
    for _ in range(3):
        torch.mm(a, b)
    synchronize(bench)
    seconds = []
    for _ in range(20):
        started = time.perf_counter()
        for _ in range(5):
            torch.mm(a, b)
        synchronize(bench)
        seconds.append((time.perf_counter() - started) / 5)
    rates = sorted(2 * side**3 / s / 1e12 for s in seconds)
    bench.peak_tflops = statistics.median(rates)
    print(f"\n{dtype} matrix product, {side} x {side}: {bench.peak_tflops:.3g} TFLOP/s", end=" ")
    print(f"({rates[0]:.3g} to {rates[-1]:.3g})")
    print(f"  at that rate ViT-L/14 embeds {bench.peak_tflops * 1e12 / FLOP_OF_IMAGE:,.0f} images/s")
    bench.results["peak TFLOP/s"] = rates


def synchronize(bench: Bench) -> None:
    if bench.is_cuda:
        torch.cuda.synchronize(bench.options.device)


# The tower


def compare_modes(bench: Bench) -> None:
    """Compare our modes, pixels in host memory to embeddings in host memory, at every batch size."""
    for size in bench.options.batch_sizes:
        images = count_of(bench, size)
        pixels = bench.pixels(images)
        towers = {mode: bench.tower(mode, size) for mode in ("eager", "compiled", "graph")}
        actions = {mode: functools.partial(tower.embed, pixels) for mode, tower in towers.items()}
        replay = replays_alone(towers["graph"], images // size)
        if replay is not None:
            actions["graph, replays alone"] = replay
        bench.rates(f"batch {size}, {bench.precision}", actions, images, "eager", of_peak=True)
        check_equal(towers, pixels[:size])
        del towers, actions, replay
        free_memory()


def count_of(bench: Bench, size: int) -> int:
    return 2 * size if bench.options.tiny else max(8, 2048 // size) * size


def replays_alone(tower: TorchClip, times: int):
    """Return a function that computes batches which are on the GPU already; None where there is no graph."""
    lane = tower._runner._lane
    graph = getattr(lane, "_graph", None)
    if graph is None:
        return None

    def replay() -> None:
        with torch.cuda.stream(lane._compute):
            for _ in range(times):
                graph.replay()
        lane._compute.synchronize()

    return replay


def check_equal(towers: dict[str, TorchClip], pixels: np.ndarray) -> None:
    expected = towers["eager"].embed(pixels)
    for mode in ("compiled", "graph"):
        difference = np.abs(towers[mode].embed(pixels) - expected).max()
        print(f"    {mode} differs from eager by {difference:.1e} at most")


def compare_peers(bench: Bench, *, tuned: bool = False) -> None:
    """Compare with timm's tower, whose images are on the GPU already (ours come from host memory)."""
    size = bench.peer_batch
    images = count_of(bench, size)
    pixels = bench.pixels(images)
    modes = ("graph", "tuned") if tuned else ("graph",)
    towers = {mode: bench.tower(mode, size) for mode in modes}
    actions = {f"tastemaker {mode}": functools.partial(tower.embed, pixels) for mode, tower in towers.items()}
    replay = replays_alone(towers["graph"], images // size)
    if replay is not None:
        actions["tastemaker graph, replays alone"] = replay
    baseline = "tastemaker graph"
    if find_spec("timm") is None:
        print(f"\ntimm is not installed, so {PEER} is not compared: pip install timm")
    elif bench.options.tiny:
        print(f"\n{PEER} is not compared with a tiny model")
    else:
        baseline = "timm, compiled, amp fp16"
        actions[baseline] = load_timm(bench, size, images // size, half=False)
        actions["timm, compiled, fp16 weights"] = load_timm(bench, size, images // size, half=True)
    bench.rates(f"against timm, batch {size}", actions, images, baseline, of_peak=True)


def load_timm(bench: Bench, size: int, times: int, *, half: bool):
    import timm

    device = bench.options.device
    model = timm.create_model(PEER, pretrained=False, num_classes=768).eval().to(device)
    batch = torch.randn(size, 3, 224, 224, device=device)
    if half:
        model, batch = model.half(), batch.half()
    compiled = torch.compile(model)
    kind = torch.device(device).type

    @torch.inference_mode()
    def run() -> None:
        with contextlib.nullcontext() if half else torch.autocast(kind, torch.float16):
            for _ in range(times):
                compiled(batch)
        synchronize(bench)

    return run


def compare_attention(bench: Bench) -> None:
    """Compare the kernels that torch has for attention: the graph is made with whatever is allowed at that time."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    if not bench.is_cuda:
        print("\nattention kernels: skipped, they are those of CUDA")
        return
    size = bench.peer_batch
    images = count_of(bench, size)
    towers = {"torch's choice": bench.tower("graph", size)}
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION):
        torch.compiler.reset()  # else the layer compiled with another kernel is taken
        try:
            with sdpa_kernel(backend):
                towers[backend.name] = bench.tower("graph", size)
        except Exception as error:  # noqa: BLE001
            print(f"\n{backend.name} does not work here: {error}")
    replays = {name: replays_alone(tower, images // size) for name, tower in towers.items()}
    actions = {name: replay for name, replay in replays.items() if replay is not None}
    bench.rates(f"attention kernels, batch {size}", actions, images, "torch's choice", of_peak=True)


def compare_callers(bench: Bench) -> None:
    """Compare one and two threads that each embed a batch at a time, at the batch size that is chosen by itself."""
    started = time.perf_counter()
    tower = bench.tower("graph", None)
    print(f"\nbatch size chosen: {tower.batch_size}, ready in {time.perf_counter() - started:.1f} s")
    bench.results["chosen batch size"] = tower.batch_size
    images = count_of(bench, tower.batch_size)
    pixels = bench.pixels(images)
    chunks = [pixels[start : start + tower.batch_size] for start in range(0, images, tower.batch_size)]

    def run(threads: int) -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(tower.embed, chunks))

    actions = {f"{threads} threads": functools.partial(run, threads) for threads in (1, 2, 3)}
    bench.rates("callers, a batch each", actions, images, "1 threads", of_peak=True)


def compare_scores(bench: Bench) -> None:
    """Print how far reduced precision moves scores, on pictures and on photographs."""
    encoded = [data for side in (512, 1024) for data in photographs(side, 6)]
    pixels = np.concatenate([np.stack([preprocess(decode_image(data).pixels) for data in encoded]), smooth_pixels(52)])
    predictor = AestheticPredictor.from_file(weights_path(AESTHETIC_PREDICTOR, bench.model_dir))
    size = min(32, bench.peer_batch)
    expected = predictor.score(bench.tower("eager", size, "f32").embed(pixels))
    print(f"\nscore error against f32, {len(pixels)} images (scores spread by {expected.std():.2f})")
    for precision in ("fp16", "bf16"):
        found = predictor.score(bench.tower("graph", size, precision).embed(pixels))
        errors = np.abs(found - expected)
        print(f"  {precision}: median {np.median(errors):.6f}, maximum {errors.max():.6f}")
        bench.results[f"score errors, {precision}"] = [float(error) for error in errors]
        free_memory()


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
    threads = 2 if bench.options.tiny else 16
    try:
        from tastemaker.imaging.gpu_decode import GpuDecoder

        decoder = GpuDecoder(bench.options.device if ":" in bench.options.device or not bench.is_cuda else "cuda:0", 0)
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
    bench.results[f"{title}: score errors"] = [float(error) for error in errors]


def noisy(data: bytes) -> bytes:
    """Return a JPEG with a camera's noise: enlarged photographs have none, and too few bits to read."""
    pixels = decode_image(data).pixels
    noise = np.random.default_rng(0).normal(0, 8, pixels.shape)
    return simplejpeg.encode_jpeg((pixels + noise).clip(0, 255).astype(np.uint8), 92, colorsubsampling="420")


# Whole runs


def compare_whole_runs(bench: Bench) -> None:
    """Compare `run_scoring` over shards of JPEGs with the model alone, its start left out."""
    device = bench.options.device
    tower = load_clip(bench.weights, device, batch_size=bench.peer_batch)
    pixels = bench.pixels(bench.options.images)
    for side in (512, 1024):
        shards = write_shards(bench.folder / f"shards{side}", side, bench.options.images)
        alone, whole = [], []
        for run in range(min(bench.options.runs, 3)):
            alone.append(len(pixels) / timed(functools.partial(embed_in_batches, tower, pixels, bench.peer_batch)))
            output = bench.folder / f"out{side}-{run}"
            options = RunOptions(model_dir=str(bench.model_dir), device=device, batch_size=bench.peer_batch)
            whole.append(scoring_rate(shards, output, options))
        rates = {"model alone": alone, "tastemaker score": whole}
        print_rates(f"end to end, shards of {side}-pixel JPEGs", rates, "model alone")
        bench.results[f"end to end, {side}"] = rates


def embed_in_batches(tower, pixels: np.ndarray, size: int) -> None:
    with ThreadPoolExecutor(tower.concurrency) as pool:
        list(pool.map(tower.embed, [pixels[start : start + size] for start in range(0, len(pixels), size)]))


def timed(call) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def scoring_rate(shards: Path, output: Path, options: RunOptions) -> float:
    """Return images a second between the first batch with rows and the last."""
    times, images = [], []

    def note(progress) -> None:
        times.append(time.perf_counter())
        images.append(progress.images)

    run_scoring([str(shards)], output, options, on_progress=note)
    first = next(number for number, count in enumerate(images) if count)
    return (images[-1] - images[first]) / max(times[-1] - times[first], 1e-9)


def write_shards(folder: Path, side: int, count: int, per_shard: int = 256) -> Path:
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


PARTS = {
    "machine": show_machine,
    "peak": measure_peak,
    "modes": compare_modes,
    "peers": compare_peers,
    "attention": compare_attention,
    "callers": compare_callers,
    "scores": compare_scores,
    "whole": compare_whole_runs,
    "preprocessing": compare_preprocessing,
    "decoding": compare_gpu_decoding,
    "tuned": functools.partial(compare_peers, tuned=True),
}

if __name__ == "__main__":
    main()
