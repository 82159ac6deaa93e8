"""The models that scripts use without a pipeline, against transformers with the same weights."""

import numpy as np
import pytest
from conftest import encode, make_tar
from PIL import Image
from reference_towers import reference_model
from safetensors.numpy import load_file

from tastemaker.compat.nemo_curator import models, stages
from tastemaker.errors import ModelError
from tastemaker.models.hub import weights_path
from tastemaker.models.published.laion_v2 import AESTHETIC_PREDICTOR
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
from tastemaker.models.text import TextTower
from tastemaker.tasks import FileGroupTask

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def reference(model_dir):
    """Function from a list of images to embeddings: transformers, eager, float32."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    model = reference_model(weights_path(CLIP_VIT_L14, model_dir), CLIP_VIT_L14)
    processor = CLIPImageProcessorPil()

    def embed(images):
        with torch.no_grad():
            features = model(processor(images=images, return_tensors="pt")["pixel_values"]).image_embeds
        return torch.nn.functional.normalize(features).numpy()

    return embed


@pytest.fixture(scope="module")
def images(full_photographs):
    """Photographs of different sizes, some of which the two references crop one pixel apart."""
    import io

    return [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in full_photographs.values()]


@pytest.fixture(scope="module")
def embedder(model_dir):
    model = models.CLIPImageEmbeddings(str(model_dir))
    model.setup()
    return model


def test_list_of_images_gets_the_numbers_of_transformers(embedder, reference, images):
    embeddings = embedder(images)
    assert isinstance(embeddings, torch.Tensor)
    np.testing.assert_allclose(embeddings.cpu().numpy(), reference(images), atol=1e-5)


def test_pipeline_stages_give_the_numbers_of_transformers(tmp_path, model_dir, reference, images):
    """Read, embed and score a shard: what a script gets."""
    encoded = [encode(image, "PNG") for image in images]
    shard = make_tar(tmp_path / "a.tar", [(f"{number}.png", data) for number, data in enumerate(encoded)])
    reader, embedding = stages.ImageReaderStage(100, False), stages.ImageEmbeddingStage(str(model_dir))
    scorer = stages.ImageAestheticFilterStage(str(model_dir), score_threshold=-100.0)
    (batch,) = reader.process(FileGroupTask(dataset_name="d", data=[str(shard)]))
    batch = scorer.process(embedding.process(batch))
    expected = reference(images)
    np.testing.assert_allclose([image.embedding for image in batch.data], expected, atol=1e-5)
    np.testing.assert_allclose(
        [image.aesthetic_score for image in batch.data], score_by_layers(expected, model_dir), atol=1e-4
    )


def test_pixels_in_memory_get_the_numbers_of_transformers(model_dir, reference, images):
    from tastemaker.tasks import ImageBatch, ImageObject

    batch = ImageBatch(data=[ImageObject(image_id="a", image_data=image) for image in images], dataset_name="d")
    embedded = stages.ImageEmbeddingStage(str(model_dir)).process(batch)
    np.testing.assert_allclose([image.embedding for image in embedded.data], reference(images), atol=1e-5)


def crop_as_torchvision(image):
    """What torchvision's Resize (bicubic, antialiased, on a tensor) and CenterCrop make of one image."""
    height, width = image.shape[:2]
    short = min(height, width)
    new_height, new_width = int(224 * height / short), int(224 * width / short)
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    resized = torch.nn.functional.interpolate(
        pixels, size=(new_height, new_width), mode="bicubic", antialias=True, align_corners=False
    )
    top, left = round((new_height - 224) / 2.0), round((new_width - 224) / 2.0)
    return resized.clamp(0, 255).round().byte()[0, :, top : top + 224, left : left + 224].permute(1, 2, 0).numpy()


