"""Tastemaker against what people use today: speed, memory, start, size and scores on the same shards and weights.

    python benchmarks/peers.py --work DIR [--images 64] [--runs 5] [--only NAME ...] [--json FILE]

Each peer gets a virtual environment under DIR (made by pip, kept for the next time) and the best plain configuration
that its README shows, on all cores, or on the GPU if there is one. A peer that cannot be installed or run is skipped,
and the table says why. Needs scikit-image, whose photographs are the pictures.

The weights are random and of the real size: the arithmetic, and so the time, is the same. The scores mean nothing, but
all must agree on them; the predictor is as steep as LAION's, so that errors in score are of the real size.
A run is the loop from shards to scores with the model loaded. Runs alternate, a process a peer, so that a slow minute
slows all of them. Tastemaker writes all its rows in a run; the others keep scores in memory.
Start is from the start of the process to the score of one picture. Memory is the most that the process itself held (on
a GPU's machine not its readers, nor what is on the GPU). Size is that of the installed packages.
"""

import argparse
import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from common import print_machine
from peer_tools.environments import (
    SkippedError,
    installed_megabytes,
    installed_versions,
    make_environment,
    refresh_ours,
    requirements,
)
from peer_tools.inputs import write_shards, write_weights
from peer_tools.processes import Runner

from tastemaker.models.device import system_shows_gpu


@dataclass
class Peer:
    """One line of the table.

    Attributes:
        package: What pip installs.
        runner: Script in peer_tools.
        weights: Which of the layouts of weights it reads.
        exact: Whether it computes in f32 (on a processor), and its scores must be the same.
    """

    package: str
    runner: str
    weights: str
    exact: bool = True
    precision: str = "auto"
    skipped: str = ""
    versions: str = ""
    words: str = ""
    start_s: float = 0.0
    install_mb: float = 0.0
    peak_mb: float | None = None
    rates: list[float] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict, repr=False)
    errors: tuple[float, float] | None = None
    agrees: bool = False


