"""What tests of whole runs at URLs share: shards, a run, and the files that it left."""

import io

import pyarrow.parquet as pq
import pytest
from conftest import make_tar

from tastemaker.runs.run import RunOptions, run_scoring
from tastemaker.storage import output_path

PATHS = ["image_path", "shard", "tar_file"]


@pytest.fixture
def shards(tmp_path, photographs):
    small = {name: photographs[name] for name in ("chelsea.png", "rocket.jpg")}
    (tmp_path / "shards").mkdir()
    for n in range(3):
        members = [(f"{n}{name}", body) for name, body in small.items()]
        members += [(f"{n}{name.partition('.')[0]}.txt", b"caption") for name in small]
        make_tar(tmp_path / "shards" / f"{n}.tar", [*members, (f"{n}bad.jpg", b"no image")])
    return tmp_path / "shards"


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
