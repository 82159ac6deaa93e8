"""What the driver of a run over a billion images holds: 100,000 fake shards, from the listing to the last result.

    python benchmarks/scale.py [--shards 100000] [--workers 256]

Makes empty shards in a temporary folder, and plays a whole run without an engine: partitioning, tasks to the ledger,
every task begun and finished, every result fetched. Prints times and the memory of this process, which is driver and
ledger in one here; on a cluster they are two.
"""

import argparse
import pickle
import re
import tempfile
import time
from pathlib import Path

from tastemaker.executors.ledger import Ledger
from tastemaker.executors.plan import group_tasks

from tastemaker.executors.timing import StageTiming
from tastemaker.machine import describe_machine
from tastemaker.stages.partition import FilePartitioningStage
from tastemaker.tasks import FileGroupTask

STAGES = ("image_reader", "image_embedding", "image_aesthetic_filter", "image_writer")
IMAGES_PER_SHARD = 10_000


def memory_mb():
    """Return the resident memory of this process now."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def make_result(task):
    """Return what the writer returns for a shard of 10,000 images of which half are kept."""
    name, counts = task._metadata["partition"], {"kept": IMAGES_PER_SHARD // 2, "dropped": IMAGES_PER_SHARD // 2}
    files = [f"/results/{name}-{number:06d}.tar" for number in range(5)] + [f"/results/{name}.parquet"]
    provenance = {"options": {}, "clip_sha256": "0" * 64, "predictor_sha256": "0" * 64, "versions": "x" * 300}
    metadata = {**task._metadata, "provenance": provenance, "counts": counts, "batch_index": 312, "is_last_batch": True}
    return [FileGroupTask(task.dataset_name, files, [], metadata, f"{task.task_id}_312")]


def play(payloads, workers):
    """Begin and finish every task, fetching results as the driver does. Return the results, bytes and seconds."""
    ledger = Ledger()
    for start in range(0, len(payloads), 1000):
        ledger.add(payloads[start : start + 1000])
    payloads.clear()
    numbers, _ = ledger.start_run([])
    timings, results = [StageTiming(stage, busy_s=1.0) for stage in STAGES], {}
    started = time.perf_counter()
    for portion in group_tasks(numbers, workers):
        for number in portion:
            worker = f"worker-{number % workers}"
            task = pickle.loads(ledger.begin(number, worker).payload)
            counts = dict.fromkeys(STAGES, (IMAGES_PER_SHARD, 10**9))
            ledger.pulse(worker, {number: counts}, timings, [])
            ledger.finish(number, pickle.dumps(make_result(task)), counts)
        if portion[0] % 1000 < len(portion):
            results.update({n: pickle.loads(data) for n, data in ledger.collect().results.items()})
    results.update({n: pickle.loads(data) for n, data in ledger.collect().results.items()})
    return results, ledger.bytes_crossed(), time.perf_counter() - started


def main():
    """Print each step's time and the memory after it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=256)
    arguments = parser.parse_args()
    machine = describe_machine()
    print(f"{machine['processor']}, {machine['cores']} cores; {arguments.shards} shards, {arguments.workers} workers")
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
    started = time.perf_counter()
    payloads = [pickle.dumps(task) for task in tasks]
    size = sum(map(len, payloads))
    print(f"{'tasks as bytes':34} {time.perf_counter() - started:8.2f} {memory_mb():11.0f}")
    results, crossed, seconds = play(payloads, arguments.workers)
    print(f"{'ledger: begin, report, finish, fetch':36} {seconds:6.2f} {memory_mb():11.0f}")
    print(f"a task {size / len(tasks):.0f} bytes; {seconds / len(results) * 1e6:.0f} us in all for each")
    print(
        f"{crossed / len(results):.0f} bytes for each shard, {crossed / len(results) / IMAGES_PER_SHARD:.3f} an image"
    )


if __name__ == "__main__":
    main()
