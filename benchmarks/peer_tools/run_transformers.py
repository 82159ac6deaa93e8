"""transformers: an image processor and CLIPVisionModelWithProjection in f32, as most scripts have it."""

from torch_loop import Head, declare_torchvision_operators, device_name, make_scorer, pick_device

missing = declare_torchvision_operators()

import transformers  # noqa: E402
from protocol import serve  # noqa: E402


def load(options):
    device = pick_device()
    processor = transformers.AutoImageProcessor.from_pretrained(options.weights)
    model = transformers.CLIPVisionModelWithProjection.from_pretrained(options.weights).eval().to(device)
    head = Head(options.head).to(device)

    def prepare(pictures):
        return processor(images=pictures, return_tensors="pt")["pixel_values"]

    def score_batch(pixels):
        return head(model(pixel_values=pixels).image_embeds)

    words = f"{type(processor).__name__}, {next(model.parameters()).dtype}, {model.config._attn_implementation}"
    return make_scorer(prepare, score_batch), f"{words}, {device_name()}{missing}"


if __name__ == "__main__":
    serve(load)
