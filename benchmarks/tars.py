"""Reading shards from memory: every image with its caption and JSON; one in ten; and one at random by the index.

    python benchmarks/tars.py [--shards 20] [--samples 1000] [--bytes 4000] [--runs 5]

Compared with the tarfile module and, where it is installed, webdataset. Prints the machine, medians and ratios.
"""

import argparse
import io
import random
import tarfile
import tempfile
from importlib.util import find_spec
from pathlib import Path

from common import alternate, print_machine, print_rates

from tastemaker.imaging.readers import open_shard
from tastemaker.imaging.shards import read_samples
from tastemaker.imaging.tars import HeaderWalk


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--samples", type=int, default=1000, help="in a shard: a JPEG, a caption and JSON each")
    parser.add_argument("--bytes", type=int, default=4000, help="of a JPEG")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    print_machine("webdataset")
    with tempfile.TemporaryDirectory() as folder:
        paths = [write_shard(Path(folder) / f"{n:05}.tar", arguments) for n in range(arguments.shards)]
        images = arguments.shards * arguments.samples
        actions = {"tarfile": lambda: [read_with_tarfile(path) for path in paths]}
        actions["tastemaker"] = lambda: [sum(1 for _ in read_samples(path)) for path in paths]
        if find_spec("webdataset"):
            actions["webdataset"] = lambda: read_with_webdataset(paths)
        print_rates("all members", alternate(actions, arguments.runs, images), "tarfile")
        indexes = {path: [sample for sample, _ in read_samples(path)] for path in paths}
        picks = [(path, random.choice(indexes[path])) for path in random.choices(paths, k=20_000)]
        readers = {path: open_shard(path) for path in paths}
        parts = {
            "headers only": (lambda: [list(HeaderWalk(reader)) for reader in readers.values()], images),
            "images at random, by the index": (lambda: [read_image(readers[path], s) for path, s in picks], len(picks)),
        }
        for name, (action, number) in parts.items():
            print_rates(name, alternate({name: action}, arguments.runs, number), name)


def write_shard(path: Path, arguments: argparse.Namespace) -> str:
    rng = random.Random(path.name)
    with tarfile.open(path, "w") as tar:
        for number in range(arguments.samples):
            parts = {"jpg": b"\xff\xd8\xff" + rng.randbytes(arguments.bytes), "txt": b"a caption", "json": b'{"a": 1}'}
            for extension, data in parts.items():
                member = tarfile.TarInfo(f"{number:08}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return str(path)


def read_with_tarfile(path: str) -> int:
    with tarfile.open(path) as tar:
        return sum(len(tar.extractfile(member).read()) for member in tar)


def read_with_webdataset(paths: list[str]) -> int:
    import webdataset

    return sum(1 for _ in webdataset.WebDataset(paths, shardshuffle=False, empty_check=False))


def read_image(reader, sample) -> bytes:
    return reader.read_at(sample.image.offset, sample.image.size)


if __name__ == "__main__":
    main()
