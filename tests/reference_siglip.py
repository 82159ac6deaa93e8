"""SigLIP's vision tower as transformers computes it: eager, in float32, with weights in our file format."""

import pytest
from safetensors.numpy import load_file


def reference_siglip(weights, config):
    """Return ``SiglipVisionModel`` with the weights in a file."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    vision = transformers.SiglipVisionConfig(
        hidden_size=config.width,
        intermediate_size=config.mlp,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        image_size=config.image_size,
        patch_size=config.patch,
        attn_implementation="eager",
    )
    with torch.device("meta"):
        tower = transformers.SiglipVisionModel(vision)
    tensors = {n.removeprefix("vision_model."): torch.from_numpy(t) for n, t in load_file(weights).items()}
    tower.load_state_dict(tensors, assign=True)
    tower.embeddings.position_ids = torch.arange(config.tokens)[None]
    return tower.eval()
