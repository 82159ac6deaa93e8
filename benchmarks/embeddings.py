"""Scoring embeddings that exist already (float16, 768 numbers, a .npy file in memory), against reading the file.

    python benchmarks/embeddings.py [--rows 1000000] [--runs 5]

Prints the machine, medians of alternating runs and ratios. "layers" is the predictor as its authors run it, in NumPy.
"score" is `tastemaker score` end to end, but for the start of Python: reading, checks, scores, rows on disk. The
folder is one of clip-retrieval: the same embeddings with a Parquet file of keys, URLs, captions and sizes.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import alternate, print_machine, print_rates

from tastemaker.models.aesthetic import AestheticPredictor
from tastemaker.models.hub import weights_path
from tastemaker.models.published.laion_v2 import AESTHETIC_PREDICTOR
from tastemaker.runs.run import RunOptions, run_scoring
from tastemaker.testing import write_random_models


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    print_machine("numpy", "openvino")
    with tempfile.TemporaryDirectory() as folder:
        path = write_embeddings(Path(folder) / "embeddings.npy", arguments.rows)
        retrieval = make_clip_retrieval(path, arguments.rows)
        model_dir = write_random_models(Path(folder) / "models")
        predictor = AestheticPredictor.from_file(weights_path(AESTHETIC_PREDICTOR, model_dir))
        actions = {
            "reading the file": lambda: np.load(path),
            "tastemaker": lambda: predictor.score(np.load(path, mmap_mode="r")),
            "score, rows written": lambda: score(path, model_dir),
            "score, a clip-retrieval folder": lambda: score(retrieval, model_dir),
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


def make_clip_retrieval(path: Path, rows: int) -> Path:
    """Make a folder in which the embeddings have metadata, and return it."""
    root = path.parent / "retrieval"
    (root / "img_emb").mkdir(parents=True)
    (root / "metadata").mkdir()
    (root / "img_emb" / "img_emb_0.npy").hardlink_to(path)
    columns = {
        "key": [f"{row:09d}" for row in range(rows)],
        "url": [f"https://example.com/{row % 997}/pictures/{row}.jpg" for row in range(rows)],
        "caption": [f"a photograph of number {row} in a series" for row in range(rows)],
        "width": np.arange(rows) % 2000,
        "height": np.arange(rows) % 1500,
        "similarity": np.random.default_rng(0).random(rows),
    }
    pq.write_table(pa.table(columns), root / "metadata" / "metadata_0.parquet")
    return root


def score(path: Path, model_dir: Path) -> None:
    with tempfile.TemporaryDirectory() as output:
        run_scoring([str(path)], Path(output), RunOptions(model_dir=str(model_dir)))


def score_by_layers(predictor: AestheticPredictor, embeddings: np.ndarray) -> None:
    for start in range(0, len(embeddings), 20_000):
        x = np.asarray(embeddings[start : start + 20_000], np.float32)
        for weight, bias in predictor.layers:
            x = x @ weight.astype(np.float32).T + bias.astype(np.float32)


if __name__ == "__main__":
    main()
