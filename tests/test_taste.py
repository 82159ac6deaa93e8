"""Learning a taste: a planted one is found again, shuffled labels claim nothing, and the file scores."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from tastemaker.errors import ConfigurationError
from tastemaker.models.aesthetic import AestheticPredictor
from tastemaker.taste import learn_from_pairs, learn_from_ratings

SIZE = 96


@pytest.fixture(scope="module")
def world():
    """Unit embeddings whose directions matter ever less, a known score, and the taste of a person."""
    rng = np.random.default_rng(5)
    embeddings = rng.standard_normal((1500, SIZE)) * np.arange(1, SIZE + 1) ** -0.7
    embeddings[:, 0] += 3
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    base = AestheticPredictor([(10 * rng.standard_normal((1, SIZE)), [5.0])])
    liking = embeddings[:, :30] @ rng.standard_normal(30)
    return embeddings, base, (liking - liking.mean()) / liking.std()


def ratings_of(liking, noise, seed=0):
    return np.clip(np.round(3 + liking + noise * np.random.default_rng(seed).standard_normal(len(liking))), 1, 5)


def test_a_planted_taste_is_found_again_as_well_as_its_noise_allows(world):
    embeddings, base, liking = world
    ratings = ratings_of(liking[:1000], 0.5)
    taste = learn_from_ratings(embeddings[:1000], ratings, np.arange(1000), base)
    unseen = embeddings[1000:] @ taste.weight + taste.bias
    assert spearmanr(unseen, liking[1000:])[0] > 0.95
    possible = spearmanr(liking[:1000], ratings)[0]
    assert taste.own.value > 0.95 * possible
    assert taste.own.low < taste.own.value < taste.own.high
    assert taste.difference.low > 0
    assert taste.verdict.startswith("Better than the score that was there")
    assert taste.gain.high < 0.05
    assert "More ratings would change little" in taste.verdict
    few = learn_from_ratings(embeddings[:60], ratings[:60], np.arange(60), base)
    assert few.gain.high > 0.05
    assert "change little" not in few.verdict
    assert np.median(unseen) == pytest.approx(5.5, abs=1)


def test_ratings_of_which_one_differs_give_figures(world):
    embeddings, base, _ = world
    taste = learn_from_ratings(embeddings[:60], np.eye(1, 60)[0], np.arange(60), base)
    figures = (taste.own, taste.reference, taste.difference, taste.gain)
    assert np.isfinite([(figure.value, figure.low, figure.high) for figure in figures]).all()


def test_shuffled_ratings_tell_nothing_and_nothing_is_claimed(world):
    embeddings, base, liking = world
    values, claims = [], 0
    for seed in range(8):
        ratings = np.random.default_rng(seed).permutation(ratings_of(liking[:100], 0.5))
        taste = learn_from_ratings(embeddings[:100], ratings, np.arange(100), base)
        values.append(taste.own.value)
        claims += taste.verdict.startswith("Better") or "change little" in taste.verdict
    assert abs(np.mean(values)) < 0.08
    assert claims <= 1


def test_a_taste_that_is_the_known_score_stays_with_it_and_claims_no_more(world):
    embeddings, base, _ = world
    known = base.score(embeddings.astype(np.float32)).astype(float)
    ratings = ratings_of((known[:60] - known.mean()) / known.std(), 0.3)
    taste = learn_from_ratings(embeddings[:60], ratings, np.arange(60), base)
    assert spearmanr(embeddings[60:] @ taste.weight, known[60:])[0] > 0.97
    assert taste.verdict.startswith(("No better than the score that was there", "Worse"))


def test_pictures_that_look_alike_are_never_on_both_sides(world):
    """Each picture ten times, with ratings of chance: only a leak between the copies could predict them."""
    embeddings, base, _ = world
    copies, groups = np.repeat(embeddings[:40], 10, axis=0), np.repeat(np.arange(40), 10)
    ratings = np.repeat(np.random.default_rng(3).integers(1, 6, 40), 10)
    taste = learn_from_ratings(copies, ratings, groups, base)
    assert taste.own.low < 0.2
    assert not taste.verdict.startswith("Better")
    leaking = learn_from_ratings(copies, ratings, np.arange(400), base)
    assert leaking.own.value > 0.8


def test_pairs_teach_the_same(world):
    embeddings, base, liking = world
    rng = np.random.default_rng(1)
    first, second = rng.integers(0, 300, (2, 400))
    wins = rng.random(400) < 1 / (1 + np.exp(-3 * (liking[first] - liking[second])))
    winners, losers = np.where(wins, first, second), np.where(wins, second, first)
    taste = learn_from_pairs(embeddings[:300], winners, losers, np.arange(300), base)
    scores = embeddings[:300] @ taste.weight + taste.bias
    assert (scores.mean(), scores.std()) == (pytest.approx(5.5), pytest.approx(1.5))
    assert spearmanr(embeddings[300:] @ taste.weight, liking[300:])[0] > 0.9
    assert taste.own.low > 0.6
    assert taste.verdict.startswith("Better")
    turned = learn_from_pairs(embeddings[:300], *rng.permuted([winners, losers], axis=0), np.arange(300), base)
    assert not turned.verdict.startswith("Better")


@pytest.mark.parametrize(
    ("count", "ratings", "message"),
    [(19, None, "too few"), (50, np.full(50, 3), "all 50 ratings are 3"), (50, None, "look alike")],
)
def test_examples_that_cannot_teach_are_refused(world, count, ratings, message):
    embeddings, base, liking = world
    given = ratings_of(liking[:count], 0.5) if ratings is None else ratings
    groups = np.zeros(count, int) if message == "look alike" else np.arange(count)
    with pytest.raises(ConfigurationError, match=message):
        learn_from_ratings(embeddings[:count], given, groups, base)
