"""CLIP's vision tower as transformers computes it: eager, in float32, with weights in our file format."""

import pytest
from safetensors.numpy import load_file


def reference_tower(weights, config, activation="quick_gelu", eps=1e-5):
    """Return ``CLIPVisionModelWithProjection`` with the weights in a file; its text half is left out."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    vision = transformers.CLIPVisionConfig(
        hidden_size=config.width,
        intermediate_size=config.mlp,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        image_size=config.image_size,
        patch_size=config.patch,
        projection_dim=config.dimension,
        hidden_act=activation,
        layer_norm_eps=eps,
        attn_implementation="eager",
    )
    with torch.device("meta"):
        tower = transformers.CLIPVisionModelWithProjection(vision)
    tensors = {n: torch.from_numpy(t) for n, t in load_file(weights).items() if not n.startswith("text_")}
    missing, unexpected = tower.load_state_dict(tensors, assign=True, strict=False)
    assert not unexpected
    assert not [name for name in missing if not name.endswith("position_ids")]
    tower.vision_model.embeddings.position_ids = torch.arange(config.tokens)[None]
    return tower.eval()
