"""Aesthetic Predictor V2.5, 2024: linear layers on Google's SigLIP, for photographs and illustrations.

Sources of the constants: ``config.json``, ``preprocessor_config.json`` (bicubic, squashed) and ``model.safetensors`` of
google/siglip-so400m-patch14-384 on the Hugging Face hub, at the revision named here; for the head,
discus0434/aesthetic-predictor-v2-5 on GitHub. No digest of the head's file is known.
"""

from __future__ import annotations

from functools import partial

from tastemaker.imaging.model_input import Preprocess
from tastemaker.models.published.layers import load_layers
from tastemaker.models.records import Backbone, Head, Scorer, VitConfig, VitNames

SIGLIP_SO400M = Backbone(
    id="google/siglip-so400m-patch14-384",
    description="SigLIP so400m/14 at 384 pixels, images to embeddings",
    revision="9fdffc58afc957d1a03a25b10dba0329ab15c2a3",
    sha256="ea2abad2b7f8a9c1aa5e49a244d5d57ffa71c56f720c94bc5d240ef4d6e1d94a",
    size_bytes=3_511_950_624,
    licence="Apache-2.0",
    preprocess=Preprocess(384, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), fit="squash"),
    dimension=1152,
    vit=VitConfig(
        activation="gelu_tanh",
        eps=1e-6,
        head_width=72,
        names=VitNames(
            class_token=None,
            patches_bias="vision_model.embeddings.patch_embedding.bias",
            first_norm=None,
            projection=None,
            pool="vision_model.head",
        ),
    ),
)

AESTHETIC_PREDICTOR_V2_5 = Head(
    id="discus0434/aesthetic-predictor-v2-5",
    description="Aesthetic Predictor V2.5, embeddings to scores",
    filename="aesthetic_predictor_v2_5.pth",
    url="https://github.com/discus0434/aesthetic-predictor-v2-5/raw/main/models/aesthetic_predictor_v2_5.pth",
    licence="AGPL-3.0",
    dimension=1152,
    load=partial(load_layers, kind="linear"),
)

SIGLIP_V2_5 = Scorer(
    name="siglip-v2.5",
    column="siglip_v2_5",
    backbone=SIGLIP_SO400M,
    head=AESTHETIC_PREDICTOR_V2_5,
    score_range=(1.0, 10.0),
    customary_cutoffs=(5.5,),  # its author calls 5.5 and more great
)
