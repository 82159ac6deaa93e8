"""How long a run takes to see that there is nothing left to do, with 100,000 finished shards.

Makes shards that are empty files and their rows files (small, but with everything in their metadata), then times, each
in a process of its own: the check with notes of an earlier run, the check without, the whole ``tastemaker score``, and
what it was before: one ``pyarrow.parquet.read_schema`` for each file.

    python benchmarks/resume.py [--shards 100000] [--runs 3] [--folder DIR]
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from common import print_machine

from tastemaker.imaging.decode import MAX_IMAGE_PIXELS
from tastemaker.runs.fingerprint import make_fingerprint
from tastemaker.runs.index import RowsIndex
from tastemaker.runs.matching import describe_sources, match_inputs
from tastemaker.runs.options import RunMode, RunOptions
from tastemaker.runs.recipe import make_stages
from tastemaker.runs.resume import make_plan
from tastemaker.scores.files import RowsFile
from tastemaker.scores.schema import METADATA_KEY, SOURCES_KEY, rows_schema
from tastemaker.stages.partition import FilePartitioningStage
from tastemaker.storage.inputs import source_of
from tastemaker.storage.place import Place
from tastemaker.tasks import Partition
from tastemaker.testing import write_random_models


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to make them; kept, and used again")
    parser.add_argument("--step", choices=["check", "before"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps({"check": check, "before": before}[arguments.step](arguments.folder)))
        return
    print_machine("pyarrow")
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="tastemaker-resume-"))
    try:
        make(folder, arguments.shards)
        print(
            f"\n{arguments.shards:,} finished shards, seconds, median (range) of {arguments.runs} runs, each a process"
        )
        notes = folder / "out" / "_tastemaker"
        rows = {
            "check, first time (no notes)": [],
            "check": [],
            "tastemaker score": [],
            "read_schema of each (before)": [],
        }
        for _ in range(arguments.runs):
            shutil.rmtree(notes, ignore_errors=True)
            rows["check, first time (no notes)"].append(step(folder, "check"))
            rows["check"].append(step(folder, "check"))
            rows["tastemaker score"].append(whole(folder))
            rows["read_schema of each (before)"].append(step(folder, "before"))
        for name in rows:
            seconds = [sum(run.values()) for run in rows[name]]
            parts = {part: statistics.median(run[part] for run in rows[name]) for part in rows[name][0]}
            detail = ", ".join(f"{part} {value:.1f}" for part, value in parts.items()) if len(parts) > 1 else ""
            print(f"  {name:30} {statistics.median(seconds):6.1f} ({min(seconds):.1f} to {max(seconds):.1f})  {detail}")
        print(f"  largest memory of tastemaker score: {max_rss():,.0f} MB")
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder)


def make(folder, shards):
    """Make what is missing: shards of no bytes, and rows files as a run leaves them."""
    (folder / "shards").mkdir(parents=True, exist_ok=True)
    (folder / "out" / "rows").mkdir(parents=True, exist_ok=True)
    write_random_models(folder / "models")
    fingerprint = make_fingerprint(make_stages(Place.of(folder / "out"), options(folder)))
    schema = rows_schema(with_embeddings=True, with_signals=False)
    empty = {field.name: None for field in schema} | {"status": "kept", "aesthetic_score": 5.0}
    table = pa.Table.from_pylist([empty | {"image_id": str(n)} for n in range(10)], schema)
    for number in range(shards):
        shard, rows = (
            folder.resolve() / "shards" / f"{number:06d}.tar",
            folder / "out" / "rows" / f"{number:06d}.parquet",
        )
        if rows.exists():
            continue
        shard.touch()
        metadata = {
            METADATA_KEY: json.dumps({"tastemaker": "0", "fingerprint": fingerprint}).encode(),
            SOURCES_KEY: json.dumps(
                describe_sources(Partition(root=str(folder / "shards"), files=(source_of(Place.of(shard)),)))
            ).encode(),
        }
        file = RowsFile(rows, schema.with_metadata(metadata))
        file.add_rows(table)
        file._flush()
        fsync, os.fsync = os.fsync, lambda _: None
        try:
            file.commit()
        finally:
            os.fsync = fsync


def options(folder):
    return RunOptions(model_dir=str(folder / "models"))


def step(folder, name):
    command = [sys.executable, __file__, "--step", name, "--folder", str(folder)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def whole(folder):
    command = [sys.executable, "-m", "tastemaker", "score", str(folder / "shards"), "-o", str(folder / "out"), "--json"]
    started = time.perf_counter()
    command += ["--model-dir", str(folder / "models")]
    summary = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert summary["images_scored_now"] == 0, summary
    return {"all": time.perf_counter() - started}


def max_rss():
    import resource

    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def check(folder):
    """Return the seconds of each step of the check."""
    times, started = {}, time.perf_counter()

    def lap(name):
        nonlocal started
        times[name] = time.perf_counter() - started
        started = time.perf_counter()

    groups = FilePartitioningStage(str(folder / "shards")).process()
    lap("find shards")
    fingerprint = make_fingerprint(make_stages(Place.of(folder / "out"), options(folder)))
    lap("fingerprint")
    index = RowsIndex(Place.of(folder / "out"))
    index.load()
    lap("list and notes")
    plan = make_plan(match_inputs(groups, index), index, fingerprint, RunMode(), MAX_IMAGE_PIXELS)
    lap("compare")
    index.save(index.names())
    lap("save notes")
    assert not plan.changed
    return times


def before(folder):
    """Return the seconds of one read_schema and the stats for each file, as it was done before."""
    groups = FilePartitioningStage(str(folder / "shards")).process()
    started = time.perf_counter()
    for group in groups:
        path = folder / "out" / "rows" / f"{group.partition.name}.parquet"
        if path.exists():
            os.stat(group.data[0])
            json.loads(pq.read_schema(path).metadata[METADATA_KEY])
    return {"read_schema": time.perf_counter() - started}


if __name__ == "__main__":
    main()
