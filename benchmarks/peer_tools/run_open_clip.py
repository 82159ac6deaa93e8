"""open_clip: create_model_and_transforms as its README has it: f32 on processors, autocast on CUDA.

Both halves of the model are made, as always there; only the vision half gets weights, so none of the text half's are
read.
"""

from torch_loop import Head, declare_torchvision_operators, device_name, make_scorer, pick_device

missing = declare_torchvision_operators()

import open_clip  # noqa: E402
import torch  # noqa: E402
from protocol import serve  # noqa: E402
from safetensors.torch import load_file  # noqa: E402


def load(options):
    device = pick_device()
    model, _, preprocess = open_clip.create_model_and_transforms("ViT-L-14-quickgelu")
    model.visual.load_state_dict(load_file(options.weights / "model.safetensors"))
    model = model.eval().to(device)
    head = Head(options.head).to(device)
    on_gpu = device == "cuda"

    def prepare(pictures):
        return torch.stack([preprocess(picture) for picture in pictures])

    def score_batch(pixels):
        with torch.autocast("cuda", enabled=on_gpu):
            embeddings = model.encode_image(pixels)
        return head(embeddings)

    return make_scorer(prepare, score_batch), f"{'fp16 autocast' if on_gpu else 'f32'}, {device_name()}{missing}"


if __name__ == "__main__":
    serve(load)
