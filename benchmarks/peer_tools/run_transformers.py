"""transformers: an image processor and CLIPVisionModelWithProjection in f32, as most scripts have it.

With --precision reduced, in the short type that the machine multiplies in hardware."""

from torch_loop import Head, declare_torchvision_operators, device_name, make_scorer, pick_device, reduced_dtype

missing = declare_torchvision_operators()

import torch  # noqa: E402
import transformers  # noqa: E402
from protocol import serve  # noqa: E402


def load(options):
    device = pick_device()
    processor = transformers.AutoImageProcessor.from_pretrained(options.weights)
    dtype = reduced_dtype() if options.precision == "reduced" else torch.float32
    model = transformers.CLIPVisionModelWithProjection.from_pretrained(options.weights, dtype=dtype).eval().to(device)
    head = Head(options.head).to(device)

    def prepare(pictures):
        return processor(images=pictures, return_tensors="pt")["pixel_values"]

    def score_batch(pixels):
        return head(model(pixel_values=pixels.to(dtype)).image_embeds)

    words = f"{type(processor).__name__}, {model.dtype}, {model.config._attn_implementation}"
    return make_scorer(prepare, score_batch), f"{words}, {device_name()}{missing}"


if __name__ == "__main__":
    serve(load)
