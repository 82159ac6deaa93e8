"""What tests of whole runs at URLs share: shards, a run, and the files that it left."""

import io

import pyarrow.parquet as pq
import pytest
from conftest import make_shards

from tastemaker.runs.run import RunOptions, run_scoring
from tastemaker.scores.cutoff import Top
from tastemaker.selections.filter import filter_images
from tastemaker.selections.selection import Selection

PATHS = {"image_path", "shard", "tar_file"}


@pytest.fixture(scope="session")
def shards(tmp_path_factory, photographs):
    files = [(name, photographs[name]) for name in ("chelsea.png", "rocket.jpg")]
    files += [("chelsea.txt", b"caption"), ("rocket.txt", b"caption"), ("bad.jpg", b"no image")]
    folder = tmp_path_factory.mktemp("remote") / "shards"
    return make_shards(folder, ([(f"{n}{name}", body) for name, body in files] for n in range(3)))


@pytest.fixture(scope="session")
def kept_here(tmp_path_factory, shards, model_dir):
    """The files of a local run over the shards, with the best four of their pictures."""
    folder = tmp_path_factory.mktemp("local")
    keep([str(shards)], folder / "out", model_dir, top=4)
    return local_files(folder / "out")


def run(inputs, output, model_dir, cloud=None, mode=None, **options):
    chosen = RunOptions(model_dir=str(model_dir), storage_options=cloud.options if cloud else None, **options)
    return run_scoring(inputs, output, chosen, mode)


def keep(inputs, output, model_dir, cloud=None, top=None, kind="webdataset", **options):
    """Score, then copy the originals of the best, or of all that can be read."""
    chosen = RunOptions(model_dir=str(model_dir), storage_options=cloud.options if cloud else None, **options)
    selection = Selection(top=Top(count=top)) if top else Selection(where="status = 'kept'")
    return filter_images(inputs, output, selection, chosen, kind=kind)


def rows_of(files):
    """Name -> rows without paths, of the rows files among the files of an output."""
    bodies = {name.removeprefix("rows/"): body for name, body in files.items() if name.startswith("rows/")}
    tables = {name: pq.read_table(io.BytesIO(body)) for name, body in bodies.items()}
    return {name: table.drop_columns([*PATHS & {*table.column_names}]).to_pylist() for name, table in tables.items()}


def tars_of(files):
    return {name: body for name, body in files.items() if name.endswith(".tar")}


def local_files(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock"
    }
