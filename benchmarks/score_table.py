"""The score table at 10 million rows: opening, a summary, cuts, a query, a recipe, and the memory that it takes.

    python benchmarks/score_table.py [--rows 10000000] [--rows-per-file 10000] [--runs 5] [--folder DIR] [--embeddings]

Makes the rows as runs write them, with every column filled: captions of 12 words, JSON, two sidecars each, 2% failed
for one of four reasons, a third dropped by a cut. Embeddings (15 GB for 10 million rows) only with --embeddings, random
float16. With --folder the rows are made there, or taken from there if they are there. Every run is its own process;
the processor time of one says what a busy machine would have taken alone.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from common import print_machine

from tastemaker.scores.files import ROW_GROUP_ROWS, RowsFile
from tastemaker.scores.schema import embedding_column, rows_schema

WORDS = ("a", "the", "of", "in", "on", "with", "red", "blue", "old", "new", "house", "tree", "river", "woman", "dog")
FAILURES = (
    "unreadable: image file is truncated (17 bytes not processed)",
    "unreadable: not an image: it starts with b'<html'",
    "unreadable: no image among the members of this key",
    "unreadable: 40,000 x 40,000 pixels are too many",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rows-per-file", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--embeddings", action="store_true")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure)))
        return
    print_machine("duckdb", "pyarrow", "numpy")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        if not any(folder.glob("*.parquet")):
            make_rows(folder, arguments)
        files = list(folder.glob("*.parquet"))
        size = sum(file.stat().st_size for file in files)
        print(f"{arguments.rows:,} rows in {len(files):,} files, {size / 1e9:.2f} GB")
        report([run_apart(folder) for _ in range(arguments.runs)])


def report(runs: list[dict[str, float]]) -> None:
    print(f"\nmedian (range) of {len(runs)} processes")
    for name in runs[0]:
        values = [run[name] for run in runs]
        unit = "MiB" if name.startswith("peak") else "" if name.startswith("rows") else "s"
        print(f"  {name:32} {statistics.median(values):8.2f} {unit}  ({min(values):.2f} to {max(values):.2f})")


def run_apart(folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", str(folder)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(folder: Path) -> dict[str, float]:
    from tastemaker import ScoreTable, Selection
    from tastemaker.selections.selection import choose_rows

    started, before = time.perf_counter(), time.process_time()
    figures: dict[str, float] = {}

    def note(name: str) -> None:
        nonlocal started, before
        figures[name] = time.perf_counter() - started
        figures[f"{name}: processor time"] = time.process_time() - before
        started, before = time.perf_counter(), time.process_time()

    table = ScoreTable(folder)
    note("open")
    table.summary()
    note("summary")
    figures["open and summary"] = figures["open"] + figures["summary"]
    figures["peak memory, summary"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    table.cutoff(top=0.2)
    note("cut-off, top 20%")
    table.cutoff(keep=1_000_000, where="width >= 512 and height >= 512")
    note("cut-off with a condition")
    table.query("SELECT row_id, image_path FROM rows ORDER BY aesthetic_score DESC NULLS LAST LIMIT 100")
    note("the best 100")
    steps = ("width >= 512 and height >= 512", "json ->> 'license' IS NULL", "aesthetic_score top 20% per shard")
    chosen = choose_rows(table, Selection(recipe=steps))
    note("a recipe of three steps and its funnel")
    figures["rows that it leaves"] = len(chosen)
    figures["peak memory, all"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return figures


def make_rows(folder: Path, arguments: argparse.Namespace) -> None:
    rng = np.random.default_rng(0)
    for number in range(-(-arguments.rows // arguments.rows_per_file)):
        rows = min(arguments.rows_per_file, arguments.rows - number * arguments.rows_per_file)
        provenance = {"tastemaker": "benchmark", "sources": str(number)}
        schema = rows_schema(with_embeddings=arguments.embeddings, with_signals=False, provenance=provenance)
        file = RowsFile(folder / f"{number:05}.parquet", schema)
        columns = make_columns(rng, number, rows)
        if arguments.embeddings:
            values = (rng.standard_normal((rows, 768), np.float32) * 768**-0.5).astype(np.float16)
            columns["embedding"] = embedding_column(values.ravel(), np.full(rows, 768))
        others = {f.name: pa.nulls(rows, f.type) for f in schema if f.name not in columns}
        table = pa.table([others.get(f.name, columns.get(f.name)) for f in schema], schema=schema)
        for start in range(0, rows, ROW_GROUP_ROWS):
            file.add_rows(table.slice(start, ROW_GROUP_ROWS))
        file.commit()


def make_columns(rng: np.random.Generator, number: int, rows: int) -> dict[str, object]:
    keys = [f"{number:05}{row:06}" for row in range(rows)]
    shard = f"s3://bucket/dataset/{number:05}.tar"
    scores = rng.normal(5.3, 0.8, rows).astype(np.float32)
    failed = rng.random(rows) < 0.02
    dropped = ~failed & (scores < 5)
    sizes = rng.integers(20_000, 400_000, rows)
    offsets = np.cumsum(sizes + 2048)
    words = rng.choice(WORDS, (rows, 12))
    reasons = np.where(failed, rng.choice(FAILURES, rows), [f"aesthetic_score {s:.3f} is below 5" for s in scores])
    status = np.where(failed, "failed", np.where(dropped, "dropped", "kept"))
    return {
        "image_id": keys,
        "image_path": [f"{shard}/{key}.jpg" for key in keys],
        "shard": [shard] * rows,
        "offset": offsets,
        "size": sizes,
        "width": pa.array(rng.choice([512, 640, 768, 1024, 1280, 2048], rows), mask=failed),
        "height": pa.array(rng.choice([384, 480, 512, 768, 1024], rows), mask=failed),
        "format": pa.array(["JPEG"] * rows, mask=failed),
        "aesthetic_score": pa.array(scores, mask=failed),
        "status": status,
        "reason": pa.array(reasons, mask=status == "kept"),
        "caption": [" ".join(line) for line in words],
        "json": [f'{{"url": "https://example.org/{key}.jpg", "similarity": 0.{key[-4:]}}}' for key in keys],
        "sidecars": [
            [
                {"extension": "txt", "member": f"{key}.txt", "offset": offset + 1, "size": 60},
                {"extension": "json", "member": f"{key}.json", "offset": offset + 2, "size": 90},
            ]
            for key, offset in zip(keys, offsets.tolist(), strict=True)
        ],
        "metadata": [None] * rows,
        "tar_file": [None] * rows,
        "member_name": [None] * rows,
    }


if __name__ == "__main__":
    main()
