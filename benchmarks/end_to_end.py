"""`tastemaker score` over tar shards against the vision tower alone, in alternating runs on the same machine.

    python benchmarks/end_to_end.py [--model-dir DIR] [--images 96] [--runs 5] [--side 512] [--precision auto]

Without --model-dir it uses random weights of the real size: the arithmetic, and so the time, is the same. The rate of a
run is that of its embedding stage from the first image that it waits for to the last, so that loading the model, which
happens once, is left out; reading, decoding, scoring and writing all rows are in. Prints medians and ratios.
"""

import argparse
import io
import tarfile
import tempfile
import time
from pathlib import Path

from common import alternate, photographs, print_machine, print_rates, smooth_pixels

from tastemaker.models.clip import load_clip
from tastemaker.models.hub import ensure_weights
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
from tastemaker.runs.run import RunOptions, run_scoring
from tastemaker.runs.summary import RunSummary
from tastemaker.testing import VIT_L14, write_random_models


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model-dir")
    parser.add_argument("--images", type=int, default=96, help="in shards of 40")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--side", type=int, default=512, help="longer side of the JPEGs, in pixels")
    parser.add_argument("--precision", default="auto")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model_dir = arguments.model_dir or str(write_random_models(root / "models", VIT_L14))
        shards = write_shards(root / "shards", arguments.images, photographs(arguments.side, 12))
        tower = load_clip(ensure_weights(CLIP_VIT_L14, model_dir), precision=arguments.precision)
        print_machine("openvino", "numpy", "pillow", "pyarrow")
        print(f"{tower.describe()}, {arguments.images} JPEGs of {arguments.side} pixels")
        pixels = smooth_pixels(32)
        seconds: list[float] = []

        def embed_alone() -> None:
            for start in range(0, arguments.images, len(pixels)):
                tower.embed(pixels[: arguments.images - start])

        def score() -> None:
            output = root / f"out{time.monotonic_ns()}"
            options = RunOptions(model_dir=model_dir, precision=arguments.precision)
            seconds.append(embedding_seconds(run_scoring([str(shards)], output, options)))

        rates = alternate({"model alone": embed_alone, "tastemaker score": score}, arguments.runs, arguments.images)
        rates["tastemaker score"] = [arguments.images / second for second in seconds[1:]]  # the first was to warm up
        print_rates("end to end", rates, "model alone")


def embedding_seconds(summary: RunSummary) -> float:
    stage = next(stage for stage in summary.stages if stage.name == "image_embedding")
    return stage.busy_s + stage.waiting_for_input_s + stage.waiting_for_output_s


def write_shards(folder: Path, images: int, pictures: list[bytes], per_shard: int = 40) -> Path:
    folder.mkdir()
    for start in range(0, images, per_shard):
        with tarfile.open(folder / f"{start:06d}.tar", "w") as tar:
            for number in range(start, min(start + per_shard, images)):
                for extension, content in (("jpg", pictures[number % len(pictures)]), ("txt", b"a caption")):
                    info = tarfile.TarInfo(f"{number:06d}.{extension}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return folder


if __name__ == "__main__":
    main()
