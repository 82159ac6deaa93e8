"""A run without the model: what reading, decoding, moving and writing cost, in processor time for each image.

    python benchmarks/pipeline.py [--images 2000] [--side 224] [--runs 5]

Shards of JPEGs with a caption each, through the stages of `tastemaker score`. The vision tower is one that answers
at once, so what is left bounds how fast an accelerator one process can feed. "Alone" is one thread that decodes and
resizes and does nothing else. Prints the machine and the medians of processor and clock time.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
from common import photographs, print_machine
from end_to_end import write_shards

from tastemaker.executors.chain import Chain
from tastemaker.imaging.decode import decode_image
from tastemaker.imaging.preprocess import preprocess
from tastemaker.runs.options import RunOptions
from tastemaker.runs.recipe import make_stages
from tastemaker.stages.partition import FilePartitioningStage
from tastemaker.testing import write_random_models


class InstantTower:
    """Every image has the same embedding."""

    concurrency = 1

    def describe(self) -> dict[str, str]:
        return {"device": "none", "backend": "none", "precision": "f32"}

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        return np.full((len(pixels), 768), 768**-0.5, np.float32)

    def cancel(self) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--side", type=int, default=224, help="longer side of the JPEGs, in pixels")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    print_machine("numpy", "pillow", "simplejpeg", "pyarrow")
    pictures = photographs(arguments.side, 12)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        models = write_random_models(root / "models")
        shards = write_shards(root / "shards", arguments.images, pictures, per_shard=1000)
        actions = {
            "decode and resize alone": lambda: decode_all(pictures, arguments.images),
            "whole run but the model": lambda: score(shards, root / f"out{time.monotonic_ns()}", str(models)),
        }
        print(f"\n{arguments.images} JPEGs of {arguments.side} pixels, medians of {arguments.runs} alternating runs")
        for name, (processor, clock) in measure(actions, arguments.runs, arguments.images).items():
            print(f"  {name:24}  {processor:6.0f} us of processor an image, {1e6 / clock:8,.0f} images/s")


def measure(actions: dict[str, Callable[[], object]], runs: int, images: int) -> dict[str, tuple[float, float]]:
    """Return name -> microseconds for each image: of processor, and by the clock."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in actions}
    for action in actions.values():
        action()
    for _ in range(runs):
        for name, action in actions.items():
            processor, clock = time.process_time(), time.perf_counter()
            action()
            spent = time.process_time() - processor, time.perf_counter() - clock
            times[name].append((spent[0] / images * 1e6, spent[1] / images * 1e6))
    return {name: tuple(map(statistics.median, zip(*values, strict=True))) for name, values in times.items()}


def decode_all(pictures: list[bytes], images: int) -> None:
    for number in range(images):
        preprocess(decode_image(pictures[number % len(pictures)]).pixels)


def score(shards: Path, output: Path, model_dir: str) -> None:
    groups = FilePartitioningStage(file_paths=f"{shards}/*.tar").process()
    with patch("tastemaker.stages.embed.load_clip", return_value=InstantTower()):
        chain = Chain([s for s in make_stages(output, RunOptions(model_dir=model_dir)) if s.name != "image_parity"])
        chain.setup()
        for _ in chain.run(groups):
            pass
        chain.teardown()


if __name__ == "__main__":
    main()
