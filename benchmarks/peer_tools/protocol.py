"""How a runner talks to peers.py: a line a request on stdin, a JSON line an answer on stdout. Needs no package.

    {"ready": "what runs"}                      once, as soon as the score of a first picture is there
    run       {"seconds": 1.2, "scores": {}}    all shards scored with the loaded model
    end       {"peak_mb": 1234.5}               and the process ends

Between requests a runner waits on stdin and takes no processor time.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

Scorer = Callable[[Path], dict[str, float]]
"""A folder of shards in, the score of each key out."""
Loader = Callable[[argparse.Namespace], tuple[Scorer, str]]
"""The options in, a scorer with its model loaded and a few words on it out."""


def serve(load: Loader) -> None:
    """Load a model and answer requests until ``end`` or the end of stdin."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", type=Path, required=True, help="this peer's folder of weights")
    parser.add_argument("--head", type=Path, required=True, help="the predictor's safetensors file")
    parser.add_argument("--first", type=Path, required=True, help="folder of a shard of one picture")
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--precision", default="auto", help="for the runners that know several")
    options = parser.parse_args()
    score, words = load(options)
    score(options.first)
    print(json.dumps({"ready": words}), file=answers)
    for line in sys.stdin:
        if line.strip() == "end":
            break
        started = time.perf_counter()
        scores = score(options.shards)
        print(json.dumps({"seconds": time.perf_counter() - started, "scores": scores}), file=answers)
    print(json.dumps({"peak_mb": peak_memory_mb()}), file=answers)


def peak_memory_mb() -> float | None:
    """Return the most memory that this process held. Not ru_maxrss, which begins with the parent's."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM")), None)
