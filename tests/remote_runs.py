"""What tests of whole runs at URLs share: shards, a run, and the files that it left."""

import io

import pyarrow.parquet as pq
import pytest
from conftest import make_shards

from tastemaker.runs.run import RunOptions, run_scoring
from tastemaker.storage import output_path

PATHS = ["image_path", "shard", "tar_file"]


@pytest.fixture
def shards(tmp_path, photographs):
    files = [(name, photographs[name]) for name in ("chelsea.png", "rocket.jpg")]
    files += [("chelsea.txt", b"caption"), ("rocket.txt", b"caption"), ("bad.jpg", b"no image")]
    return make_shards(tmp_path / "shards", ([(f"{n}{name}", body) for name, body in files] for n in range(3)))


def run(inputs, output, model_dir, cloud=None, mode=None, **options):
    chosen = RunOptions(model_dir=str(model_dir), storage_options=cloud.options if cloud else None, **options)
    return run_scoring(inputs, output_path(output, chosen.storage_options), chosen, mode)


def rows_of(files):
    """Name -> rows without paths, of the Parquet files among some files."""
    tables = {name: pq.read_table(io.BytesIO(body)) for name, body in files.items() if name.endswith(".parquet")}
    return {name: table.drop_columns(PATHS).to_pylist() for name, table in tables.items()}


def tars_of(files):
    return {name: body for name, body in files.items() if name.endswith(".tar")}


def local_files(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and "lock" not in p.name
    }
