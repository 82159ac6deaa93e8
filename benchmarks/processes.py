"""Two processes on one machine: with threads of their own each, with the cores divided, and one after the other.

    python benchmarks/processes.py [--model-dir DIR] [--images 16] [--runs 5]

Each process embeds as many images. Prints images a second of both together: medians of alternating runs, and ratios.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from common import alternate, print_machine, print_rates, smooth_pixels

from tastemaker.machine import usable_cores
from tastemaker.models.clip import load_clip
from tastemaker.models.hub import weights_path
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
from tastemaker.testing import VIT_L14, write_random_models


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model-dir", type=Path)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)  # of a process that this one started
    arguments = parser.parse_args()
    if arguments.threads:
        serve(weights_path(CLIP_VIT_L14, arguments.model_dir), arguments.threads, arguments.images)
        return
    print_machine("openvino")
    with tempfile.TemporaryDirectory() as folder:
        model_dir = arguments.model_dir or write_random_models(Path(folder), VIT_L14)
        cores = usable_cores()
        start = [sys.executable, __file__, "--model-dir", str(model_dir), "--images", str(arguments.images)]
        all_cores = [start_process([*start, "--threads", str(cores)]) for _ in range(2)]
        divided = [start_process([*start, "--threads", str(max(1, cores // 2))]) for _ in range(2)]
        actions = {
            f"one after the other, {cores} threads": lambda: [run_together([process]) for process in all_cores],
            f"together, {max(1, cores // 2)} threads each": lambda: run_together(divided),
            f"together, {cores} threads each": lambda: run_together(all_cores),
        }
        rates = alternate(actions, arguments.runs, 2 * arguments.images)
        print_rates("two processes", rates, next(iter(actions)))
        for process in (*all_cores, *divided):
            process.stdin.close()
            process.wait()


def start_process(command: list[str]) -> subprocess.Popen:
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)


def run_together(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        process.stdin.write("run\n")
    for process in processes:
        process.stdout.readline()


def serve(weights: Path, threads: int, images: int) -> None:
    tower, pixels = load_clip(weights, "cpu", threads=threads), smooth_pixels(images)
    for _ in sys.stdin:
        tower.embed(pixels)
        print("done", flush=True)


if __name__ == "__main__":
    main()
