"""Damaged files by the million: deaths, errors that nobody expects, hangs, memory, and pictures that should be refused.

    python benchmarks/fuzz.py [--files 60000] [--seed 0] [--kinds JPEG PNG ...]

Files of each kind are damaged (bits flipped, bytes replaced, sizes changed, parts left out or doubled, files cut; half
of PNG, tar and npz with their checksums put right again) and read in child processes, as a run reads them. A child may
take 30 s for a file and 2 GB. Prints what became of them; the same seed gives the same files. Pictures that were scored
without a note are decoded by Pillow, too, which refuses what is cut.
"""

import argparse
import sys
from pathlib import Path

from common import print_machine

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import fuzzing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=60_000, help="damaged files of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", choices=fuzzing.SEEDS, default=list(fuzzing.SEEDS))
    arguments = parser.parse_args()
    print_machine("pillow", "simplejpeg", "pillow-heif", "rawpy", "pyarrow", "numpy")
    print(f"{'kind':24} {'files':>9} {'came out':>9} {'files/s':>8} {'MB':>5}  problems")
    for kind in arguments.kinds:
        report = fuzzing.fuzz(kind, arguments.files, arguments.seed)
        rate = report.files / report.seconds
        problems = sum(map(len, report.problems.values()))
        print(
            f"{kind:24} {report.files:9,} {report.came_out:9,} {rate:8,.0f} {report.peak_mb:5}  {problems}", flush=True
        )
        for problem, numbers in report.problems.items():
            print(f"    {len(numbers):,} times: {problem} (files {numbers[:5]})", flush=True)


if __name__ == "__main__":
    main()