def test_stacked_images_are_cropped_as_torchvision_does(embedder, images):
    """One array of equal images takes NeMo Curator's tensor path: another crop, and a resize within 5 of 255."""
    rocket = next(image for image in images if image.shape == (427, 640, 3))
    stack = np.stack([rocket, rocket[:, ::-1]])
    through_torch = np.stack([crop_as_torchvision(image) for image in stack])  # 224 x 224: nothing is resized again
    wanted = embedder(through_torch).numpy()
    ours, as_list = embedder(stack).numpy(), embedder(list(stack)).numpy()
    assert np.abs(ours - wanted).max() < np.abs(as_list - wanted).max() / 5
    assert (1 - (ours * wanted).sum(axis=1)).max() < 1e-4


def test_tensor_of_images_is_taken(embedder, images):
    stack = np.stack([images[0], images[0][::-1]])
    as_tensor = torch.from_numpy(stack.copy()).permute(0, 3, 1, 2)
    np.testing.assert_array_equal(embedder(as_tensor), embedder(list(stack)))


@pytest.mark.parametrize("wrong", [np.zeros((9, 9, 3)), np.zeros((9, 9), np.uint8), np.zeros((9, 9, 4), np.uint8)])
def test_image_of_another_type_is_an_error_that_names_it(embedder, wrong):
    with pytest.raises(ModelError, match="image 1 must be uint8"):
        embedder([np.zeros((9, 9, 3), np.uint8), wrong])


def score_by_layers(embeddings, model_dir):
    """Return scores as NeMo Curator computes them: linear layers one after the other in float32."""
    tensors = load_file(weights_path(AESTHETIC_PREDICTOR, model_dir))
    x = torch.from_numpy(np.ascontiguousarray(embeddings))
    for number in (0, 2, 4, 6, 7):
        weight, bias = (torch.from_numpy(tensors[f"layers.{number}.{part}"]) for part in ("weight", "bias"))
        x = torch.nn.functional.linear(x, weight, bias)
    return x.squeeze(1).numpy()


def test_scores_are_those_of_the_layers(model_dir, reference, images):
    scorer = models.AestheticScorer(str(model_dir))
    scorer.setup()
    embeddings = reference(images)
    scores = scorer(embeddings)
    assert tuple(scores.shape) == (len(images),)
    np.testing.assert_allclose(scores.cpu().numpy(), score_by_layers(embeddings, model_dir), atol=1e-5)
    np.testing.assert_array_equal(scorer(torch.from_numpy(embeddings)), scores)


def test_chained_scorer_is_both_models(model_dir, embedder, images):
    chained = models.CLIPAestheticScorer(model_dir=str(model_dir))
    chained.setup()
    expected = models.AestheticScorer(str(model_dir))(embedder(images))
    np.testing.assert_allclose(chained(images), expected, atol=1e-6)


def test_arrays_come_back_where_torch_is_missing(embedder, images, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    assert type(embedder(images[:1])) is np.ndarray


def test_weights_are_where_both_programs_look(model_dir):
    models.CLIPAestheticScorer.download_weights_on_node(str(model_dir))  # they are there: nothing is asked
    path = models.AestheticScorer(str(model_dir)).get_weights_path()
    assert path == f"{model_dir}/ttj/sac-logos-ava1-l14-linearMSE/model.safetensors"
    assert models.CLIPImageEmbeddings(str(model_dir)).model_id_names == ["openai/clip-vit-large-patch14"]


def test_texts_are_embedded_in_the_space_of_the_images(model_dir):
    model = models.CLIPImageEmbeddings(str(model_dir))
    texts = ["a cat", "", "boats at sunset " * 40]
    found = model.encode_text(texts)
    assert isinstance(found, torch.Tensor)
    files = [weights_path(file, model_dir) for file in (CLIP_VIT_L14, CLIP_VIT_L14.text.tokenizer)]
    np.testing.assert_array_equal(found.numpy(), TextTower(*files).embed(texts))
    assert model.encode_text([]).shape == (0, 768)
