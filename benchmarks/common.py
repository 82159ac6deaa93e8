"""What all benchmarks share: the machine in words, alternating runs, medians and ratios, sample pictures."""

import io
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tastemaker.machine import describe_machine, package_version


def print_machine(*packages: str) -> None:
    """Print the processor, its cores and load, and the versions of packages."""
    machine = describe_machine()
    known = f"{machine['processor']}, {os.cpu_count()} cores ({' '.join(machine['instructions'])})"
    print(f"{known}, load {os.getloadavg()[0]:.1f}, {time.strftime('%Y-%m-%d')}")
    there = [f"{name} {version}" for name in packages if (version := package_version(name))]
    print(", ".join([f"Python {platform.python_version()}", *there]))


def alternate(
    actions: dict[str, Callable[[], object]], runs: int, units: float = 1.0, *, warm: bool = True
) -> dict[str, list[float]]:
    """Return name -> ``units`` per second of each run. Runs alternate, so that a slow minute slows all of them.

    Args:
        actions: Name -> what to run.
        runs: Times each is run.
        units: What one run does, in images or bytes.
        warm: Run each once before, unmeasured.
    """
    for action in actions.values() if warm else ():
        action()
    rates: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(runs):
        for name, action in actions.items():
            started = time.perf_counter()
            action()
            rates[name].append(units / (time.perf_counter() - started))
    return rates


def print_rates(title: str, rates: dict[str, list[float]], baseline: str, unit: str = "images/s") -> None:
    """Print a line for each: the median, the range, and the median ratio to the baseline of the same round."""
    runs = len(rates[baseline])
    print(f"\n{title}: {unit}, median (range) of {runs} alternating runs; median ratio to {baseline!r}")
    width = max(map(len, rates))
    for name, values in rates.items():
        ratio = statistics.median(a / b for a, b in zip(values, rates[baseline], strict=True))
        print(f"  {name:{width}}  {_figure(statistics.median(values)):>10} ", end="")
        print(f"({_figure(min(values))} to {_figure(max(values))})  {ratio:.2f}")


def photographs(side: int, count: int, quality: int = 90) -> list[bytes]:
    """Return JPEGs with that longer side, made of scikit-image's photographs (4K ones by enlarging)."""
    import skimage

    data = Path(skimage.__file__).parent / "data"
    names = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "hubble_deep_field.jpg")
    sources = [Image.open(path).convert("RGB") for name in names if (path := data / name).exists()]
    encoded = []
    for number in range(count):
        source = sources[number % len(sources)]
        scale = side / max(source.size)
        size = (round(source.width * scale), round(source.height * scale))
        file = io.BytesIO()
        source.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=quality)
        encoded.append(file.getvalue())
    return encoded


def smooth_pixels(count: int, side: int = 224) -> np.ndarray:
    """Return random pictures, uint8 (count, side, side, 3): noise at 8 scales, as photographs have."""
    rng = np.random.default_rng(0)
    picture = np.zeros((count, side, side, 3), np.float32)
    for cells in (2, 4, 7, 14, 28, 56, 112, 224):
        noise = rng.standard_normal((count, cells, cells, 3), np.float32)
        repeat = side // cells
        picture += noise.repeat(repeat, axis=1).repeat(repeat, axis=2) * (30 / cells**0.5)
    return (picture + 128).clip(0, 255).astype(np.uint8)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
