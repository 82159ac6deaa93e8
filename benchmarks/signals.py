"""What the technical signals cost: milliseconds on one core, before and after, and the share of a run.

    python benchmarks/signals.py [--runs 15] [--before SIGNALS.py]

``--before`` names another version of src/tastemaker/imaging/signals.py, say from `git show REVISION:...`.
Runs alternate. Nothing here uses more than one thread.
"""

import argparse
import importlib.util
import io
import sys

from common import alternate, photographs, print_machine, print_rates
from PIL import Image

from tastemaker.imaging import signals
from tastemaker.imaging.decode import decode_image
from tastemaker.imaging.preprocess import preprocess
from tastemaker.models.published import find_scorer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--before", help="a signals.py to compare with")
    arguments = parser.parse_args()
    print_machine("numpy", "pillow", "simplejpeg")
    before = load(arguments.before) if arguments.before else None
    for side in (1024, 6000):
        measure(cut(photographs(side, 1)[0]), before, arguments.runs)


def measure(encoded: bytes, before, runs: int) -> None:
    how, pixels = find_scorer().backbone.preprocess, decode_image(encoded).pixels
    actions = {
        "decode, model's input": lambda: preprocess(decode_image(encoded).pixels, how),
        "signals": lambda: signals.compute_signals(pixels),
    }
    if before:
        actions["signals before"] = lambda: before.compute_signals(pixels)
    milliseconds = {name: [1000 / rate for rate in rates] for name, rates in alternate(actions, runs).items()}
    print_rates(f"{pixels.shape[1]}x{pixels.shape[0]}", milliseconds, "signals", "milliseconds, one core")


def cut(encoded: bytes) -> bytes:
    """Return a JPEG of the upper three quarters of one."""
    picture, file = Image.open(io.BytesIO(encoded)), io.BytesIO()
    picture.crop((0, 0, picture.width, picture.height * 3 // 4)).save(file, "JPEG", quality=90)
    return file.getvalue()


def load(path: str):
    spec = importlib.util.spec_from_file_location("signals_before", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
