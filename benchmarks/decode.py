"""Decoding and preprocessing on one core: ours against Pillow's, and against what the GPU path uses.

    python benchmarks/decode.py [--images 12] [--runs 7]

JPEGs of 512, 1024 and 3840 pixels. "Pillow" is what people write: `Image.open(...).convert("RGB")`, bicubic resize,
centre crop. Prints the machine, the versions, medians of alternating runs and ratios, and how far pixels differ. Then
the explorer's small pictures: decoded anew at a fraction of their size, and reduced from pixels that are there already.
"""

import argparse
import io
from importlib.util import find_spec

import numpy as np
from common import alternate, photographs, print_machine, print_rates
from PIL import Image

from tastemaker.imaging.decode import decode_image
from tastemaker.imaging.preprocess import preprocess, preprocess_with_torch
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
from tastemaker.scores.small import encode_jpeg, fit_into, reduce_image, resize_image

HOW = CLIP_VIT_L14.preprocess
BOX = (2560, 320)  # of the explorer's small pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=12, help="different pictures of each size")
    parser.add_argument("--runs", type=int, default=7)
    arguments = parser.parse_args()
    print_machine("pillow", "simplejpeg", "numpy", "torch")
    ways = {"Pillow": with_pillow, "tastemaker (CPU path)": lambda data: preprocess(decode_image(data).pixels, HOW)}
    if find_spec("torch"):
        ways["tastemaker (GPU path, torch's resize)"] = lambda data: preprocess_with_torch(
            decode_image(data).pixels, HOW
        )
    for side in (512, 1024, 3840):
        compare(side, photographs(side, arguments.images), ways, arguments.runs)
    for side in (512, 1024, 6000):
        compare_small(side, photographs(side, 3), arguments.runs)


def compare(side: int, pictures: list[bytes], ways: dict, runs: int) -> None:
    actions = {name: (lambda way=way: [way(data) for data in pictures]) for name, way in ways.items()}
    rates = alternate(actions, runs, len(pictures))
    print_rates(f"decode + preprocess, {side}-pixel JPEG, one core", rates, "Pillow")
    expected = [with_pillow(data).astype(int) for data in pictures]
    for name, way in ways.items():
        differences = np.abs(np.stack([way(data) for data in pictures]).astype(int) - np.stack(expected))
        print(f"  {name}: pixels differ by {differences.max()} of 255 at most, {differences.mean():.5f} in the mean")


def compare_small(side: int, pictures: list[bytes], runs: int) -> None:
    decoded = [decode_image(data).pixels for data in pictures]
    actions = {
        "from the file": lambda: [encode_jpeg(reduce_image(data, *BOX), 82) for data in pictures],
        "from its pixels": lambda: [encode_jpeg(reduce_pixels(pixels), 82) for pixels in decoded],
    }
    milliseconds = {
        name: [1000 / rate for rate in rates] for name, rates in alternate(actions, runs, len(pictures)).items()
    }
    title, unit = f"small picture of a {side}-pixel JPEG", "milliseconds, one core"
    print_rates(title, milliseconds, "from the file", unit)


def reduce_pixels(pixels: np.ndarray) -> Image.Image:
    image = Image.fromarray(pixels)
    return resize_image(image, fit_into(image.size, BOX))


def with_pillow(data: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    short = min(image.size)
    size = tuple(int(224 * side / short) for side in image.size)
    image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = round((size[0] - 224) / 2), round((size[1] - 224) / 2)
    return np.asarray(image.crop((left, top, left + 224, top + 224)))


if __name__ == "__main__":
    main()
