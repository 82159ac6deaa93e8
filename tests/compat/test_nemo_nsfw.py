"""The NSFW filter, against the same layers in torch."""

from itertools import pairwise

import numpy as np
import pytest
from tiny import unit_vectors

from tastemaker.compat.nemo_curator.nsfw import ImageNSFWFilterStage, NSFWScorer
from tastemaker.errors import ModelError
from tastemaker.executors import LocalExecutor
from tastemaker.tasks import ImageBatch, ImageObject

torch = pytest.importorskip("torch")

SIZES = (768, 64, 512, 256, 1)


@pytest.fixture
def detector(tmp_path):
    """A random network in the file that LAION publishes; its directory, and a function of embeddings."""
    torch.manual_seed(0)
    linear = [torch.nn.Linear(*sizes) for sizes in pairwise(SIZES)]
    mean, variance = torch.randn(768) * 0.03, torch.rand(768) * 0.002 + 0.0005
    state = {"norm.mean": mean, "norm.variance": variance}
    for number, layer in enumerate(linear, 1):
        state |= {f"linear_{number}.{name}": tensor for name, tensor in layer.state_dict().items()}
    folder = tmp_path / "laion" / "clip-autokeras-binary-nsfw"
    folder.mkdir(parents=True)
    torch.save(state, folder / "clip_autokeras_binary_nsfw.pth")

    def score(embeddings):
        x = (torch.from_numpy(embeddings) - mean) / variance.sqrt()
        for layer in linear[:-1]:
            x = torch.relu(layer(x))
        return torch.sigmoid(linear[-1](x)).detach().numpy()[:, 0]

    return str(tmp_path), score


@pytest.fixture
def embeddings():
    return unit_vectors(50, seed=1)


def batch_of(embeddings):
    images = [ImageObject(image_id=f"i{row}", embedding=vector) for row, vector in enumerate(embeddings)]
    return ImageBatch(data=images, dataset_name="d")


def test_probabilities_are_those_of_the_layers_in_torch(detector, embeddings):
    model_dir, reference = detector
    scorer = NSFWScorer(model_dir)
    scorer.setup()
    np.testing.assert_allclose(scorer(embeddings).cpu().numpy(), reference(embeddings), atol=1e-6)
    assert np.array_equal(scorer(torch.from_numpy(embeddings)), scorer(embeddings))


def test_images_below_the_threshold_are_kept_and_the_others_have_a_reason(detector, embeddings):
    model_dir, reference = detector
    expected = reference(embeddings)
    stage = ImageNSFWFilterStage(model_dir, score_threshold=float(np.median(expected)))
    [kept] = LocalExecutor().execute([stage], [batch_of(embeddings)])
    assert [image.image_id for image in kept.data] == [
        f"i{row}" for row in np.flatnonzero(expected < np.median(expected))
    ]
    assert len(kept.dropped) == 25
    first = kept.dropped[0]
    assert first.reason == f"nsfw_score {first.nsfw_score:.3f} is not below {stage.score_threshold:g}"
    made_by = kept.partition.provenance["scores"]["nsfw_score"]
    assert made_by["scorer"] == "nsfw"
    assert stage.fingerprint()["scores"] == {"nsfw_score": made_by["sha256"]}


def test_a_score_equal_to_the_threshold_is_dropped_as_nemo_curator_drops_it(detector, embeddings):
    model_dir, _ = detector
    scores = NSFWScorer(model_dir)(embeddings[:1]).numpy()
    assert (
        ImageNSFWFilterStage(model_dir, score_threshold=float(scores[0])).process(batch_of(embeddings[:1])).data == []
    )


def test_other_weights_are_refused(detector, tmp_path):
    model_dir, _ = detector
    path = tmp_path / "laion" / "clip-autokeras-binary-nsfw" / "clip_autokeras_binary_nsfw.pth"
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(ModelError, match="not a known predictor"):
        NSFWScorer(model_dir).setup()
