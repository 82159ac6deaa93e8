"""What stored embeddings are good for, at a million rows: new scores, a search by words, a taste from ratings.

    python benchmarks/rescore.py [--rows 1000000] [--runs 3] [--against ../before/src]

Makes rows with random embeddings of 768 numbers in float16, 100,000 a file, and times each step in a process that has
read nothing before, and again. The models have random weights of the real dimensions where they are used. With
``--against``, scoring again and a first search run in new processes, by this source and another in turns.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from common import alternate, print_machine, print_rates
from safetensors.numpy import save_file

from tastemaker import ScoreTable, TextTower, rescore
from tastemaker.explorer.learned import OwnTaste
from tastemaker.models.hub import weights_path
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
from tastemaker.scores.files import RowsFile
from tastemaker.scores.neighbours import nearest_rows
from tastemaker.scores.schema import rows_schema
from tastemaker.testing import random_predictor, random_text_tower, write_random_models, write_tokenizer

ROWS_PER_FILE = 100_000


def make_rows(folder, count):
    """Write rows with random unit embeddings, and return their directory."""
    rng, schema = np.random.default_rng(0), rows_schema(with_embeddings=True, with_signals=False)
    for start in range(0, count, ROWS_PER_FILE):
        number = min(ROWS_PER_FILE, count - start)
        vectors = rng.standard_normal((number, 768), np.float32)
        vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
        names = [f"{row:08d}" for row in range(start, start + number)]
        columns = {
            "image_id": pa.array(names),
            "image_path": pa.array([f"/photos/{name}.jpg" for name in names]),
            "status": pa.array(["kept"] * number),
            "aesthetic_score": pa.array(rng.normal(5, 0.8, number).astype(np.float32)),
            "embedding": pa.ListArray.from_arrays(
                np.arange(0, number * 768 + 1, 768, np.int32), vectors.ravel(), schema.field("embedding").type
            ),
        }
        table = pa.table([columns.get(f.name, pa.nulls(number, f.type)) for f in schema], schema=schema)
        rows = RowsFile(folder / "rows" / f"{start:09d}.parquet", schema.with_metadata({b"tastemaker": b"{}"}))
        for first in range(0, number, 4096):
            rows.add_rows(table.slice(first, 4096))
        rows.commit()
    (folder / "_tastemaker").mkdir()
    return folder


def measure(name, count, runs, work):
    """Print the median time of a piece of work, and what that is a row."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    middle = statistics.median(times)
    rate = f", {count / middle:,.0f} rows/s" if count else ""
    print(f"{name}: median {middle:.2f} s of {runs} ({', '.join(f'{t:.2f}' for t in times)}){rate}", flush=True)


def compare(folder, rows, runs, before):
    """Print the rates of this source and of another one."""
    sources = {"before": before, "now": Path(__file__).resolve().parents[1] / "src"}
    for number in range(runs + 1):
        save_file(random_predictor(768, np.random.default_rng(number)), folder / f"{number}.safetensors")

    def step(name, *arguments):
        command = [sys.executable, __file__, "--step", *map(str, arguments)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(sources[name])})

    numbers = {name: iter(range(runs + 1)) for name in sources}
    for name in sources:
        step(name, "make", folder / name, rows)
    steps = {
        "rescore": lambda name: step(name, "rescore", folder / name, folder / f"{next(numbers[name])}.safetensors"),
        "first search": lambda name: step(name, "search", folder / name, 768),
    }
    for title, work in steps.items():
        rates = alternate({name: partial(work, name) for name in sources}, runs, rows)
        print_rates(title, rates, "before", "rows/s, the start of a process included")


def take_step(name, folder, argument):
    """Do one step in this process."""
    if name == "make":
        make_rows(Path(folder), int(argument))
    elif name == "rescore":
        rescore(folder, argument)
    else:
        nearest_rows(ScoreTable(folder), np.random.default_rng(0).standard_normal(int(argument)), 50)


def main():
    """Print each step's time, and the memory at the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--against", type=Path, help="the folder src of another state of the project")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        take_step(*arguments.step)
        return
    print_machine("pyarrow", "numpy", "openvino")
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.against:
            compare(Path(temporary), arguments.rows, arguments.runs, arguments.against.resolve())
            return
        folder, models = Path(temporary), write_random_models(Path(temporary) / "models")
        weights = weights_path(CLIP_VIT_L14, models)
        save_file(random_text_tower(np.random.default_rng(0), width=768, layers=12, mlp=3072, words=49408), weights)
        write_tokenizer(weights.with_name("tokenizer.json"))
        start = time.perf_counter()
        scores = make_rows(folder / "scores", arguments.rows)
        size = sum(file.stat().st_size for file in scores.rglob("*.parquet")) / 1e9
        print(f"{arguments.rows:,} rows, {size:.2f} GB, made in {time.perf_counter() - start:.0f} s")
        heads = [folder / f"head{number}.safetensors" for number in range(arguments.runs + 3)]
        for number, path in enumerate(heads):
            save_file(random_predictor(768, np.random.default_rng(number)), path)
        left = iter(heads)
        measure("rescore, one column more", arguments.rows, arguments.runs, lambda: rescore(scores, next(left)))
        measure("rescore, three columns more", arguments.rows, 1, lambda: rescore(scores, list(left)))
        measure("rescore, nothing to do", arguments.rows, arguments.runs, lambda: rescore(scores, heads))
        measure("text tower, load", 0, arguments.runs, lambda: TextTower(weights, weights.with_name("tokenizer.json")))
        tower = TextTower(weights, weights.with_name("tokenizer.json"))
        measure("text tower, one text", 0, arguments.runs, lambda: tower.embed(["boats at sunset"]))
        table, query = ScoreTable(scores), tower.embed(["boats at sunset"])[0]
        measure("nearest rows", arguments.rows, arguments.runs, lambda: nearest_rows(table, query, 50))
        rng, ratings = np.random.default_rng(1), np.zeros(arguments.rows, np.int8)
        ratings[rng.choice(arguments.rows, 200, replace=False)] = rng.integers(1, 6, 200)
        own = OwnTaste(table, folder / "ratings.sqlite", lambda: ratings, str(models))
        measure("learn from 200 ratings", 0, arguments.runs, own.learn)
        measure("a dozen to rate", 0, arguments.runs, own.next_rows)
    print(f"largest memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB")


if __name__ == "__main__":
    main()
