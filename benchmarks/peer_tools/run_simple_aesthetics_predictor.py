"""simple-aesthetics-predictor: AestheticsPredictorV2Linear (tower and head in one) in f32, as its README has it."""

from torch_loop import declare_torchvision_operators, device_name, make_scorer, pick_device

missing = declare_torchvision_operators()

from aesthetics_predictor import AestheticsPredictorV2Linear  # noqa: E402
from protocol import serve  # noqa: E402
from transformers import CLIPImageProcessor  # noqa: E402


def load(options):
    device = pick_device()
    predictor = AestheticsPredictorV2Linear.from_pretrained(options.weights).eval().to(device)
    processor = CLIPImageProcessor.from_pretrained(options.weights)

    def prepare(pictures):
        return processor(images=pictures, return_tensors="pt")["pixel_values"]

    def score_batch(pixels):
        return predictor(pixel_values=pixels).logits[:, 0]

    words = f"{type(processor).__name__}, {next(predictor.parameters()).dtype}"
    return make_scorer(prepare, score_batch), f"{words}, {device_name()}{missing}"


if __name__ == "__main__":
    serve(load)
