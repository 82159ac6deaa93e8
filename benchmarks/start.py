"""Start-up and memory: `tastemaker --help`, one photograph from start to end, and runs over few and many shards.

    python benchmarks/start.py [--model-dir DIR] [--runs 5] [--shards 10 1000]

Without --model-dir it uses random weights of the real size for the start, and tiny ones for the many shards, where the
question is whether memory grows. Memory is the peak that the process itself held (VmHWM, Linux).
"""

import argparse
import io
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from common import photographs, print_machine

from tastemaker.testing import TINY, VIT_L14, write_random_models

PEAK = (
    "import re, sys; from tastemaker.cli import app; app(sys.argv[1:], standalone_mode=False); "
    "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model-dir", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--shards", type=int, nargs="+", default=[10, 1000], help="of 4 images each")
    arguments = parser.parse_args()
    print_machine("openvino", "numpy", "typer", "rich")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model_dir = arguments.model_dir or write_random_models(root / "models", VIT_L14)
        (root / "photo.jpg").write_bytes(photographs(1024, 1)[0])
        one = ["score", str(root / "photo.jpg"), "--model-dir", str(model_dir)]
        print_times("tastemaker --help", [run_command(["--help"]) for _ in range(arguments.runs + 1)][1:])
        times = [run_command([*one, "--output", str(root / f"one{n}")]) for n in range(arguments.runs + 1)]
        print_times("one photograph, weights cached", times[1:])
        print(f"memory of that: {measure_peak([*one, '--output', str(root / 'memory')]):.2f} GB at most")
        tiny = str(write_random_models(root / "tiny", TINY))
        pictures = photographs(512, 8)
        for number in arguments.shards:
            shards = write_shards(root / f"shards{number}", number, pictures)
            command = ["score", shards, "--model-dir", tiny, "--output", str(root / f"out{number}")]
            print(f"{number:5} shards, tiny model: {measure_peak(command):.2f} GB at most", flush=True)


def print_times(what: str, times: list[float]) -> None:
    print(f"{what}: median {statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})", flush=True)


def run_command(arguments: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run([Path(sys.executable).with_name("tastemaker"), *arguments], check=True, capture_output=True)
    return time.perf_counter() - started


def measure_peak(arguments: list[str]) -> float:
    """Return the peak memory of a command in GB."""
    command = [sys.executable, "-c", PEAK, *arguments]
    result = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ})
    return int(result.stdout.split()[-1]) * 1024 / 1e9


def write_shards(folder: Path, number: int, pictures: list[bytes]) -> str:
    folder.mkdir()
    for shard in range(number):
        with tarfile.open(folder / f"{shard:05}.tar", "w") as tar:
            for image in range(4):
                data = pictures[(shard + image) % len(pictures)]
                member = tarfile.TarInfo(f"{shard:05}{image}.jpg")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return str(folder)


if __name__ == "__main__":
    main()
