"""Parts of `gpu.py` about the model: the matrix peak, single kernels, our modes, timm's tower, scores."""

import contextlib
import functools
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from common import print_machine, smooth_pixels
from gpu import FLOP_OF_IMAGE, PACKAGES, Bench, free_memory

from tastemaker.models.clip_torch import TorchClip
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
from tastemaker.models.torch_tower import make_kernels

PEER = "vit_large_patch14_clip_quickgelu_224"


def show_machine(bench: Bench) -> None:
    print_machine(*PACKAGES)
    if bench.is_cuda:
        found = torch.cuda.get_device_properties(bench.options.device)
        print(f"{torch.cuda.device_count()} x {found.name}, {found.total_memory / 2**30:.0f} GiB, ", end="")
        print(f"{found.multi_processor_count} multiprocessors, CUDA {torch.version.cuda}, hip {torch.version.hip}, ")
        print(f"cuDNN {torch.backends.cudnn.version()}, triton {'there' if find_spec('triton') else 'MISSING'}")
        bench.keep("gpu", found.name)
    print(f"weights: {bench.weights if bench.options.model_dir else 'random'}; {bench.config}")
    bench.keep("torch", torch.__version__)


def measure_peaks(bench: Bench) -> None:
    """Measure a large square matrix product on noise (zeros take less power, and are quicker), and a copy."""
    side = 8192 if bench.is_cuda else 256
    dtype = torch.float16 if bench.is_cuda else torch.float32
    a, b = (torch.randn(side, side, device=bench.options.device).to(dtype) for _ in range(2))
    rates = sorted(2 * side**3 / s / 1e12 for s in time_kernel(bench, lambda: torch.mm(a, b), groups=20))
    bench.peak_tflops = statistics.median(rates)
    print(f"{dtype} matrix product, {side} x {side}: {bench.peak_tflops:.4g} TFLOP/s", end=" ")
    print(f"({rates[0]:.4g} to {rates[-1]:.4g})")
    print(f"  at that rate ViT-L/14 embeds {bench.peak_tflops * 1e12 / FLOP_OF_IMAGE:,.0f} images/s")
    source = torch.randint(0, 255, (2**31 if bench.is_cuda else 2**24,), dtype=torch.uint8, device=bench.options.device)
    target = torch.empty_like(source)
    copies = sorted(2 * len(source) / s / 1e12 for s in time_kernel(bench, lambda: target.copy_(source)))
    print(f"copy on the device: {statistics.median(copies):.3g} TB/s, read and written")
    bench.keep("peak TFLOP/s", rates)
    bench.keep("copy TB/s", copies)


def time_kernel(bench: Bench, action, groups: int = 7, of: int = 20) -> list[float]:
    """Return the seconds of one call in each group of calls that follow each other without a wait."""
    for _ in range(3):
        action()
    seconds = []
    for _ in range(groups):
        bench.synchronize()
        started = time.perf_counter()
        for _ in range(of):
            action()
        bench.synchronize()
        seconds.append((time.perf_counter() - started) / of)
    return seconds


# Kernels


