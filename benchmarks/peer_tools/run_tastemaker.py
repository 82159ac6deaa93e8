"""tastemaker: what `tastemaker score` runs (run_scoring, which writes every row), at its defaults but the precision.

The command loads its model in every run. Here it is loaded once and kept, as the others' are.
"""

import tempfile
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq
from protocol import serve

from tastemaker.scores.run import RunOptions, run_scoring
from tastemaker.stages import embed

embed.load_clip = cache(embed.load_clip)


def load(options):
    run = RunOptions(model_dir=str(options.weights), precision=options.precision)

    def score(folder):
        with tempfile.TemporaryDirectory() as output:
            run_scoring([str(folder)], Path(output), run)
            return read_scores(Path(output))

    return score, "rows written, embeddings too"


def read_scores(output):
    """Return the scores by key. Reading the rows back is in the time: a few milliseconds."""
    tables = [pq.read_table(file, columns=["image_id", "aesthetic_score"]) for file in output.rglob("*.parquet")]
    return {row["image_id"]: row["aesthetic_score"] for table in tables for row in table.to_pylist()}


if __name__ == "__main__":
    serve(load)
