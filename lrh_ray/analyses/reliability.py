"""Is a probability of .8 right four times in five? Calibration error with its null, and the Brier score in parts.

Rows are sorted by probability into bins of equal mass, and in each the mean probability is compared with the share of
positive rows (expected calibration error, ECE). Two choices make the number honest:

- *Equal mass, not equal width.* Most probabilities of a good probe lie near 0 and 1; bins of equal width leave the
  middle ones with a handful of rows each, whose noise is counted as error.
- *A null.* ECE is a mean of absolute values, so a perfectly calibrated probe has one above 0: the mean over bins of
  sqrt(2 p (1 - p) / (pi n)) with n rows in each. `calibration_null` draws what it would be at this sample size. An ECE
  within the null shows no miscalibration, and `ece - null.mean(axis=0)` takes the bias off.

    ece = calibration_error(held_out, held_out.ones)[0]                             # [K]
    null = calibration_null(held_out, draws=999, seed=0)                            # [B, K]
    max_t_p_values(ece, null)                                                       # `multiplicity`
    parts = brier_parts(held_out)        # reliability - resolution + uncertainty + what the bins hide

Scores are log-odds; `top_label` makes several classes one column of confidences.

What can go wrong: rows of one document err together. Labels drawn row by row (`level="token"`) then give too narrow a
null; `level="document"` flips the sign of whole documents' errors instead, which needs some 50 documents. Percentiles
of a bootstrapped ECE lie too high, since resampling adds its noise to the bias; use the null.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from lrh_ray.analyses.auc import midranks
from lrh_ray.analyses.controls import Level
from lrh_ray.analyses.held_out import HeldOut
from lrh_ray.analyses.layouts import Classes, Documents, DocumentWeights, Draws, LogPosteriors, ProbeFloats
from lrh_ray.analyses.metrics import mean_over_documents
from lrh_ray.analyses.ratio import ratio
from lrh_ray.errors import ConfigError, NotEnoughData

NUM_BINS = 15
CHUNK_FLOATS = 1 << 20
"""Largest temporary in numbers: draws are made in chunks of this size over rows."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BrierParts:
    """Brier score of K probes as `reliability - resolution + uncertainty + within`, exactly.

    `reliability` is the squared distance of probabilities from shares over bins (0 is calibrated), `resolution` the
    spread of the shares (large is informative), `uncertainty` the variance of the labels, which no probe changes.
    `within` is what the bins hide: the variance of probabilities inside them less twice their covariance with the
    labels there (Stephenson et al. 2008). It is negative where a probe tells rows of one bin apart.
    """

    brier: ProbeFloats
    reliability: ProbeFloats
    resolution: ProbeFloats
    uncertainty: ProbeFloats
    within: ProbeFloats


def calibration_error(held_out: HeldOut, weights: DocumentWeights, num_bins: int = NUM_BINS) -> Draws:
    """ECE [B, K]: the mean over bins of |mean probability - share of positive rows|, weighted by rows.

    Bins are those of the rows as they are, so draws share them. NaN where a draw holds no row of the population.
    """
    result = np.empty((len(weights), held_out.scores.shape[1]))
    for k, rows in enumerate(_each_probe(held_out, num_bins)):
        error_SB, count_SB = (rows.sums(values) for values in (rows.error, np.ones_like(rows.error)))
        result[:, k] = ratio(np.abs(weights @ error_SB).sum(axis=1), (weights @ count_SB).sum(axis=1), otherwise=np.nan)
    return result


def calibration_null(
    held_out: HeldOut, draws: int, seed: int, level: Level = "token", num_bins: int = NUM_BINS
) -> Draws:
    """ECE [B, K] of a perfectly calibrated probe with these probabilities on these rows.

    `token`: labels drawn anew from the probabilities, independent given them. `document`: errors p - y as observed,
    with one random sign per document, so that errors that rows of a document share stay shared; probes of one call see
    the same signs. Costs draws * rows per probe at the token level, draws * documents * bins at the other.

    Raises:
        ConfigError: fewer than 20 draws, too few for a 95 % level.
    """
    if draws < 20:
        raise ConfigError(f"A null of {draws!r} draws has no 95 % level; use at least 20, better 999.")
    result = np.empty((draws, held_out.scores.shape[1]))
    for k, rows in enumerate(_each_probe(held_out, num_bins)):
        rng = np.random.default_rng([seed, 0 if level == "document" else k + 1])
        result[:, k] = _drawn_labels(rows, draws, rng) if level == "token" else _flipped_documents(rows, draws, rng)
    return result


