"""Stages that tell, through files, what happened to them in worker processes; and data sets for engines."""

import os
import re
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from conftest import encode, make_tar
from tiny import usual_stages

from tastemaker import ProcessingStage, Resources

DEADLY_FILE = b"\x89PNG\r\n\x1a\n is deadly"


def log_line(path, *words):
    """Append a line at once, whole, whoever else writes."""
    with open(path, "a") as file:
        file.write(" ".join(map(str, words)) + "\n")


def read_diary(path, word):
    """Return the other words of the lines that begin with a word."""
    lines = [line.split() for line in Path(path).read_text().splitlines()] if Path(path).exists() else []
    return [line[1:] for line in lines if line[0] == word]


@dataclass
class Diary(ProcessingStage):
    """Notes its life in a file, and may be slow."""

    path: str = ""
    pause_s: float = 0.0
    name: str = "diary"

    def setup_on_node(self, node_info=None, worker_metadata=None):
        log_line(self.path, "node", node_info.node_id)

    def setup(self, worker_metadata=None):
        log_line(self.path, "setup", os.getpid())

    def process(self, task):
        log_line(self.path, "process", os.getpid(), peak_kb())
        print("printed", task.task_id)
        time.sleep(self.pause_s)
        return task

    def teardown(self):
        log_line(self.path, "teardown", os.getpid())


@dataclass
class DiesOnce(ProcessingStage):
    """Kills its own process at one image, the first time."""

    path: str = ""
    key: str = ""
    name: str = "dies_once"

    def process(self, task):
        if any(image.image_id == self.key for image in task.data) and not read_diary(self.path, "death"):
            log_line(self.path, "death", os.getpid())
            os.kill(os.getpid(), signal.SIGKILL)
        return task


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
class DeadlyDecoder(ProcessingStage):
    """Makes `DEADLY_FILE` kill every process that decodes it, as a broken codec does: this one and its children."""

    folder: str = ""
    name: str = "deadly_decoder"

    def setup(self, worker_metadata=None):
        code = (
            "from tastemaker.imaging import decode\n"
            "import os\n"
            "original = decode._decode_plain\n"
            "def deadly(data, *rest):\n"
            f"    if data == {DEADLY_FILE!r}:\n"
            f"        open({str(Path(self.folder) / 'deaths')!r}, 'a').write('x')\n"
            "        os.abort()\n"
            "    return original(data, *rest)\n"
            "decode._decode_plain = deadly\n"
        )
        (Path(self.folder) / "sitecustomize.py").write_text(code)
        os.environ["PYTHONPATH"] = f"{self.folder}:{os.environ.get('PYTHONPATH', '')}"
        exec(code, {})

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


@dataclass
class Holder(ProcessingStage):
    """Cannot be pickled."""

    name: str = "holder"
    held: object = field(default_factory=threading.Lock)

    def process(self, task):
        return task


def peak_kb():
    """Return the peak memory of this process."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def make_stages(source, model_dir, output, *own, batch_size=4, threshold=9.0):
    """Return the usual stages, with others after the reader. A worker of them all takes one core."""
    options = {"batch_size": batch_size, "threshold": threshold, "images_per_tar": 5}
    first, *stages = usual_stages(source, model_dir, output, *own, **options)
    return [first, *(stage.with_(resources=Resources(cpus=1 / len(stages))) for stage in stages)]


def write_shards(folder, shards=4, images=6, replaced=()):
    """Write shards of small images, each another one, ``000.tar`` and following; some may be replaced."""
    folder.mkdir(parents=True)
    random, replaced = np.random.default_rng(0), dict(replaced)
    for shard in range(shards):
        members = []
        for number in range(images):
            data = encode(random.integers(0, 256, (40, 60, 3), np.uint8), "JPEG")
            members.append((f"{number:04d}.jpg", replaced.get((shard, number), data)))
            members.append((f"{number:04d}.txt", f"shard {shard}, image {number}".encode()))
        make_tar(folder / f"{shard:03d}.tar", members)
    return folder


def wait_until(condition, timeout_s=10.0):
    """Return what the condition says once it is true, or when time is up."""
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return condition()


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
