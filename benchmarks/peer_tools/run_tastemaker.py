"""tastemaker: what `tastemaker score` runs (run_scoring, which writes every row), at its defaults but the precision.

The command loads its model in every run. Here it is loaded once and kept, as the others' are.
"""

import tempfile
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq
from protocol import serve

from tastemaker.models.hub import ensure_weights
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
from tastemaker.runs.run import RunOptions, run_scoring
from tastemaker.stages import embed

embed.load_clip = cache(embed.load_clip)


def load(options):
    run = RunOptions(model_dir=str(options.weights), precision=options.precision)
    weights = ensure_weights(CLIP_VIT_L14, run.model_dir)
    tower = embed.load_clip(weights, run.device, run.precision, run.threads, run.batch_size)  # as the stage calls it

    def score(folder):
        with tempfile.TemporaryDirectory() as output:
            run_scoring([str(folder)], Path(output), run)
            return read_scores(Path(output))

    return score, f"{tower.precision}, {tower.describe()['device']}, rows with embeddings written"


def read_scores(output):
    """Return the scores by key. Reading the rows back is in the time: a few milliseconds."""
    tables = [pq.read_table(file, columns=["image_id", "aesthetic_score"]) for file in output.rglob("*.parquet")]
    return {row["image_id"]: row["aesthetic_score"] for table in tables for row in table.to_pylist()}


if __name__ == "__main__":
    serve(load)
