"""The best frame of made bursts: how often the rule, sharpness alone and a score alone choose the right one.

    python benchmarks/bursts.py [--noise 3] [--folder PHOTOGRAPHS]

Each burst is made of one sharp photograph: five frames that differ a little in framing, brightness and noise, of which
one is right and the others are out of focus, shaken, have a subject that moved or is missed by the focus, or are
exposed wrongly. The photographs are scikit-image's, or those of a folder, reduced to 1600 pixels.

No model takes part. What a model thinks of blur at 224 pixels is stood in for by ``technical_quality`` of the frame
reduced to 224 pixels: it sees what a model can see, and nothing else. It is no aesthetic score.
"""

import argparse
import io
import math
from collections import Counter
from pathlib import Path

import numpy as np
from common import print_machine
from PIL import Image, ImageDraw, ImageFilter

from tastemaker.imaging.signals import compute_signals
from tastemaker.scores.stacks import best_of_group

BLURS = (1.2, 2.0, 3.0, 4.5)  # pixels, of four frames
NAMES = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png", "camera.png", "coins.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--noise", type=float, default=3.0, help="sigma in each channel, in grey levels")
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    print_machine("numpy", "pillow")
    pictures = read_pictures(arguments.folder)
    print(f"{len(pictures)} photographs, noise {arguments.noise:g}\n{'':18}{'bursts':>8}", end="")
    print("".join(f"{name:>14}" for name in ("score alone", "sharpness", "the rule")))
    total: Counter[str] = Counter()
    for kind, make in KINDS.items():
        right: Counter[str] = Counter()
        for number, picture in enumerate(pictures):
            rng = np.random.default_rng([number, len(kind), ord(kind[0])])
            frames = make(picture, rng, arguments.noise)
            right.update(name for name, best in choose(frames, rng).items() if best == 0)
        total += right
        print_line(kind, len(pictures), right)
    print_line("all", len(pictures) * len(KINDS), total)


def print_line(kind: str, count: int, right: Counter[str]) -> None:
    print(f"{kind:18}{count:8}{right['score']:14}{right['sharpness']:14}{right['rule']:14}")


def choose(frames: list[np.ndarray], rng: np.random.Generator) -> dict[str, int]:
    """Return which frame each way chooses. They come in any order, so that no tie is won by the place."""
    order = rng.permutation(len(frames))
    signals = [compute_signals(frames[number]) for number in order]
    small = [compute_signals(reduce(frames[number], 224)).technical_quality for number in order]
    columns = {
        name: np.array([getattr(signal, name) for signal in signals])
        for name in ("subject_sharpness", "exposure", "contrast")
    }
    rule = best_of_group(np.zeros(len(frames), int), small, columns)
    chosen = {
        "score": np.argmax(small),
        "sharpness": np.argmax(columns["subject_sharpness"]),
        "rule": np.flatnonzero(rule.marks)[0],
    }
    return {name: int(order[place]) for name, place in chosen.items()}


def read_pictures(folder: Path | None) -> list[Image.Image]:
    if folder is None:
        import skimage

        data = Path(skimage.__file__).parent / "data"
        return [Image.open(data / name).convert("RGB") for name in NAMES]
    pictures = []
    for path in sorted(folder.iterdir()):
        picture = Image.open(path).convert("RGB")
        picture.thumbnail((1600, 1600), Image.Resampling.LANCZOS)
        pictures.append(picture)
    return pictures


def reduce(pixels: np.ndarray, side: int) -> np.ndarray:
    picture = Image.fromarray(pixels)
    scale = side / min(picture.size)
    return np.asarray(picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.BICUBIC))


def blur(picture: Image.Image, radius: float) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(radius))


def shake(picture: Image.Image, length: float, rng: np.random.Generator) -> Image.Image:
    """Return the picture as the mean of its ways along a line."""
    angle = rng.uniform(0, math.pi)
    ways = [
        picture.transform(
            picture.size, Image.AFFINE, (1, 0, way * math.cos(angle), 0, 1, way * math.sin(angle)), Image.BILINEAR
        )
        for way in np.linspace(-length / 2, length / 2, 2 * round(length) + 1)
    ]
    return Image.fromarray(np.mean(ways, axis=0).round().astype(np.uint8))


def subject(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return a soft mask of a subject near the middle: four tenths of the shorter side."""
    width, height = picture.size
    x, y, radius = width * rng.uniform(0.35, 0.65), height * rng.uniform(0.35, 0.65), 0.2 * min(width, height)
    mask = Image.new("L", picture.size)
    ImageDraw.Draw(mask).ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return blur(mask, radius / 6)


def finish(
    picture: Image.Image, rng: np.random.Generator, noise: float, gain: float = 1.0, crop: float = 0.96
) -> np.ndarray:
    """Return a frame as a camera would give it: another framing and brightness, noise, JPEG."""
    width, height = picture.size
    x, y = rng.uniform(0, 1 - crop, 2)
    box = (round(x * width), round(y * height), round((x + crop) * width), round((y + crop) * height))
    pixels = np.asarray(picture.crop(box), np.float32) * gain * rng.uniform(0.95, 1.05)
    pixels = np.clip(np.rint(pixels + rng.normal(0, noise, pixels.shape)), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=92)
    return np.asarray(Image.open(file))


def focus(picture, rng, noise):
    return [finish(picture, rng, noise), *(finish(blur(picture, radius), rng, noise) for radius in BLURS)]


def shaken(picture, rng, noise):
    return [finish(picture, rng, noise), *(finish(shake(picture, 2.5 * b, rng), rng, noise) for b in BLURS)]


def subject_moved(picture, rng, noise):
    mask = subject(picture, rng)
    moved = [Image.composite(shake(picture, 2.5 * b, rng), picture, mask) for b in BLURS]
    return [finish(frame, rng, noise) for frame in (picture, *moved)]


def focus_missed(picture, rng, noise):
    mask = subject(picture, rng)
    missed = [Image.composite(blur(picture, radius), picture, mask) for radius in BLURS]
    return [finish(frame, rng, noise) for frame in (Image.composite(picture, blur(picture, 2.5), mask), *missed)]


def exposure(picture, rng, noise):
    return [finish(picture, rng, noise, gain) for gain in (1.0, 2.0, 2.8, 0.35, 0.2)]


def blurred_and_brighter(picture, rng, noise):
    return [finish(picture, rng, noise, 0.8), *(finish(blur(picture, b), rng, noise, 1.2) for b in BLURS)]


def blurred_and_noisier(picture, rng, noise):
    return [finish(picture, rng, noise), *(finish(blur(picture, b), rng, 2 * noise) for b in BLURS)]


def closer_and_wider(picture, rng, noise):
    crops = zip(BLURS, (1.0, 0.9, 0.7, 0.85), strict=True)
    return [
        finish(picture, rng, noise, crop=0.8),
        *(finish(blur(picture, radius), rng, noise, crop=crop) for radius, crop in crops),
    ]


KINDS = {
    "focus": focus,
    "shake": shaken,
    "subject moved": subject_moved,
    "focus missed": focus_missed,
    "exposure": exposure,
    "blurred, brighter": blurred_and_brighter,
    "blurred, noisier": blurred_and_noisier,
    "closer and wider": closer_and_wider,
}


if __name__ == "__main__":
    main()
