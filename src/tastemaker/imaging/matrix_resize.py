"""`tastemaker.imaging.preprocess` as two matrix products: for pixels that lie on a GPU already.

torch's own antialiased resize on a GPU reads every source pixel several times for each pixel of the result, thousands
for a 4K picture. Products with Pillow's weights are what a GPU is best at, and round where Pillow rounds.
"""

from __future__ import annotations

import functools

import torch

from tastemaker.imaging.preprocess import INPUT_SIZE, ResizePlan

_SHARPNESS = -0.5
"""The parameter of the bicubic filter that Pillow uses."""

_KEPT_WEIGHTS = 16
"""Matrices of as many lengths are kept; of 4K pictures they have 3 MB each."""

Tensor = torch.Tensor


class MatrixResize:
    """Makes the model's input of pixels on one device, within 2 of 255 of what `preprocess` returns.

    Pillow resizes the columns of a picture first that is more than twice as tall as wide; this never does. The products
    are of float32: in float16, a twentieth of all bytes is off by one.

    Args:
        device: Where the pixels are.
    """

    def __init__(self, device: torch.device) -> None:
        self._weights = functools.lru_cache(_KEPT_WEIGHTS)(functools.partial(bicubic_weights, device=device))

    @torch.inference_mode()
    def __call__(self, pixels: Tensor, plan: ResizePlan, size: int = INPUT_SIZE) -> Tensor:
        """Return the resized centre crop, uint8 (size, size, 3), on the same device.

        Args:
            pixels: uint8 (H, W, 3).
            plan: What `plan_resize` says for these sides.
            size: Side of the result in pixels.
        """
        height, width, _ = pixels.shape
        across = self._weights(width, plan.width, plan.left, size)  # (size, W)
        down = self._weights(height, plan.height, plan.top, size)  # (size, H)
        planes = pixels.permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format)  # (3, H, W)
        rows = (planes @ across.T).round_().clamp_(0, 255)  # (3, H, size)
        crop = (down @ rows).round_().clamp_(0, 255)  # (3, size, size)
        return crop.to(torch.uint8).permute(1, 2, 0).contiguous()


def bicubic_weights(length: int, resized: int, start: int, size: int, *, device: torch.device) -> Tensor:
    """Return what each source pixel adds to each pixel of a crop, float32 (size, length), as Pillow weighs them.

    Args:
        length: Side of the source in pixels.
        resized: What the whole side becomes, in pixels.
        start: First pixel of the crop in the resized side.
        size: Pixels of the crop.
        device: Where the result shall be.

    Example:
        >>> bicubic_weights(4, 2, 0, 2, device=torch.device("cpu")).sum(1)
        tensor([1., 1.])
    """
    scale = length / resized
    centres = (torch.arange(start, start + size, device=device, dtype=torch.float64)[:, None] + 0.5) * scale
    places = torch.arange(length, device=device, dtype=torch.float64)[None] + 0.5
    x = ((places - centres) / max(scale, 1.0)).abs()  # (size, length), in units of the filter
    near = ((_SHARPNESS + 2) * x - (_SHARPNESS + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * _SHARPNESS
    weights = torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
    return (weights / weights.sum(1, keepdim=True)).to(torch.float32)
