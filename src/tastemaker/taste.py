"""A taste of one's own: a linear head learned from ratings or from pairs, and how far it can be trusted.

Ratings are fitted by ridge regression on unit embeddings; pairs by ridge regression of "won" on differences of
embeddings. Both begin with a score that is there already: it is a feature of its own that the penalty hardly touches,
so that few examples change little else. The penalty and every figure come from nested cross-validation
in which pictures that look alike are always on the same side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tastemaker.errors import ConfigurationError

if TYPE_CHECKING:
    from tastemaker.models.aesthetic import AestheticPredictor

FOLDS = 5
MIN_EXAMPLES = 20
"""Fewer ratings or pairs cannot be divided into folds that tell anything."""

ALPHAS = np.logspace(-1.5, 4, 12)
"""Penalties that are tried. Unit embeddings of n pictures have a total variance of less than n."""

_BASE_SCALE = 100.0
"""How much larger the feature of the known score is than its standard deviation: the penalty hardly touches it."""

LITTLE = 0.05
"""A gain that is surely no larger than this is one that nobody notices in the order of the pictures."""

_ROUNDS_OF_PAIRS = 4
_RESAMPLES = 1000

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Measure = Callable[[Array, Array], float]


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95% interval, from 1,000 resamples of the groups of pictures."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class Worth:
    """What it is worth that was learned, on pictures that it was not learned from.

    Attributes:
        kind: ``ratings`` or ``pairs``.
        examples: How many there were.
        measure: What the figures are: ``rank correlation`` (Spearman's) or ``share of pairs in the right order``.
        constant: Of the same score for all pictures, which is chance: 0 or 0.5.
        own: Of what was learned.
        reference: Of the score that was there already.
        difference: ``own`` less ``reference``.
        gain: ``own`` less what half of the examples teach.
        verdict: One sentence that claims no more than the intervals allow, and a second one where more examples would
            tell, or would change little.
    """

    kind: str
    examples: int
    measure: str
    constant: float
    own: Estimate
    reference: Estimate
    difference: Estimate
    gain: Estimate
    verdict: str


@dataclass(frozen=True)
class Taste(Worth):
    """What was learned.

    Attributes:
        weight: float64 (d,). The score of an embedding is ``weight . embedding + bias``.
        bias: The constant.
    """

    weight: Array
    bias: float


def learn_from_ratings(
    embeddings: npt.NDArray[np.floating], ratings: npt.ArrayLike, groups: Rows, base: AestheticPredictor
) -> Taste:
    """Return a head whose scores go from about 1 (the lowest rating) to 10 (the highest).

    Args:
        embeddings: float (n, d), of unit length.
        ratings: float (n,), on any scale; higher is better.
        groups: int (n,), the same number for pictures that look alike.
        base: The score to begin with.

    Raises:
        ConfigurationError: There are too few ratings, or all are the same.
    """
    given = np.asarray(ratings, np.float64)
    _check_enough(len(given), groups, "ratings")
    lowest, highest = float(given.min()), float(given.max())
    if lowest == highest:
        raise ConfigurationError(f"all {len(given)} ratings are {lowest:g}: nothing can be learned from them")
    scaled = 1 + 9 * (given - lowest) / (highest - lowest)
    space = _Space(embeddings.astype(np.float64), base)
    held_out = np.empty((2, len(scaled)))  # by all others, and by half of them
    for train, test in _split(groups):
        half = train[next(_split(groups[train], folds=2))[0]]
        for predictions, rows in zip(held_out, (train, half), strict=True):
            # Without the intercept, which is the mean of the others: it is low where those held out are high.
            predictions[test] = space.features[test] @ _fit(space.features[rows], scaled[rows], groups[rows])[0]
    coefficients, intercept = _fit(space.features, scaled, groups)
    weight, bias = space.unfold(coefficients)
    figures = _compare(_rank_correlation, held_out[0], held_out[1], space.base, scaled, groups)
    verdict = _judge(*figures, chance=0.0, examples=len(given), kind="ratings")
    return Taste("ratings", len(given), "rank correlation", 0.0, *figures, verdict, weight, bias + intercept)


def learn_from_pairs(
    embeddings: npt.NDArray[np.floating], winners: Rows, losers: Rows, groups: Rows, base: AestheticPredictor
) -> Taste:
    """Return a head that puts the winner of a pair above its loser. Its scores have the mean 5.5 and the deviation 1.5.

    Args:
        embeddings: float (n, d), of unit length.
        winners: int (m,), rows of ``embeddings``.
        losers: int (m,), rows of ``embeddings``.
        groups: int (n,), the same number for pictures that look alike.
        base: The score to begin with.

    Raises:
        ConfigurationError: There are too few pairs, or too few that share no picture with others.
    """
    _check_enough(len(winners), groups, "pairs")
    space = _Space(embeddings.astype(np.float64), base)
    pairs = space.features[winners] - space.features[losers]
    sums, counts = np.zeros((2, len(pairs))), np.zeros(len(pairs))  # by all others, and by half of them
    for number in range(_ROUNDS_OF_PAIRS):
        for train, test in _split(groups, seed=number):
            learned = np.flatnonzero(np.isin(winners, train) & np.isin(losers, train))
            judged = np.isin(winners, test) & np.isin(losers, test)
            if judged.any() and len(learned) >= MIN_EXAMPLES:
                for total, rows in zip(sums, (learned, learned[number % 2 :: 2]), strict=True):
                    total[judged] += pairs[judged] @ _fit(pairs[rows], None, groups[winners[rows]])[0]
                counts[judged] += 1
    told = counts > 0
    if told.sum() < MIN_EXAMPLES:
        raise ConfigurationError(
            f"of {len(pairs)} pairs only {int(told.sum())} can be held out together with all that looks like their "
            f"pictures; {MIN_EXAMPLES} are needed: compare more and other pictures"
        )
    known = (space.base[winners] - space.base[losers])[told]
    figures = _compare(_share_in_order, sums[0, told], sums[1, told], known, np.ones(len(known)), groups[winners[told]])
    verdict = _judge(*figures, chance=0.5, examples=len(pairs), kind="pairs")
    weight, bias = space.unfold(_fit(pairs, None, groups[winners])[0])
    scores = embeddings.astype(np.float64) @ weight + bias
    scale = 1.5 / max(float(scores.std()), 1e-12)
    bias = 5.5 + scale * (bias - float(scores.mean()))
    return Taste("pairs", len(pairs), "share of pairs in the right order", 0.5, *figures, verdict, weight * scale, bias)


class _Space:
    """Features of pictures: their centred embeddings, and the known score without a penalty.

    Attributes:
        base: The known score, float64 (n,).
        features: float64 (n, d + 1).
    """

    def __init__(self, embeddings: Array, base: AestheticPredictor) -> None:
        self._predictor = base
        self._centre = embeddings.mean(axis=0)
        self.base: Array = embeddings @ base.weight + base.bias
        self._mean, self._scale = float(self.base.mean()), _BASE_SCALE / max(float(self.base.std()), 1e-12)
        known = (self.base - self._mean) * self._scale
        self.features: Array = np.column_stack([embeddings - self._centre, known])

    def unfold(self, coefficients: npt.ArrayLike) -> tuple[Array, float]:
        """Return the same function as weights of an embedding, and a constant."""
        *own, known = np.asarray(coefficients, np.float64).ravel()
        weight: Array = np.asarray(own) + known * self._scale * self._predictor.weight
        constant = known * self._scale * (self._predictor.bias - self._mean) - float(self._centre @ np.asarray(own))
        return weight, float(constant)


def _check_enough(count: int, groups: Rows, kind: str) -> None:
    if count < MIN_EXAMPLES:
        raise ConfigurationError(
            f"{count} {kind} are too few to learn from; {MIN_EXAMPLES} are the least, 100 are good"
        )
    if len(np.unique(groups)) < 2 * FOLDS:
        raise ConfigurationError(f"the {kind} are of pictures that nearly all look alike; rate other pictures, too")


def _split(groups: Rows, seed: int = 0, folds: int = FOLDS) -> Iterator[tuple[Rows, Rows]]:
    """Yield the rows to learn from and those held out, for each fold. Groups stay whole."""
    names, members = np.unique(groups, return_inverse=True)
    numbers = np.random.default_rng(seed).permutation(len(names)) % min(folds, len(names))
    for fold in range(folds):
        is_out = numbers[members] == fold
        if is_out.any() and not is_out.all():
            yield np.flatnonzero(~is_out), np.flatnonzero(is_out)


def _fit(features: Array, values: Array | None, groups: Rows) -> tuple[Array, float]:
    """Return coefficients and the intercept, with the penalty that does best on groups that are held out.

    Args:
        features: float64 (n, d).
        values: float64 (n,); None for pairs: each row is a difference that is to be 1, and there is no intercept.
        groups: int (n,).
    """
    errors = np.zeros(len(ALPHAS))
    for train, test in _split(groups):
        paths, intercepts = _ridge_path(features[train], None if values is None else values[train])
        wanted = 1.0 if values is None else values[test, None]
        errors += ((features[test] @ paths + intercepts - wanted) ** 2).sum(axis=0)
    paths, intercepts = _ridge_path(features, values)
    best = int(errors.argmin())
    return paths[:, best], float(intercepts[best])


def _ridge_path(features: Array, values: Array | None) -> tuple[Array, Array]:
    """Return the coefficients (d, k) and intercepts (k,) of ridge regression for each of the penalties.

    By one decomposition: of the (n, n) products of rows, or of the (d, d) products of columns where those are fewer
    (Hastie, Tibshirani and Friedman, "The Elements of Statistical Learning", section 18.3.5).
    """
    centre = np.zeros(features.shape[1]) if values is None else features.mean(axis=0)
    mean = 0.0 if values is None else float(values.mean())
    targets = np.ones(len(features)) if values is None else values - mean
    centred = features - centre
    is_dual = len(centred) <= centred.shape[1]
    eigenvalues, vectors = np.linalg.eigh(centred @ centred.T if is_dual else centred.T @ centred)
    products = vectors.T @ (targets if is_dual else centred.T @ targets)
    solved = vectors @ (products[:, None] / (np.maximum(eigenvalues, 0)[:, None] + ALPHAS))  # (n or d, k)
    coefficients: Array = centred.T @ solved if is_dual else solved
    return coefficients, (0.0 if values is None else 1.0) * (mean - centre @ coefficients)


def _compare(
    measure: Measure, own: Array, by_half: Array, known: Array, values: Array, groups: Rows
) -> tuple[Estimate, Estimate, Estimate, Estimate]:
    """Return what a measure says of two predictions, their difference, and what the first gains on that of a half."""
    rng = np.random.default_rng(0)
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)

    def measure_all(rows: Rows | slice) -> tuple[float, ...]:
        mine, halved, other = (measure(predicted[rows], values[rows]) for predicted in (own, by_half, known))
        return mine, other, mine - other, mine - halved

    drawn = [
        measure_all(np.concatenate([members[number] for number in rng.integers(len(members), size=len(members))]))
        for _ in range(_RESAMPLES)
    ]
    low, high = np.nanpercentile(np.array(drawn), (2.5, 97.5), axis=0)
    first, second, third, fourth = map(Estimate, measure_all(slice(None)), low.tolist(), high.tolist())
    return first, second, third, fourth


def _rank_correlation(predictions: Array, values: Array) -> float:
    """Return Spearman's rank correlation: 0 where all predictions are the same, NaN where all values are."""
    first, second = (ranks - ranks.mean() for ranks in (_ranks(predictions), _ranks(values)))
    length = math.sqrt(float((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / length if length else 0.0 if second.any() else math.nan


def _ranks(values: Array) -> Array:
    """Return the rank of each value from 1, of equal ones the mean."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Array = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return ranks


def _share_in_order(differences: Array, _values: Array) -> float:
    return float((differences > 0).mean() + (differences == 0).mean() / 2)


def _judge(
    own: Estimate,
    _reference: Estimate,
    difference: Estimate,
    gain: Estimate,
    *,
    chance: float,
    examples: int,
    kind: str,
) -> str:
    """Return what the figures allow to claim, and whether more examples would tell more, or change little."""
    if own.low <= chance:
        return f"These {kind} do not tell yet which other pictures you like.{_more(own, chance, examples, kind)}"
    enough = ""
    if gain.high <= LITTLE:
        enough = f" More {kind} would change little: the second half of them added {max(gain.high, 0.0):.2f} at most."
    if difference.low > 0:
        return f"Better than the score that was there, on pictures that it was not learned from.{enough}"
    if difference.high < 0:
        return f"Worse than the score that was there: go on with that one.{enough}"
    more = _more(difference, 0.0, examples, kind) or enough
    return f"No better than the score that was there yet.{more}"


def _more(estimate: Estimate, bound: float, examples: int, kind: str) -> str:
    """Return how many more examples would tell, where an interval shrinks with the root of their number."""
    distance, half = estimate.value - bound, (estimate.high - estimate.low) / 2
    if distance <= half / 3:  # nothing points upwards yet, or it would take ten times as many
        return ""
    needed = examples * (half / distance) ** 2 - examples
    return f" About {max(10, round(needed, -1)):.0f} more {kind} would tell."
