"""How much of a concept some dimensions carry: mutual information in bits, with interval and null.

    I(Y; X_C) = H(Y) - H(Y | X_C)  >=  H(Y) - E[-log2 p(y | x_C)]

for the model p of any probe: a bound, which the true posterior reaches. Over held-out rows it is an estimate, and can
fall below zero, where the probe is worse than a constant guess; it is reported as it is. `share` divides it by H(Y):
information in bits grows with the number of classes, its share does not.

    found = information(probe.log_posteriors(rows, order[:5]), classes, documents, bootstrap)
    found.bits, found.low, found.high, found.share
    null = random_subsets(lambda dimensions: bits(...), num_features=D, size=5, draws=200, seed=0)
    null.p_value(found.bits)
    label_p_value(probe.log_posteriors(rows, order[:5]), classes, units, draws=200, seed=0)

The null draws subsets of the same size without regard to the labels. It says whether the selection found a place, not
whether there is anything to find: where a concept is everywhere, random dimensions do as well. Whether there is
anything to find is told by labels permuted among units (rows, or documents where a label is one of documents). Neither
replaces the other: dimensions chosen on noise mislead a probe less than random ones do.

What can go wrong: rows that chose the dimensions, or trained the probe, must not be those of the estimate.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.intervals import DocumentBootstrap, percentile_interval
from lrh_ray.analyses.layouts import Classes, Documents, DocumentWeights, Draws, Indices, LogPosteriors, Values
from lrh_ray.analyses.metrics import document_sums, multiclass_log_loss
from lrh_ray.analyses.ratio import ratio
from lrh_ray.errors import ConfigError, NotEnoughData

LOG_2 = float(np.log(2))
TILE_FLOATS = 1 << 16
"""Candidates are scored together up to so many numbers, which stay in a cache."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Information:
    """Bits that dimensions say of the label, of `entropy` bits, and their `share`; 95 % intervals over documents."""

    bits: float
    low: float
    high: float
    entropy: float
    share: float
    share_low: float
    share_high: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SubsetNull:
    """The same number for random subsets [B]."""

    draws: Values

    def p_value(self, observed: float) -> float:
        """Chance of so much or more in a random subset."""
        return float((1 + (self.draws >= observed).sum()) / (len(self.draws) + 1))


def information(
    log_posteriors: LogPosteriors, classes: Classes, documents: Documents, bootstrap: DocumentBootstrap
) -> Information:
    """The bound on held-out rows: posteriors [N, M] in nats, classes [N], and the document of each row [N].

    Raises:
        NotEnoughData: The rows are of one class, or of fewer than 2 documents.
    """
    if len(np.unique(classes)) < 2:
        raise NotEnoughData(f"All {len(classes)} rows are of one class, which leaves nothing to say; add documents.")
    num_classes, num_documents = log_posteriors.shape[1], int(documents.max()) + 1
    counts_SM = document_sums(np.eye(num_classes)[classes], documents, num_documents)

    def measured(weights: DocumentWeights) -> Draws:
        entropy = _entropy(weights @ counts_SM)
        loss = multiclass_log_loss(log_posteriors, classes, documents, weights)[:, 0] / LOG_2
        return np.stack([entropy - loss, ratio(entropy - loss, entropy, otherwise=np.nan), entropy], axis=1)

    sample = bootstrap.apply(measured, num_documents)
    interval = percentile_interval(sample.draws)
    return Information(
        bits=float(sample.estimates[0]),
        low=float(interval.low[0]),
        high=float(interval.high[0]),
        entropy=float(sample.estimates[2]),
        share=float(sample.estimates[1]),
        share_low=float(interval.low[1]),
        share_high=float(interval.high[1]),
    )


def bits(log_posteriors: LogPosteriors, classes: Classes) -> float:
    """The bound alone, for nulls: entropy of the classes less the mean loss, in bits."""
    counts = np.bincount(classes, minlength=log_posteriors.shape[1]).astype(np.float64)
    own = log_posteriors[np.arange(len(classes)), classes]
    return float(_entropy(counts[None])[0] + own.mean() / LOG_2)


def label_p_value(log_posteriors: LogPosteriors, classes: Classes, units: Documents, *, draws: int, seed: int) -> float:
    """Chance of so much or more if the labels are permuted among units [N], which agree in their label.

    Given the posteriors, observed and permuted labels are exchangeable if the probe knows nothing of them.
    """
    _, first, unit = np.unique(units, return_index=True, return_inverse=True)
    sums_UM = document_sums(log_posteriors, unit, len(first)) / LOG_2
    size_U, class_U = np.bincount(unit).astype(np.float64), classes[first]
    rng, every = np.random.default_rng([seed, len(first)]), np.arange(len(first))

    def total(own_U: np.ndarray) -> float:
        counts = np.bincount(own_U, weights=size_U, minlength=sums_UM.shape[1])
        return float(_entropy(counts[None])[0] * len(unit) + sums_UM[every, own_U].sum())

    observed = total(class_U)
    reached = sum(total(rng.permutation(class_U)) >= observed for _ in range(draws))
    return (1 + reached) / (draws + 1)


def random_subsets(
    score: Callable[[Indices], float], *, num_features: int, size: int, draws: int, seed: int
) -> SubsetNull:
    """`score` of `draws` random subsets of `size` dimensions, each without repetition.

    Raises:
        ConfigError: A size that does not exist.
    """
    if not 0 < size <= num_features:
        raise ConfigError(f"Subsets of {size!r} of {num_features} dimensions do not exist.")
    rng = np.random.default_rng([seed, num_features, size])
    subsets = (rng.permutation(num_features)[:size] for _ in range(draws))
    return SubsetNull(draws=np.array([score(subset) for subset in subsets], dtype=np.float64))


def candidate_tiles(num_features: int, joint_MN: np.ndarray) -> Iterator[slice]:
    """Candidates that are scored together."""
    width = max(1, TILE_FLOATS // joint_MN.size)
    return (slice(first, first + width) for first in range(0, num_features, width))


def likelihoods(joint_MN: np.ndarray, terms_MDN: np.ndarray, classes: Classes) -> Values:
    """Log-likelihood [D] of the labels once a candidate's terms are added to the scores of the classes, in nats.

    Of every row in float32, four times as fast as in float64; the sum over rows is one in float64.
    """
    joint_MDN = joint_MN.astype(np.float32)[:, None] + terms_MDN.astype(np.float32, copy=False)
    peak_DN = joint_MDN.max(axis=0)
    own_DN = joint_MDN[classes, :, np.arange(len(classes))].T
    log_sum_DN = np.log(np.exp(joint_MDN - peak_DN).sum(axis=0))
    return np.asarray((own_DN - peak_DN - log_sum_DN).sum(axis=1, dtype=np.float64))


def require_classes(classes: Classes) -> int:
    """Number of classes, all of which must have rows.

    Raises:
        NotEnoughData: Fewer than two, or one without rows.
    """
    counts = np.bincount(classes)
    if len(counts) < 2 or not counts.all():
        raise NotEnoughData(
            f"The classes 0 ... {len(counts) - 1} have {counts.tolist()} rows; a probe needs two classes or more, each "
            f"with rows. Number the classes that occur."
        )
    return len(counts)


def _entropy(counts_BM: np.ndarray) -> np.ndarray:
    """Entropies [B] in bits of class counts [B, M]."""
    share_BM = ratio(counts_BM, counts_BM.sum(axis=1, keepdims=True), otherwise=0.0)
    logs_BM = np.log2(np.where(share_BM > 0, share_BM, 1.0))
    return np.asarray(-(share_BM * logs_BM).sum(axis=1))
