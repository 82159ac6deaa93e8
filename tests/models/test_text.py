"""The text half of CLIP against transformers' own, on the same texts."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tastemaker.errors import ModelError
from tastemaker.models.hub import weights_path
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
from tastemaker.models.text import TextTower
from tastemaker.testing import random_text_tower, write_tokenizer

TEXTS = [
    *("a photo of a cat", "Boats  at\tsunset", "", " ", "it's WE'RE don't 123 4", "Straße, naïve café — “quoted”"),
    *("富士山と桜", "Ночь, улица, фонарь", "صورة قطة", "👩‍👩‍👧 🇩🇪 !!!???", "a" * 400, "word " * 200, "x\x00y"),
]


@pytest.fixture(scope="module")
def files(model_dir):
    return weights_path(CLIP_VIT_L14, model_dir), weights_path(CLIP_VIT_L14.text.tokenizer, model_dir)


@pytest.fixture(scope="module")
def tower(files):
    return TextTower(*files)


def reference(weights, tokenizer, texts, layers, mlp=128):
    """What transformers makes of texts: eager, float32, of unit length."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    tensors = {name: torch.from_numpy(t.copy()) for name, t in load_file(weights).items() if name.startswith("text_")}
    words, width = tensors[CLIP_VIT_L14.text.names.vocabulary].shape
    sizes = {"vocab_size": words, "hidden_size": width, "num_hidden_layers": layers, "intermediate_size": mlp}
    config = transformers.CLIPTextConfig(
        **sizes, num_attention_heads=width // 64, projection_dim=768, eos_token_id=2, attn_implementation="eager"
    )
    model = transformers.CLIPTextModelWithProjection(config)
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected
    assert not [name for name in missing if "position_ids" not in name]
    made = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tokenizer), pad_token="<|endoftext|>")
    ids = made(texts, padding=True, truncation=True, max_length=77, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        return torch.nn.functional.normalize(model.eval()(ids).text_embeds, dim=-1).numpy()


def test_texts_of_all_kinds_are_embedded_as_transformers_does(files, tower):
    np.testing.assert_allclose(tower.embed(TEXTS), reference(*files, TEXTS, layers=2), atol=1e-5)


@pytest.mark.slow
def test_the_real_dimensions_are_embedded_as_transformers_does(tmp_path):
    weights, tokenizer = tmp_path / "model.safetensors", tmp_path / "tokenizer.json"
    rng = np.random.default_rng(1)
    save_file(random_text_tower(rng, width=768, layers=12, mlp=3072, words=49408), weights)
    write_tokenizer(tokenizer)
    expected = reference(weights, tokenizer, TEXTS, layers=12, mlp=3072)
    np.testing.assert_allclose(TextTower(weights, tokenizer).embed(TEXTS), expected, atol=1e-5)


def test_a_text_s_embedding_has_unit_length_and_does_not_depend_on_the_others(tower):
    together = tower.embed(TEXTS * 4)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(together[: len(TEXTS)], np.concatenate([tower.embed([t]) for t in TEXTS]), atol=1e-6)
    assert tower.embed([]).shape == (0, 768)


def test_the_end_of_a_long_text_is_not_seen(tower):
    first, second, third = tower.embed(["cat " * 100 + "one", "cat " * 100 + "two", "dog " * 100])
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - third).max() > 1e-3


@pytest.mark.parametrize("content", [b"", b"{}", b"<html>", b"\xff\xfe", b'{"model": 3}'])
def test_a_file_that_is_no_tokenizer_is_named(files, tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"tokenizer\.json cannot be read as a tokenizer"):
        TextTower(files[0], tmp_path / "tokenizer.json")


def test_files_that_do_not_fit_each_other_are_refused(files, tmp_path):
    write_tokenizer(tmp_path / "tokenizer.json", merges=[("a", "b</w>"), *((c, "a") for c in "bcdefghijklmn")])
    with pytest.raises(ModelError, match=r"has 528 tokens, and .* knows 520"):
        TextTower(files[0], tmp_path / "tokenizer.json")
    tensors = {name: tensor for name, tensor in load_file(files[0]).items() if not name.startswith("text_")}
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"holds no text tower of openai/clip-vit-large-patch14: .* is missing"):
        TextTower(tmp_path / "model.safetensors", files[1])