@torch.inference_mode()
def measure_kernels(bench: Bench) -> None:
    """Print what each kernel of a layer takes at a full batch, and what follows for all layers."""
    c, n = bench.config, bench.size
    dtype = torch.float16 if bench.is_cuda else torch.float32
    make = functools.partial(torch.randn, device=bench.options.device, dtype=dtype)
    tokens = n * c.tokens
    x, mlp, qkv = make(n, c.tokens, c.width), make(n, c.tokens, c.mlp), make(n, c.tokens, 3 * c.width)
    square, up, down = make(c.width, c.width) / 99, make(c.mlp, c.width) / 99, make(c.width, c.mlp) / 99
    wide, wide_bias, bias = make(3 * c.width, c.width) / 99, make(3 * c.width), make(c.width)
    up_bias, flat = make(c.mlp), make(tokens, c.width)
    norm_tokens, expand_tokens = make_kernels(CLIP_VIT_L14.vit)
    norm = torch.compile(norm_tokens, fullgraph=True, dynamic=False)
    expand = torch.compile(expand_tokens, fullgraph=True, dynamic=False)
    per_width = 2.0 * tokens * c.width
    x2, mlp2, copy = x.view(tokens, -1), mlp.view(tokens, -1), torch.empty_like(mlp)
    flops = {  # name -> call, multiplications and additions, times a layer has it (0: it is a part of another)
        "query, key, value": (lambda: F.linear(x, wide, wide_bias), 3 * c.width * per_width, 1),
        "out, added to the tokens": (lambda: flat.addmm_(x2, square.T), c.width * per_width, 1),
        "  out, not added": (lambda: torch.mm(x2, square.T), c.width * per_width, 0),
        "norm, compiled": (lambda: norm(x, bias, bias, bias), 0, 2),
        "MLP in and QuickGELU, compiled": (lambda: expand(x, up, up_bias), c.mlp * per_width, 1),
        "  MLP in alone": (lambda: F.linear(x, up, up_bias), c.mlp * per_width, 0),
        "  a copy of what QuickGELU reads and writes": (lambda: copy.copy_(mlp), 0, 0),
        "MLP out, added to the tokens": (lambda: flat.addmm_(mlp2, down.T), c.mlp * per_width, 1),
    }
    times = {name: statistics.median(time_kernel(bench, call)) for name, (call, _, _) in flops.items()}
    layer = sum(times[name] * count for name, (_, _, count) in flops.items())
    for name, (_, flop, _) in flops.items():
        rate = f"{flop / times[name] / 1e12:8.1f} TFLOP/s" if flop else ""
        print(f"  {name:44} {times[name] * 1e6:9.1f} us {rate}")
    attention = measure_attention(bench, qkv)
    bench.keep("kernels, s", times)
    bench.keep("attention, s", attention)
    whole = (layer + attention["torch's choice"]) * (c.layers - 1)
    print(f"  {c.layers - 1} layers of these: {whole * 1e3:.1f} ms, {n / whole:,.0f} images/s")
    if bench.is_cuda:
        show_profile(bench)


