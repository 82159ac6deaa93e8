"""What more scorers cost: three heads on one backbone against one, beside the time of the embedding.

    python benchmarks/scorers.py [--runs 5]

A batch of 32 images goes through ImageEmbeddingStage (random weights of the real dimensions of CLIP ViT-L/14) and then
through ImageAestheticFilterStage, with laion-v2 alone and with laion-v2, laion-v2-ava-relu and nsfw. Needs torch, which
writes the .pth files of the heads.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from common import print_machine

from tastemaker import ImageAestheticFilterStage, ImageBatch, ImageEmbeddingStage, ImageObject
from tastemaker.testing import VIT_L14, write_random_models

SCORERS = ("laion-v2", "laion-v2-ava-relu", "nsfw")
BATCH = 32


def median_seconds(stage, images, runs):
    """Return the median time of a stage over a batch, after a first call that is not counted."""
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        stage.process(ImageBatch(data=list(images), dataset_name="bench"))
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main():
    """Print the times, and what two more heads cost of the whole."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    print_machine()
    rng = np.random.default_rng(0)
    images = [ImageObject(image_id=str(n)) for n in range(BATCH)]
    for image in images:
        image.image_data = rng.integers(0, 256, (224, 224, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        models = str(write_random_models(Path(folder), VIT_L14, scorer=SCORERS))
        embed = median_seconds(ImageEmbeddingStage(models), images, arguments.runs)
        one, three = (
            median_seconds(
                ImageAestheticFilterStage(models, score_threshold=None, scorer=names), images, arguments.runs
            )
            for names in (SCORERS[:1], SCORERS)
        )
    print(
        f"a batch of {BATCH}: embedding {embed * 1e3:.1f} ms, one head {one * 1e3:.2f} ms, three {three * 1e3:.2f} ms"
    )
    print(f"three heads cost {(three - one) / (embed + one):.3%} more than one")


if __name__ == "__main__":
    main()
