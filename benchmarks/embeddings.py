"""Scoring embeddings that exist already (float16, 768 numbers, a .npy file in memory), against reading the file.

    python benchmarks/embeddings.py [--rows 1000000] [--runs 5]

Prints the machine, medians of alternating runs and ratios. "layers" is the predictor as its authors run it, in NumPy.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from common import alternate, print_machine, print_rates

from tastemaker.models.aesthetic import AestheticPredictor
from tastemaker.models.hub import AESTHETIC_PREDICTOR, weights_path
from tastemaker.testing import write_random_models


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    print_machine("numpy", "openvino")
    with tempfile.TemporaryDirectory() as folder:
        path = write_embeddings(Path(folder) / "embeddings.npy", arguments.rows)
        model_dir = write_random_models(Path(folder) / "models")
        predictor = AestheticPredictor.from_file(weights_path(AESTHETIC_PREDICTOR, model_dir))
        actions = {
            "reading the file": lambda: np.load(path),
            "tastemaker": lambda: predictor.score(np.load(path, mmap_mode="r")),
            "layers, 20,000 rows at a time": lambda: score_by_layers(predictor, np.load(path, mmap_mode="r")),
        }
        print_rates("embeddings", alternate(actions, arguments.runs, arguments.rows), "reading the file", "rows/s")


def write_embeddings(path: Path, rows: int) -> Path:
    rng = np.random.default_rng(0)
    file = np.lib.format.open_memmap(path, "w+", np.float16, (rows, 768))
    for start in range(0, rows, 50_000):
        block = rng.standard_normal((min(50_000, rows - start), 768), np.float32)
        file[start : start + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return path


def score_by_layers(predictor: AestheticPredictor, embeddings: np.ndarray) -> None:
    for start in range(0, len(embeddings), 20_000):
        predictor.score_by_layers(embeddings[start : start + 20_000])


if __name__ == "__main__":
    main()