def measure_attention(bench: Bench, qkv: torch.Tensor) -> dict[str, float]:
    """Return the seconds of each kernel that torch has for attention, on queries, keys and values as they lie here."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    heads = bench.config.heads
    parts = qkv.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind()  # each (n, h, t, d / h)
    names = {"torch's choice": None, "flash": SDPBackend.FLASH_ATTENTION, "cuDNN": SDPBackend.CUDNN_ATTENTION}
    times = {}
    for name, backend in {**names, "memory-efficient": SDPBackend.EFFICIENT_ATTENTION}.items():
        try:
            with sdpa_kernel(backend) if backend else contextlib.nullcontext():
                started = time.perf_counter()
                F.scaled_dot_product_attention(*parts)
                bench.synchronize()
                first = time.perf_counter() - started
                times[name] = statistics.median(time_kernel(bench, lambda: F.scaled_dot_product_attention(*parts)))
        except RuntimeError as error:
            print(f"  attention, {name}: does not work here: {str(error).splitlines()[0][:100]}")
            continue
        flop = 4 * qkv.shape[0] * qkv.shape[1] ** 2 * bench.config.width
        rate = f"{flop / times[name] / 1e12:8.1f} TFLOP/s"
        print(f"  {'attention, ' + name:44} {times[name] * 1e6:9.1f} us {rate}, the first call {first:.2f} s")
    return times


def show_profile(bench: Bench) -> None:
    """Print which kernels a batch is made of, as the driver sees them."""
    tower = bench.tower("graph")
    replay = replays_alone(tower, 3)
    if replay is None:
        return
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        replay()
    found = sorted(profile.key_averages(), key=lambda event: -event.self_device_time_total)
    total = sum(event.self_device_time_total for event in found)
    print(f"  three batches, as profiled: {total / 1e3:.1f} ms in {sum(event.count for event in found)} kernels")
    for event in found[:14]:
        print(f"    {event.self_device_time_total / total:6.1%} {event.count:5} x {event.key[:110]}")
    bench.keep("profile", [(event.key, event.count, event.self_device_time_total) for event in found])


# The tower


def compare_modes(bench: Bench) -> None:
    """Compare our modes, pixels in host memory to embeddings in host memory."""
    images = bench.images()
    pixels = bench.pixels(images)
    towers = {mode: bench.tower(mode) for mode in ("graph", "compiled", "eager")}
    actions = {mode: functools.partial(tower.embed, pixels) for mode, tower in towers.items()}
    add_replay(actions, towers["graph"], images // bench.size)
    bench.rates(f"modes, batch {bench.size}, {bench.precision}", actions, images, "eager", of_peak=True)
    expected = towers["eager"].embed(pixels[: bench.size])
    for mode in ("compiled", "graph"):
        difference = np.abs(towers[mode].embed(pixels[: bench.size]) - expected).max()
        print(f"    {mode} differs from eager by {difference:.1e} at most")


def compare_sizes(bench: Bench) -> None:
    """Compare batch sizes, each alone: the graph of one, and calls with whole batches."""
    for size in (2, 8) if bench.options.tiny else (128, 512, 64, 32):
        images = bench.images(size)
        tower = bench.tower("graph", size)
        actions = {"graph": functools.partial(tower.embed, bench.pixels(images))}
        add_replay(actions, tower, images // size)
        bench.rates(f"batch {size}, {bench.precision}", actions, images, "graph", of_peak=True)
        del tower, actions
        free_memory()


def add_replay(actions: dict, tower: TorchClip, times: int, mode: str = "graph") -> None:
    replay = replays_alone(tower, times)
    if replay is not None:
        actions[f"{mode}, replays alone"] = replay


def replays_alone(tower: TorchClip, times: int):
    """Return a function that computes batches which are on the GPU already; None where there is no graph."""
    lane = tower._runner._lane
    graph = getattr(lane, "_graph", None)
    if graph is None:
        return None
    with torch.inference_mode():
        noise = torch.randint(0, 256, lane._input.shape, dtype=torch.uint8)  # a GPU is quicker on zeros
        lane._input.copy_(noise)

    def replay() -> None:
        with torch.cuda.stream(lane._compute):
            for _ in range(times):
                graph.replay()
        lane._compute.synchronize()

    return replay


def compare_peers(bench: Bench) -> None:
    """Compare with timm's tower, whose images are on the GPU already (ours come from host memory)."""
    if find_spec("timm") is None:
        print(f"timm is not installed, so {PEER} is not compared: pip install timm")
        return
    if bench.options.tiny:
        print(f"{PEER} is not compared with a tiny model")
        return
    images = bench.images()
    tower = bench.tower("graph")
    actions = {"tastemaker": functools.partial(tower.embed, bench.pixels(images))}
    add_replay(actions, tower, images // bench.size)
    for half in (True, False):
        name = "timm, compiled, fp16 weights" if half else "timm, compiled, amp fp16"
        started = time.perf_counter()
        actions[name] = load_timm(bench, bench.size, images // bench.size, half=half)
        actions[name]()
        print(f"  ({name}: ready in {time.perf_counter() - started:.1f} s)")
        bench.rates(f"against {name}, batch {bench.size}", actions, images, name, of_peak=True)


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
        bench.synchronize()

    return run


def compare_callers(bench: Bench) -> None:
    """Compare one and more threads that each embed a batch at a time."""
    tower = bench.tower("graph")
    images = bench.images()
    pixels = bench.pixels(images)
    chunks = [pixels[start : start + tower.batch_size] for start in range(0, images, tower.batch_size)]

    def run(threads: int) -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(tower.embed, chunks))

    actions = {f"{threads} threads": functools.partial(run, threads) for threads in (1, 2, 3)}
    bench.rates("callers, a batch each", actions, images, "1 threads", of_peak=True)
    parts = {
        f"{count} images": functools.partial(lambda count: [tower.embed(pixels[:count]) for _ in range(4)], count)
        for count in sorted({bench.size, bench.size // 2, bench.size // 4, max(1, bench.size // 8)})
    }
    rates = bench.rates("calls with so many images, calls/s", parts, 4, f"{bench.size} images")
    bench.keep("partial batches, calls/s", rates)


def compare_scores(bench: Bench) -> None:
    """Print how far reduced precision moves scores, on pictures."""
    from tastemaker.models.aesthetic import AestheticPredictor
    from tastemaker.models.hub import weights_path
    from tastemaker.models.published.laion_v2 import AESTHETIC_PREDICTOR

    pixels = smooth_pixels(64)
    predictor = AestheticPredictor.from_file(weights_path(AESTHETIC_PREDICTOR, bench.model_dir))
    size = min(64, bench.size)
    expected = predictor.score(bench.tower("eager", size, "f32").embed(pixels))
    print(f"score error against f32, {len(pixels)} images (scores spread by {expected.std():.2f})")
    for precision in ("fp16", "bf16"):
        found = predictor.score(bench.tower("graph", size, precision).embed(pixels))
        errors = np.abs(found - expected)
        print(f"  {precision}: median {np.median(errors):.6f}, maximum {errors.max():.6f}")
        bench.keep(f"score errors, {precision}", [float(error) for error in errors])
        free_memory()