PEERS = {
    "tastemaker": Peer("tastemaker", "run_tastemaker.py", "tastemaker", exact=False),
    "tastemaker, f32": Peer("tastemaker", "run_tastemaker.py", "tastemaker", precision="f32"),
    "transformers": Peer("transformers", "run_transformers.py", "transformers"),
    "transformers, reduced": Peer(
        "transformers", "run_transformers.py", "transformers", exact=False, precision="reduced"
    ),
    "open_clip": Peer("open_clip_torch", "run_open_clip.py", "open_clip"),
    "timm, compiled": Peer("timm", "run_timm.py", "timm", exact=False),
    "simple-aesthetics-predictor": Peer(
        "simple-aesthetics-predictor", "run_simple_aesthetics_predictor.py", "predictor"
    ),
}
REFERENCE = "transformers"
"""Its scores are what the others' are compared with; where it was skipped, those of tastemaker in f32."""
EXACT_TOLERANCE = 0.01
REDUCED_TOLERANCE = (0.01, 0.05)
"""Of reduced precision: the median and the maximum of the differences in score."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for environments, weights and logs")
    parser.add_argument("--images", type=int, default=64, help="pictures in a run")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--install-only", action="store_true", help="make environments and weights, and stop")
    parser.add_argument("--json", type=Path, help="write all numbers there")
    arguments = parser.parse_args()
    peers = {name: PEERS[name] for name in arguments.only}
    work = arguments.work.resolve()
    pythons = install(peers, work / "environments")
    weights = write_weights(work / "weights")
    if arguments.install_only:
        return
    shards = write_shards(work / f"shards-{arguments.images}", arguments.images)
    first = write_shards(work / "shards-1", 1)
    print_machine()
    runners = start(peers, pythons, weights, first, shards, work)
    try:
        measure(peers, runners, arguments.images, arguments.runs)
    finally:
        for runner in runners.values():
            runner.kill()
    compare_scores(peers)
    print_table(peers, arguments.images)
    if arguments.json:
        numbers = {"images": arguments.images, "peers": {name: asdict(peer) for name, peer in peers.items()}}
        arguments.json.write_text(json.dumps(numbers, indent=1))


def install(peers: dict[str, Peer], folder: Path) -> dict[str, Path]:
    """Return the Python of each peer that could be installed; the others get a reason."""
    pythons, refreshed = {}, set()
    for name, peer in peers.items():
        try:
            python = make_environment(folder / peer.package, requirements(peer.package, on_gpu=system_shows_gpu()))
        except SkippedError as error:
            peer.skipped = str(error)
            continue
        if peer.package == "tastemaker" and python not in refreshed:
            refresh_ours(python)
            refreshed.add(python)
        peer.install_mb = installed_megabytes(python)
        peer.versions = installed_versions(python, [peer.package, "torch", "transformers", "openvino"])
        pythons[name] = python
    return pythons


def start(peers, pythons: dict[str, Path], weights: dict[str, Path], first: Path, shards: Path, work: Path):
    """Return the processes with their models loaded, started one after the other."""
    runners = {}
    (work / "logs").mkdir(exist_ok=True)
    for name, python in pythons.items():
        peer = peers[name]
        options = {
            "--weights": weights[peer.weights],
            "--head": weights["head"],
            "--first": first,
            "--shards": shards,
            "--precision": peer.precision,
        }
        runner = Runner(python, peer.runner, options, work / "logs" / f"{name.replace(', ', '-')}.log")
        try:
            answer = runner.answer()
        except SkippedError as error:
            peer.skipped = str(error)
            continue
        peer.start_s, peer.words = runner.age(), answer["ready"]
        runners[name] = runner
    return runners


def measure(peers: dict[str, Peer], runners, images: int, runs: int) -> None:
    """Run all in turn, once to warm up and then ``runs`` times, and ask for the memory at the end."""
    for number in range(runs + 1):
        for name, runner in list(runners.items()):
            try:
                answer = runner.ask("run")
            except SkippedError as error:
                peers[name].skipped = str(error)
                runners.pop(name).kill()
                continue
            peers[name].scores = answer["scores"]
            if number:
                peers[name].rates.append(images / answer["seconds"])
    for name, runner in runners.items():
        peers[name].peak_mb = runner.ask("end")["peak_mb"]


def compare_scores(peers: dict[str, Peer]) -> None:
    """Set the median and maximum difference in score of each peer from the reference, key by key."""
    ran = {name: peer for name, peer in peers.items() if not peer.skipped}
    reference = next((name for name in (REFERENCE, "tastemaker, f32", *ran) if name in ran), None)
    for peer in ran.values():
        expected = ran[reference].scores
        if set(peer.scores) != set(expected):
            continue
        differences = np.abs([peer.scores[key] - score for key, score in expected.items()])
        peer.errors = (float(np.median(differences)), float(differences.max()))
        # A GPU's f32 may be TF32 in its convolutions, and open_clip's README has autocast there.
        limits = (EXACT_TOLERANCE,) * 2 if peer.exact and not system_shows_gpu() else REDUCED_TOLERANCE
        peer.agrees = peer.errors[0] <= limits[0] and peer.errors[1] <= limits[1]


def print_table(peers: dict[str, Peer], images: int) -> None:
    ran = {name: peer for name, peer in peers.items() if not peer.skipped}
    if ran:
        some = next(iter(ran.values()))
        base = REFERENCE if REFERENCE in ran else next(iter(ran))
        spread = np.std(list(some.scores.values()))
        print(
            f"\n{images} JPEGs of 512 pixels in tar shards, {len(some.rates)} alternating runs, scores spread by",
            end="",
        )
        print(f" {spread:.2f}. Ratio: the median of rounds, to {base}. Score differs: median, maximum.\n")
    width = max(map(len, peers))
    print(f"{'':{width}}  images/s (range)           ratio     memory     start  installed  score differs")
    for name, peer in ran.items():
        print(f"{name:{width}}  {describe(peer, ran[base])}")
    print()
    for name, peer in peers.items():
        print(f"{name}: {'SKIPPED: ' + peer.skipped if peer.skipped else peer.versions + '; ' + peer.words}")


def describe(peer: Peer, base: Peer) -> str:
    rates = f"{statistics.median(peer.rates):.2f} ({min(peer.rates):.2f} to {max(peer.rates):.2f})"
    ratio = statistics.median(a / b for a, b in zip(peer.rates, base.rates, strict=True))
    memory = f"{peer.peak_mb:,.0f} MB" if peer.peak_mb else "unknown"
    scores = f"{peer.errors[0]:.5f}, {peer.errors[1]:.5f}" if peer.errors else "other images"
    note = "" if peer.agrees else "  SCORES DIFFER"
    figures = f"{rates:25} {ratio:6.2f} {memory:>10} {peer.start_s:7.1f} s"
    return f"{figures} {peer.install_mb:7,.0f} MB  {scores}{note}"


if __name__ == "__main__":
    main()