def brier(held_out: HeldOut, weights: DocumentWeights) -> Draws:
    """Mean squared distance [B, K] of the probability from the 0/1 label."""
    squares = (expit(held_out.scores) - held_out.probe_labels) ** 2
    return mean_over_documents(squares, held_out.probe_members, held_out.documents, weights)


def brier_parts(held_out: HeldOut, num_bins: int = NUM_BINS) -> BrierParts:
    """The decomposition over bins of equal mass (Murphy 1973) on the rows as they are."""
    parts = np.array([_brier_parts(rows) for rows in _each_probe(held_out, num_bins)]).T
    brier, reliability, resolution, uncertainty, within = parts
    return BrierParts(
        brier=brier, reliability=reliability, resolution=resolution, uncertainty=uncertainty, within=within
    )


def top_label(log_posteriors: LogPosteriors, classes: Classes, documents: Documents, num_documents: int) -> HeldOut:
    """Several classes as one column: the confidence in the most probable class, labelled by whether it is right."""
    right = log_posteriors.argmax(axis=1) == classes
    confidence = np.minimum(np.exp(log_posteriors.max(axis=1)), 1.0)  # rounding may exceed 1, which has no log-odds
    return HeldOut(
        scores=logit(confidence)[:, None],
        columns=np.zeros(1, dtype=np.int64),
        labels=right[:, None].astype(np.float64),
        populations=np.zeros(1, dtype=np.int64),
        members=np.ones((len(right), 1), dtype=bool),
        documents=documents,
        num_documents=num_documents,
    )


def equal_mass_bins(probabilities: np.ndarray, num_bins: int) -> np.ndarray:
    """Bin of each row, 0 to `num_bins` - 1, by rank. Equal probabilities share a bin, so row order does not matter."""
    return np.asarray(((midranks(probabilities) - 0.5) * num_bins / len(probabilities)).astype(np.int64))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Binned:
    """Rows of one probe's population: probability, label, document and bin of each."""

    p: np.ndarray
    labels: np.ndarray
    documents: np.ndarray
    bins: np.ndarray
    num_bins: int
    num_documents: int

    @property
    def error(self) -> np.ndarray:
        return np.asarray(self.p - self.labels)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums per document and bin [S, bins]."""
        place = self.documents * self.num_bins + self.bins
        return np.bincount(place, values, minlength=self.num_documents * self.num_bins).reshape(-1, self.num_bins)


def _each_probe(held_out: HeldOut, num_bins: int) -> Iterator[_Binned]:
    if num_bins < 1:
        raise ConfigError(f"Calibration was asked for {num_bins!r} bins; use at least 1, {NUM_BINS} say.")
    for k in range(held_out.scores.shape[1]):
        inside = held_out.probe_members[:, k]
        if not inside.any():
            raise NotEnoughData(f"Probe {k} has no held-out rows in its population; hold out more documents.")
        p = expit(held_out.scores[inside, k])
        yield _Binned(
            p=p,
            labels=held_out.probe_labels[inside, k],
            documents=held_out.documents[inside],
            bins=equal_mass_bins(p, num_bins),
            num_bins=num_bins,
            num_documents=held_out.num_documents,
        )


def _drawn_labels(rows: _Binned, draws: int, rng: np.random.Generator) -> np.ndarray:
    order = np.argsort(rows.bins, kind="stable")
    p, starts = rows.p[order], np.unique(rows.bins[order], return_index=True)[1]
    step, result = max(1, CHUNK_FLOATS // max(1, len(p))), []
    for first in range(0, draws, step):
        error_BN = p - (rng.random((min(step, draws - first), len(p))) < p)
        result.append(np.abs(np.add.reduceat(error_BN, starts, axis=1)).sum(axis=1) / len(p))
    return np.concatenate(result)


def _flipped_documents(rows: _Binned, draws: int, rng: np.random.Generator) -> np.ndarray:
    signs_BS = rng.choice([-1.0, 1.0], size=(draws, rows.num_documents))
    return np.asarray(np.abs(signs_BS @ rows.sums(rows.error)).sum(axis=1) / len(rows.p))


def _brier_parts(rows: _Binned) -> tuple[float, ...]:
    count, n = np.bincount(rows.bins, minlength=rows.num_bins), len(rows.p)
    p_bin, share = (
        ratio(np.bincount(rows.bins, values, minlength=rows.num_bins), count, otherwise=0.0)
        for values in (rows.p, rows.labels)
    )
    rate, p_off, y_off = rows.labels.mean(), rows.p - p_bin[rows.bins], rows.labels - share[rows.bins]
    return (
        float((rows.error**2).mean()),
        float(count @ (p_bin - share) ** 2 / n),
        float(count @ (share - rate) ** 2 / n),
        float(rate * (1 - rate)),
        float((p_off**2 - 2 * p_off * y_off).mean()),
    )
