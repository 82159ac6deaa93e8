"""Vision towers as transformers computes them: eager, in float32, with weights in our file format."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from tastemaker.models.vit import read_dimensions

ACTIVATIONS = {"gelu_tanh": "gelu_pytorch_tanh"}
"""Names of ours -> of transformers, where they differ."""


def reference_model(weights, backbone):
    """Return transformers' model with a projection, or SigLIP's, with the weights in a file."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    size, vit, is_clip = read_dimensions(weights, backbone), backbone.vit, backbone.vit.names.pool is None
    options = {"projection_dim": size.dimension} if is_clip else {}
    config = (transformers.CLIPVisionConfig if is_clip else transformers.SiglipVisionConfig)(
        hidden_size=size.width,
        intermediate_size=size.mlp,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        image_size=size.image_size,
        patch_size=size.patch,
        hidden_act=ACTIVATIONS.get(vit.activation, vit.activation),
        layer_norm_eps=vit.eps,
        attn_implementation="eager",
        **options,
    )
    tensors = {n: torch.from_numpy(t) for n, t in load_file(weights).items() if not n.startswith("text_")}
    with torch.device("meta"):
        model = (transformers.CLIPVisionModelWithProjection if is_clip else transformers.SiglipVisionModel)(config)
    if not is_clip:
        tensors = {name.removeprefix("vision_model."): tensor for name, tensor in tensors.items()}
    missing, unexpected = model.load_state_dict(tensors, assign=True, strict=False)
    assert not unexpected
    assert not [name for name in missing if not name.endswith("position_ids")]
    (model.vision_model if is_clip else model).embeddings.position_ids = torch.arange(size.tokens)[None]
    return model.eval()


def reference_embed(weights, backbone):
    """Return a function: uint8 (n, s, s, 3) -> embeddings of unit length, float32 (n, d)."""
    import torch

    model = reference_model(weights, backbone)
    mean, std = (np.array(of, np.float32) for of in (backbone.preprocess.mean, backbone.preprocess.std))

    @torch.inference_mode()
    def embed(pixels):
        values = torch.from_numpy(((pixels.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2).copy())
        found = [model(pixel_values=part) for part in values.split(4)]
        embeddings = torch.cat([part.pooler_output if backbone.vit.names.pool else part.image_embeds for part in found])
        return torch.nn.functional.normalize(embeddings, dim=-1).numpy()

    return embed
