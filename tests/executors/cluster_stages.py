"""Stages that tell, through files, what happened to them in worker processes; and data sets for clusters."""

import atexit
import os
import random
import re
import signal
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from conftest import encode, make_tar

from tastemaker import (
    FilePartitioningStage,
    ImageAestheticFilterStage,
    ImageEmbeddingStage,
    ImageReaderStage,
    ImageWriterStage,
    ProcessingStage,
    RayDataExecutor,
    Resources,
    XennaExecutor,
)
from tastemaker.embeddings.find import EmbeddingFile
from tastemaker.embeddings.stages import EmbeddingScoreStage

ENGINES = {
    "xenna": lambda **config: XennaExecutor({"max_workers_per_stage": 2, **config}),
    "xenna-batch": lambda **config: XennaExecutor({"max_workers_per_stage": 2, "execution_mode": "batch", **config}),
    "ray-data": lambda **config: RayDataExecutor({"max_workers_per_stage": 2, **config}),
}


def log_line(path, *words):
    """Append a line at once, whole, whoever else writes."""
    with open(path, "a") as file:
        file.write(" ".join(map(str, words)) + "\n")


@dataclass
class Diary(ProcessingStage):
    """Notes its life in a file, and may be slow."""

    path: str = ""
    pause_s: float = 0.0
    name: str = "diary"

    def setup_on_node(self, node_info=None, worker_metadata=None):
        log_line(self.path, "node", node_info.node_id, os.getpid())

    def setup(self, worker_metadata=None):
        log_line(self.path, "setup", os.getpid())

    def process(self, task):
        log_line(self.path, "process", os.getpid(), peak_kb(), task.task_id)
        time.sleep(self.pause_s)
        return task

    def teardown(self):
        log_line(self.path, "teardown", os.getpid())


@dataclass
class Deadly(ProcessingStage):
    """Kills its own process at one image."""

    shard: str = ""
    key: str = ""
    name: str = "deadly"

    def process(self, task):
        if any(image.image_id == self.key and image.shard.endswith(self.shard) for image in task.data):
            os.kill(os.getpid(), signal.SIGKILL)
        return task


@dataclass
class DiesReading(ImageReaderStage):
    """Kills its own process while it reads one image, before anybody knows of its batch."""

    shard: str = ""
    key: str = ""

    def _make_image(self, path, sample, data, index):
        if path.endswith(self.shard) and sample.key == self.key:
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._make_image(path, sample, data, index)


@dataclass(frozen=True)
class DeadlyFile(EmbeddingFile):
    """Kills whoever reads one of its blocks."""

    block: int = 0

    def open(self):
        source = super().open()
        read = source.blocks

        def blocks(rows):
            for number, block in enumerate(read(rows)):
                if number == self.block:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield block

        source.blocks = blocks
        return source


@dataclass
class DeadlyScore(EmbeddingScoreStage):
    """Kills its own process at one block of one file."""

    deadly: tuple[str, int] = ("", 0)

    def process(self, task):
        if (task._metadata["partition"], task.first) == self.deadly and task.is_failed is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().process(task)


@dataclass
class DiesLoading(ProcessingStage):
    """Kills its own process before it has done anything."""

    path: str = ""
    name: str = "dies_loading"

    def setup(self, worker_metadata=None):
        log_line(self.path, "death", os.getpid())
        os.kill(os.getpid(), signal.SIGKILL)

    def process(self, task):
        return task


@dataclass
class HangsAtExit(ProcessingStage):
    """Leaves something behind that never lets its process end, as a native library may."""

    name: str = "hangs_at_exit"

    def setup(self, worker_metadata=None):
        atexit.register(threading.Event().wait)

    def process(self, task):
        return task


@dataclass
class Picky(ProcessingStage):
    """Raises at one image."""

    key: str = ""
    name: str = "picky"

    def process(self, task):
        if any(image.image_id == self.key for image in task.data):
            raise ValueError("not this one") from OSError(28, "No space left on device")
        return task


class Holder(ProcessingStage):
    """Cannot be pickled."""

    name = "holder"

    def __init__(self):
        self.lock = threading.Lock()

    def process(self, task):
        return task


