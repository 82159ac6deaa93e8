"""Everything about one GPU in one command: peaks, kernels, our tower in every mode, timm's, whole runs.

    python benchmarks/gpu.py [--json FILE] [--only PART ...] [--limit-s 540] [--model-dir DIR]

The parts run in the order of their weight, each for so long at most, and all within ``--limit-s``, compilers included.
What a part measured is printed and written at once; one that fails, or takes too long, costs the others nothing. Needs
torch, and timm to compare with; without --model-dir it uses random weights of the real size: the arithmetic, and so the
time, is the same. With ``--device cpu --tiny`` it shows on any machine that it runs, and the figures mean nothing.
"""

import argparse
import contextlib
import gc
import json
import logging
import signal
import statistics
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from common import alternate, print_rates, smooth_pixels

from tastemaker.models.clip_torch import CUDA_BATCH_SIZE, TorchClip
from tastemaker.models.hub import weights_path
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
from tastemaker.models.vit import VitDimensions, read_dimensions
from tastemaker.testing import TINY, VIT_L14, write_random_models

FLOP_OF_IMAGE = 162.0e9
"""Multiplications and additions of ViT-L/14 for one image. Ours leaves 3.5% of them out, of the last layer."""

PACKAGES = ("torch", "triton", "timm", "numpy", "pillow", "simplejpeg", "nvidia-cudnn-cu13", "nvidia-cublas")

PARTS = {  # name -> module and function, seconds at most
    "machine": ("gpu_tower.show_machine", 60),
    "peak": ("gpu_tower.measure_peaks", 30),
    "modes": ("gpu_tower.compare_modes", 120),
    "kernels": ("gpu_tower.measure_kernels", 90),
    "peers": ("gpu_tower.compare_peers", 120),
    "whole": ("gpu_input.compare_whole_runs", 120),
    "scores": ("gpu_tower.compare_scores", 60),
    "callers": ("gpu_tower.compare_callers", 40),
    "sizes": ("gpu_tower.compare_sizes", 60),
    "preprocessing": ("gpu_input.compare_preprocessing", 40),
}


@dataclass
class Bench:
    """What the parts share."""

    options: argparse.Namespace
    folder: Path
    results: dict[str, object] = field(default_factory=dict)
    peak_tflops: float = 0.0
    _model_dir: Path | None = None

    @property
    def is_cuda(self) -> bool:
        return self.options.device.startswith("cuda")

    @property
    def model_dir(self) -> Path:
        """The models' directory; random ones are written when they are first needed."""
        if self._model_dir is None:
            config = TINY if self.options.tiny else VIT_L14
            self._model_dir = self.options.model_dir or write_random_models(self.folder / "models", config)
        return self._model_dir

    @property
    def weights(self) -> Path:
        return weights_path(CLIP_VIT_L14, self.model_dir)

    @property
    def config(self) -> VitDimensions:
        return read_dimensions(self.weights, CLIP_VIT_L14)

    @property
    def precision(self) -> str:
        return "fp16" if self.is_cuda else "f32"

    @property
    def size(self) -> int:
        """Images in a batch, where a part does not say another."""
        return 4 if self.options.tiny else CUDA_BATCH_SIZE

    def tower(self, mode: str, batch_size: int | None = None, precision: str | None = None) -> TorchClip:
        """Return our tower; graphs are for CUDA only."""
        started = time.perf_counter()
        tower = TorchClip(self.weights, self.options.device, precision or self.precision, batch_size or self.size, mode)
        print(f"  ({mode}, {tower.batch_size} at a time: ready in {time.perf_counter() - started:.1f} s)", flush=True)
        return tower

    def images(self, size: int | None = None) -> int:
        """Return how many images a timed run takes: whole batches, half a second or more on an H100."""
        size = size or self.size
        return 2 * size if self.options.tiny else max(8, 2048 // size) * size

    def pixels(self, count: int) -> np.ndarray:
        """Return pictures like photographs, 64 different ones."""
        return smooth_pixels(64)[np.arange(count) % 64]

    def rates(self, title: str, actions: dict, images: int, baseline: str, *, of_peak: bool = False) -> dict:
        """Measure, print and keep images a second of each action."""
        rates = alternate(actions, self.options.runs, images)
        print_rates(title, rates, baseline)
        if of_peak and self.peak_tflops:
            for name, values in rates.items():
                share = statistics.median(values) * FLOP_OF_IMAGE / 1e12 / self.peak_tflops
                print(f"    {name}: {share:.1%} of the matrix peak")
        self.keep(title, rates)
        return rates

    def keep(self, title: str, values: object) -> None:
        """Keep what was measured, in the file too: whatever ends this program costs nothing that it has."""
        self.results[title] = values
        sys.stdout.flush()
        if self.options.json:
            self.options.json.write_text(json.dumps(self.results, indent=1, default=str))

    def synchronize(self) -> None:
        if self.is_cuda:
            torch.cuda.synchronize(self.options.device)


def main() -> None:
    started = time.monotonic()
    options = parse_options()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")  # what fell back, and why
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("torch finds no CUDA GPU here. To see that the program runs: benchmarks/gpu.py --device cpu --tiny")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        bench = Bench(options, Path(folder))
        for name, (function, most_s) in PARTS.items():
            if name in options.only:
                run_part(bench, name, function, min(most_s, options.limit_s - (time.monotonic() - started)))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda:0", help="cuda:N or cpu")
    parser.add_argument("--tiny", action="store_true", help="a tiny model and few images")
    parser.add_argument("--model-dir", type=Path)
    parser.add_argument("--images", type=int, help="images in a whole run")
    parser.add_argument("--runs", type=int)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--limit-s", type=float, default=540, help="seconds for all parts together")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    options = parser.parse_args()
    options.images = options.images or (40 if options.tiny else 8192)
    options.runs = options.runs or (2 if options.tiny else 5)
    return options


def run_part(bench: Bench, name: str, function: str, most_s: float) -> None:
    """Run a part. What fails, or takes too long, must not cost the figures of the others: time on a GPU is dear."""
    print(f"\n== {name}", flush=True)
    if most_s < 10:
        print(f"{name}: SKIPPED, the time is over")
        return
    started = time.perf_counter()
    try:
        with time_limit(most_s):
            module, _, attribute = function.partition(".")
            getattr(import_module(module), attribute)(bench)
    except (Exception, OverTimeError) as error:  # noqa: BLE001
        traceback.print_exc(file=sys.stdout)
        print(f"\n{name}: FAILED, {type(error).__name__}: {error}")
        bench.keep(f"{name} failed", f"{type(error).__name__}: {error}")
    free_memory()
    took = time.perf_counter() - started
    bench.keep(f"seconds of {name}", took)
    print(f"  [{name}: {took:.0f} s]", flush=True)


class OverTimeError(BaseException):
    """Of no kind that the program takes for a failure of its own."""


@contextlib.contextmanager
def time_limit(seconds: float):
    """Raise OverTimeError in the body after so many seconds."""

    def stop(*_: object) -> None:
        raise OverTimeError(f"it took more than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def free_memory() -> None:
    try:
        torch.compiler.reset()  # it gives up after 8 shapes of one function
        gc.collect()
        torch.cuda.empty_cache()
    except Exception as error:  # noqa: BLE001 - after an error of the GPU all that follows fails, and says so
        print(f"memory could not be freed: {error}")


if __name__ == "__main__":
    sys.modules["gpu"] = sys.modules["__main__"]  # for the modules of the parts
    main()
