"""A run without the model: what reading, decoding, moving and writing cost, in processor time for each image.

    python benchmarks/pipeline.py [--images 2000] [--side 224] [--runs 5] [--threads 16]

Shards of JPEGs with a caption each, through the stages of `tastemaker score`. The vision tower is one that answers
at once, so what is left bounds how fast an accelerator one process can feed: with Pillow's resize, as without a GPU,
and with torch's and batches of 256, as with one. "Alone" is one thread that decodes and resizes and does nothing else.

"Decoders asleep" is for machines with more cores than this one. The two calls that decode and resize outside of
Python's lock sleep for as long as they take, in ``--threads`` threads: what is left is bounded by that lock, and
by the few cores of this machine. Prints the machine and the medians of processor and clock time.
"""

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

import numpy as np
import simplejpeg
from common import photographs, print_machine
from end_to_end import write_shards

from tastemaker.executors.chain import Chain
from tastemaker.imaging.decode import decode_image
from tastemaker.imaging.model_input import Preprocess
from tastemaker.imaging.preprocess import preprocess, preprocess_with_torch
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
from tastemaker.runs.options import RunOptions
from tastemaker.runs.recipe import GPU_BATCH_SIZE, make_stages
from tastemaker.stages.partition import FilePartitioningStage
from tastemaker.storage.place import Place
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
    parser.add_argument("--threads", type=int, default=16, help="that decode where decoders are asleep")
    arguments = parser.parse_args()
    print_machine("numpy", "pillow", "simplejpeg", "pyarrow", "torch")
    pictures = photographs(arguments.side, 12)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        models = str(write_random_models(root / "models"))
        shards = write_shards(root / "shards", arguments.images, pictures, per_shard=1000)

        def run(resize: str, threads: int | None = None) -> None:
            score(shards, root / f"out{time.monotonic_ns()}", models, resize, threads)

        actions = {
            "decode and resize alone": lambda: decode_all(pictures, arguments.images, preprocess),
            "whole run but the model": lambda: run("pillow"),
        }
        if find_spec("torch"):
            actions |= {
                "alone, torch's resize": lambda: decode_all(pictures, arguments.images, preprocess_with_torch),
                "whole run, torch's resize": lambda: run("torch"),
                "the same, decoders asleep": lambda: asleep(pictures, lambda: run("torch", arguments.threads)),
            }
        print(f"\n{arguments.images} JPEGs of {arguments.side} pixels, medians of {arguments.runs} alternating runs")
        for name, (processor, clock) in measure(actions, arguments.runs, arguments.images).items():
            print(f"  {name:26}  {processor:6.0f} us of processor an image, {1e6 / clock:8,.0f} images/s")


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


def decode_all(pictures: list[bytes], images: int, resize: Callable[[np.ndarray, Preprocess], np.ndarray]) -> None:
    for number in range(images):
        resize(decode_image(pictures[number % len(pictures)]).pixels, CLIP_VIT_L14.preprocess)


def score(shards: Path, output: Path, model_dir: str, resize: str, threads: int | None = None) -> None:
    """Run the stages on the shards; with torch's resize as on a machine with a GPU, on so many threads if given."""
    groups = FilePartitioningStage(file_paths=f"{shards}/*.tar").process()
    options = RunOptions(model_dir=model_dir, batch_size=GPU_BATCH_SIZE if resize == "torch" else None)
    reader, *others = make_stages(Place.of(output), options)
    reader.resize, reader.num_threads = resize, threads or reader.num_threads
    with (
        patch("tastemaker.stages.embed.load_clip", return_value=InstantTower()),
        patch("tastemaker.stages.read.usable_cores", return_value=reader.num_threads),
    ):
        chain = Chain([reader, *others])
        chain.setup()
        for _ in chain.run(groups):
            pass
        chain.teardown()


def asleep(pictures: list[bytes], action: Callable[[], object]) -> None:
    """Do something while the decoder and torch's resize only sleep, for as long as they take."""
    import torch.nn.functional

    interpolate = sleeping(torch.nn.functional, "interpolate", lambda image: tuple(image.shape))
    with sleeping(simplejpeg, "decode_jpeg", len), interpolate:
        decode_all(pictures, len(pictures), preprocess_with_torch)
        action()


@contextlib.contextmanager
def sleeping(module: object, name: str, key: Callable[[object], object]) -> Iterator[None]:
    """Replace a function: for an argument whose ``key`` came before, it sleeps and gives the same result again."""
    function, known = getattr(module, name), {}

    def replacement(argument: object, *others: object, **options: object) -> object:
        found = key(argument)
        if found not in known:
            function(argument, *others, **options)  # the first call is slower
            started = time.perf_counter()
            result = function(argument, *others, **options)
            known[found] = result, time.perf_counter() - started
        result, seconds = known[found]
        time.sleep(seconds)
        return result

    with patch.object(module, name, replacement):
        yield


if __name__ == "__main__":
    main()