def peak_kb():
    """Return the peak memory of this process."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def read_diary(path, word):
    """Return the other words of the lines that begin with a word."""
    lines = [line.split() for line in Path(path).read_text().splitlines()] if Path(path).exists() else []
    return [line[1:] for line in lines if line[0] == word]


def make_stages(source, model_dir, output, *own, batch_size=4, threshold=4.9):
    """Return the usual stages, small enough that two workers fit on two cores, with others after the reader."""
    stages = [
        ImageReaderStage(batch_size=batch_size),
        *own,
        ImageEmbeddingStage(model_dir=str(model_dir)),
        ImageAestheticFilterStage(model_dir=str(model_dir), score_threshold=threshold),
        ImageWriterStage(str(output), images_per_tar=5),
    ]
    small = [stage.with_(resources=Resources(cpus=0.1)) for stage in stages]
    return [FilePartitioningStage(str(source), files_per_partition=1), *small]


def write_shards(folder, photographs, shards=6, images=12):
    """Write shards of photographs, each image another one."""
    folder.mkdir(parents=True)
    for shard in range(shards):
        members = []
        for number in range(images):
            name, data = list(photographs.items())[(shard + number) % len(photographs)]
            members.append((f"{number:04d}.{name.rpartition('.')[2]}", data))
            members.append((f"{number:04d}.txt", f"shard {shard}, image {number}".encode()))
        make_tar(folder / f"{shard:03d}.tar", members)
    return folder


def write_nasty_data(folder, photographs):
    """Write everything that can be wrong with shards and folders, beside what is right."""
    good, pixels = photographs["rocket.jpg"], np.zeros((40, 60, 3), np.uint8)
    (folder / "loose" / "below").mkdir(parents=True)
    members = [
        ("good.jpg", good),
        ("good.txt", "a rocket, na\u00efve".encode()),
        ("good.json", b'{"a": 1}'),
        ("cut.jpg", good[: len(good) // 2]),
        ("empty.jpg", b""),
        ("text.jpg", b"no image"),
        ("../climbs.jpg", good),
        ("twice.png", encode(pixels, "PNG")),
        ("twice.png", encode(pixels + 1, "PNG")),
        ("\u5bcc\u58eb\u5c71 \u00e9t\u00e9.webp", encode(pixels, "WEBP")),
        ("caption-only.txt", b"no image"),
        *((f"more/{name}", data) for name, data in photographs.items()),
    ]
    nasty = make_tar(folder / "0-nasty.tar", members)
    (folder / "1-cut.tar").write_bytes(nasty.read_bytes()[:70_000])
    (folder / "2-empty.tar").write_bytes(bytes(10240))
    make_tar(folder / "3-\u7a7a.tar", list(photographs.items()))
    for name, data in photographs.items():
        (folder / "loose" / name).write_bytes(data)
    (folder / "loose" / "coffee.txt").write_text("a cup")
    (folder / "loose" / "below" / "\u00fcber.jpg").write_bytes(good)
    (folder / "loose" / "below" / "cut.jpg").write_bytes(good[:9000])
    return folder


def wait_until(condition, timeout_s=10.0):
    """Return what the condition says once it is true, or when time is up."""
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return condition()


def kill_at_random(diary, seed, kills=2):
    """Kill workers that write a diary, at random moments from now on. Return their growing list, and the thread."""
    chance, killed = random.Random(seed), []

    def kill():
        for _ in range(kills):
            seen = len(read_diary(diary, "process"))
            wait_until(lambda seen=seen: len(read_diary(diary, "process")) > seen, 60)
            time.sleep(chance.uniform(0, 0.4))
            pid = int(read_diary(diary, "process")[-1][0])
            if pid not in killed:
                with suppress(ProcessLookupError):  # its run is over
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return killed, thread


@contextmanager
def object_store_bytes():
    """Yield a list that grows by what Ray's object store holds, five times a second."""
    import ray
    from ray._private.internal_api import node_stats

    node, done, used = ray.nodes()[0], threading.Event(), []

    def sample():
        while not done.wait(0.2):
            stats = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"]).store_stats
            used.append(stats.object_store_bytes_used)

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield used
    finally:
        done.set()
        sampler.join()


def marked_processes(mark):
    """Return the processes that have a word in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder.name, (folder / "cmdline").read_bytes()[:80]))
        except OSError:
            continue
    return found
