"""`tastemaker score` over tar shards against the vision tower alone, in alternating runs on the same machine.

    python benchmarks/end_to_end.py [--model-dir DIR] [--images 160] [--runs 5]

Without --model-dir it uses random weights of the real size: the arithmetic, and so the time, is the same.
Prints the machine, the versions, medians and the ratio.
"""

import argparse
import io
import platform
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

from tastemaker.demo import PHOTOGRAPHS
from tastemaker.models.clip import load_clip
from tastemaker.models.hub import CLIP_VIT_L14, ensure_weights
from tastemaker.scores.run import RunOptions, run_scoring
from tastemaker.testing import VIT_L14, write_random_models


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model-dir")
    parser.add_argument("--images", type=int, default=160, help="images of 512 pixels, in shards of 40")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model_dir = arguments.model_dir or str(write_random_models(root / "models", VIT_L14))
        shards = write_shards(root / "shards", arguments.images)
        tower = load_clip(ensure_weights(CLIP_VIT_L14, model_dir))
        described = tower.describe()
        print(f"{platform.processor() or platform.machine()}, {cpu_name()}, {described}")
        print(", ".join(f"{name} {version(name)}" for name in ("openvino", "numpy", "pillow", "pyarrow")))
        pixels = np.random.default_rng(0).integers(0, 256, (arguments.images, 224, 224, 3), np.uint8)
        tower.embed(pixels[:16])
        alone, whole = [], []
        for run in range(arguments.runs):
            alone.append(arguments.images / timed(lambda: tower.embed(pixels)))
            whole.append(arguments.images / timed_scoring(shards, root / f"out{run}", model_dir))
        print_rates("model alone", alone)
        print_rates("tastemaker score, without its start", whole)
        ratios = [b / a for a, b in zip(alone, whole, strict=True)]
        print(f"ratio: median {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


def timed(call) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def timed_scoring(shards: Path, output: Path, model_dir: str) -> float:
    """Seconds from the first batch of images to the last row, plus what the first batch took in proportion."""
    times, images = [], []

    def note(progress) -> None:
        times.append(time.perf_counter())
        images.append(progress.images)

    run_scoring([str(shards)], output, RunOptions(model_dir=model_dir), on_progress=note)
    seconds, number = time.perf_counter() - times[0], images[-1] - images[0]
    return seconds * images[-1] / number


def write_shards(folder: Path, images: int) -> Path:
    import skimage

    folder.mkdir()
    data = Path(skimage.__file__).parent / "data"
    encoded = []
    for name in PHOTOGRAPHS:
        file = io.BytesIO()
        Image.open(data / name).convert("RGB").resize((512, 512)).save(file, "JPEG", quality=90)
        encoded.append(file.getvalue())
    for start in range(0, images, 40):
        with tarfile.open(folder / f"{start:06d}.tar", "w") as tar:
            for number in range(start, min(start + 40, images)):
                for extension, content in (("jpg", encoded[number % len(encoded)]), ("txt", b"a caption")):
                    info = tarfile.TarInfo(f"{number:06d}.{extension}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return folder


def print_rates(what: str, rates: list[float]) -> None:
    print(f"{what}: median {statistics.median(rates):.2f} images/s ({min(rates):.2f} to {max(rates):.2f})")


def cpu_name() -> str:
    result = subprocess.run(["lscpu"], capture_output=True, text=True, check=False)
    names = [line.split(":", 1)[1].strip() for line in result.stdout.splitlines() if line.startswith("Model name")]
    return names[0] if names else sys.platform


if __name__ == "__main__":
    main()
