"""The vision tower alone: images a second and score errors, each backend in alternating runs, and the matrix peak.

    python benchmarks/model.py [--model-dir DIR] [--images 16] [--runs 5] [--only NAME ...]

Without --model-dir it uses random weights of the real size: the arithmetic, and so the time, is the same. The predictor
is made as steep as LAION's, so that errors in score are of the real size. Prints the machine, the versions, medians
and ratios to transformers (eager, f32), and each rate as a share of what the processor's matrix products allow:
162 GFLOP an image. PyTorch and transformers are compared where they are installed.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from common import alternate, print_machine, print_rates, smooth_pixels

from tastemaker.errors import ConfigurationError
from tastemaker.models.aesthetic import AestheticPredictor
from tastemaker.models.clip_openvino import OpenVinoClip
from tastemaker.models.hub import weights_path
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
from tastemaker.testing import VIT_L14, write_random_models

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from reference_towers import reference_embed

FLOP_OF_IMAGE = 162.0e9
LENGTH_OF_PREDICTOR = 17.996
"""|w| of LAION's predictor, folded."""

BASELINE = "transformers f32, eager"

Embed = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model-dir", type=Path)
    parser.add_argument("--images", type=int, default=16, help="images in one run")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="+", help="words in the names of what to run, beside the baseline")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        weights = weights_path(CLIP_VIT_L14, arguments.model_dir or write_random_models(Path(folder), VIT_L14))
        print_machine("openvino", "numpy", "torch", "transformers")
        pixels = smooth_pixels(arguments.images)
        backends = load_backends(weights)
        if arguments.only:
            backends = {n: e for n, e in backends.items() if n == BASELINE or any(w in n for w in arguments.only)}
        actions = {name: (lambda embed=embed: embed(pixels)) for name, embed in backends.items()}
        peaks = {f"matrix product, {kind}": multiply for kind, multiply in load_products().items()}
        rates = alternate({**peaks, **actions}, arguments.runs, len(pixels))
        for name in peaks:  # a product is as much work as one image
            rates[name] = [rate / len(pixels) for rate in rates[name]]
        print_rates("vision tower", rates, BASELINE if BASELINE in rates else next(iter(actions)))
        print_errors(backends, OpenVinoClip(weights, "f32").embed(pixels), pixels)


def load_backends(weights: Path) -> dict[str, Embed]:
    backends: dict[str, Embed] = {}
    for precision in ("f32", "bf16", "int8"):
        try:
            backends[f"tastemaker {precision}"] = OpenVinoClip(weights, precision).embed
        except ConfigurationError as error:
            print(f"tastemaker {precision}: {error}")
    if find_spec("torch"):
        from tastemaker.models.clip_torch import TorchClip

        backends["torch bf16, sdpa"] = TorchClip(weights, "cpu", "bf16", batch_size=8).embed
    if find_spec("transformers"):
        backends[BASELINE] = reference_embed(weights, CLIP_VIT_L14)
    return backends


def load_products() -> dict[str, Callable[[], object]]:
    """Return functions that multiply square matrices, with as many operations as one image takes."""
    import openvino as ov
    from openvino import opset13 as op

    side = round((FLOP_OF_IMAGE / 2) ** (1 / 3))
    matrix = np.random.default_rng(0).standard_normal((side, side), np.float32)
    products: dict[str, Callable[[], object]] = {}
    for name, kind in (("f32", ov.Type.f32), ("bf16", ov.Type.bf16)):
        if name == "bf16" and "BF16" not in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            continue
        left = op.parameter([side, side], ov.Type.f32)
        model = ov.Model([op.reduce_max(op.matmul(left, matrix, False, True), np.array([0, 1]))], [left], name)
        request = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": kind}).create_infer_request()
        products[name] = lambda request=request: request.infer([matrix], share_inputs=True)
    return products


def print_errors(backends: dict[str, Embed], exact: np.ndarray, pixels: np.ndarray) -> None:
    weight = np.random.default_rng(1).standard_normal((1, exact.shape[1]))
    predictor = AestheticPredictor([(weight * LENGTH_OF_PREDICTOR / np.linalg.norm(weight), np.array([5.0]))])
    expected = predictor.score(exact)
    print(f"\nscore error against plain float32: median, maximum (scores spread by {expected.std():.2f})")
    for name, embed in backends.items():
        errors = np.abs(predictor.score(embed(pixels)) - expected)
        print(f"  {name:25} {np.median(errors):.6f} {errors.max():.6f}")


if __name__ == "__main__":
    main()
