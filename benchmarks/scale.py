"""What the driver of a run over a billion images holds: 100,000 fake shards, from the listing to the last result.

    python benchmarks/scale.py [--shards 100000]

Makes empty shards in a temporary folder, and plays a whole run without an engine: partitioning, every task handed out
and every result taken. Prints times and the memory of this process.
"""

import argparse
import pickle
import re
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from tastemaker import FileGroupTask, FilePartitioningStage, ImageReaderStage, RayDataExecutor
from tastemaker.executors.base import StageCount
from tastemaker.executors.pool import ActorPool
from tastemaker.executors.timing import StageTiming
from tastemaker.machine import describe_machine

STAGES = ("image_reader", "image_embedding", "image_aesthetic_filter", "image_writer")
IMAGES_PER_SHARD = 10_000


def memory_mb():
    """Return the resident memory of this process now."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def make_result(task):
    """Return what the writer returns for a shard of 10,000 images of which half are kept."""
    name, counts = task.partition.name, {"kept": IMAGES_PER_SHARD // 2, "dropped": IMAGES_PER_SHARD // 2}
    files = [f"/results/{name}-{number:06d}.tar" for number in range(5)] + [f"/results/{name}.parquet"]
    provenance = {"options": {}, "clip_sha256": "0" * 64, "predictor_sha256": "0" * 64, "versions": "x" * 300}
    partition = replace(task.partition, provenance=provenance)
    metadata = {**task._metadata, "counts": counts, "batch_index": 312}
    return [FileGroupTask(task.dataset_name, files, [], metadata, f"{task.task_id}_312", partition=partition)]


def play(tasks):
    """Hand out every task and take its results, as the driver of a run on Ray does. Return bytes and seconds."""
    executor = RayDataExecutor()
    pool = ActorPool(executor, [ImageReaderStage().with_(name=name) for name in STAGES])
    counts = [StageCount(stage, IMAGES_PER_SHARD, 10**9) for stage in STAGES]
    timings, crossed = [StageTiming(stage, busy_s=1.0) for stage in STAGES], 0
    started = time.perf_counter()
    for task in tasks:
        payload = pickle.dumps(task)
        done = pickle.dumps((pickle.dumps(make_result(pickle.loads(payload))), counts, timings))
        pool.take(pickle.loads(done))
        crossed += len(payload) + len(done)
    return crossed, time.perf_counter() - started


def main():
    """Print each step's time and the memory after it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=100_000)
    arguments = parser.parse_args()
    machine = describe_machine()
    print(f"{machine['processor']}, {machine['cores']} cores; {arguments.shards} shards")
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.shards):
            folder_of_it = Path(folder, f"{number // 1000:03d}")
            folder_of_it.mkdir(exist_ok=True)
            (folder_of_it / f"{number:06d}.tar").touch()
        print(f"{'step':34} {'seconds':>8} {'memory, MB':>11}")
        print(f"{'start':34} {'':8} {memory_mb():11.0f}")
        started = time.perf_counter()
        tasks = FilePartitioningStage(folder).process()
        print(f"{'listing and partitioning':34} {time.perf_counter() - started:8.2f} {memory_mb():11.0f}")
    crossed, seconds = play(tasks)
    print(f"{'handed out, done, and taken':34} {seconds:8.2f} {memory_mb():11.0f}")
    print(f"{seconds / len(tasks) * 1e6:.0f} us and {crossed / len(tasks):.0f} bytes for each shard")


if __name__ == "__main__":
    main()
