"""Probabilities that mean what they say: maps from a probe's scores to log-odds, fitted on validation rows.

A probe may order rows perfectly and still be sure of too much: heavy regularisation shrinks its log-odds, a rich
feature space stretches them, and ridge scores are no log-odds at all. A monotone map fitted on rows that the probe has
not seen repairs this and leaves the order alone:

    temperature   t / T                one number; keeps every decision (Guo et al. 2017)
    Platt         a t + b              two; also repairs a shifted base rate, and makes ridge scores log-odds (1999)
    isotonic      any ascending steps  follows any shape, needs about 1000 rows (Zadrozny & Elkan 2002)

    calibrated = recalibrated(test, fit_platt(validation))
    log_loss(calibrated, weights); calibration_error(calibrated, weights)        # `metrics`, `reliability`

Scores stay log-odds in nats throughout, so every metric of log-odds applies before and after.

What can go wrong: a map fitted on the rows it is judged on looks calibrated whatever the probe does; split by document.
Isotonic steps may end at probabilities of exactly 0 or 1, where one wrong row makes the log-loss infinite.
"""

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from scipy.optimize import brentq, minimize
from scipy.special import expit, log_softmax, logit, softmax
from sklearn.isotonic import IsotonicRegression

from lrh_ray.analyses.held_out import HeldOut
from lrh_ray.analyses.layouts import Classes, LogPosteriors, ProbeFloats, ProbeScores
from lrh_ray.errors import NotConverged, NotEnoughData

NEAR, POLISHING = 1e-5, 4
"""The gradient at which Newton's own steps take over from the trust region, and how many they are."""

GRADIENT = 1e-9
"""Largest gradient at which a Platt fit counts as done, in nats per row and standard deviation of the scores."""

STEEPEST = 1e15
"""Inverse temperature, in units of one over the largest score, at which rounding makes all rows certain."""


@runtime_checkable
class Calibration(Protocol):
    """A fitted map of the scores of K probes."""

    def log_odds(self, scores: ProbeScores) -> ProbeScores: ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AffineCalibration:
    """slope * score + intercept, per probe [K]. A temperature is 1 / slope with intercept 0."""

    slope: ProbeFloats
    intercept: ProbeFloats

    def log_odds(self, scores: ProbeScores) -> ProbeScores:
        return np.asarray(scores * self.slope + self.intercept)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class IsotonicCalibration:
    """Per probe the scores at its knots and the probabilities there; linear between, constant outside."""

    knots: tuple[np.ndarray, ...]
    probabilities: tuple[np.ndarray, ...]

    def log_odds(self, scores: ProbeScores) -> ProbeScores:
        """Infinite where the probability is 0 or 1."""
        columns = zip(scores.T, self.knots, self.probabilities, strict=True)
        return np.stack([logit(np.interp(column, at, value)) for column, at, value in columns], axis=1)


def recalibrated(held_out: HeldOut, calibration: Calibration) -> HeldOut:
    """The same rows with calibrated log-odds as scores."""
    return replace(held_out, scores=calibration.log_odds(held_out.scores))


def fit_platt(validation: HeldOut) -> AffineCalibration:
    """Slope and intercept that minimise the log-loss against Platt's targets (n+ + 1)/(n+ + 2) and 1/(n- + 2).

    The targets keep the minimum finite where a score separates the classes. A score that is constant gets slope 0.

    Raises:
        NotEnoughData: a probe has validation rows of one class only.
        NotConverged: the gradient does not vanish, which no finite scores should cause.
    """
    fits = [_platt(*_own(validation, k)) for k in range(validation.scores.shape[1])]
    slope, intercept = (np.array(values, dtype=np.float64) for values in zip(*fits, strict=True))
    return AffineCalibration(slope=slope, intercept=intercept)


def fit_temperature(validation: HeldOut) -> AffineCalibration:
    """One temperature per binary probe of log-odds; see `inverse_temperature`."""
    slope = []
    for k in range(validation.scores.shape[1]):
        scores, labels = _own(validation, k)
        both = np.stack([np.zeros_like(scores), scores], axis=1)
        slope.append(inverse_temperature(both, labels.astype(np.int64)))
    return AffineCalibration(slope=np.array(slope), intercept=np.zeros(len(slope)))


def fit_isotonic(validation: HeldOut) -> IsotonicCalibration:
    """The ascending function with the least squared error (pool adjacent violators, scikit-learn).

    Raises:
        NotEnoughData: a probe has validation rows of one class only.
    """
    fits = []
    for k in range(validation.scores.shape[1]):
        scores, labels = _own(validation, k)
        fits.append(IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, labels))
    return IsotonicCalibration(
        knots=tuple(fit.X_thresholds_ for fit in fits), probabilities=tuple(fit.y_thresholds_ for fit in fits)
    )


def inverse_temperature(logits: LogPosteriors, classes: Classes) -> float:
    """The b >= 0 with the least mean of -log softmax(b logits)[class]; 1 / b is the temperature.

    0 where the logits say nothing of the classes, or the opposite. The objective is convex in b, so its slope, the mean
    of E_p[logit] - logit of the class, is followed to its only zero.

    Raises:
        NotEnoughData: every row's class has its largest logit, so no b is best.
    """
    centred = logits - logits.mean(axis=1, keepdims=True)
    scale = np.abs(centred).max()
    if not scale > 0:
        return 0.0
    unit = centred / scale
    own = np.take_along_axis(unit, classes[:, None], axis=1)[:, 0]

    def slope(b: float) -> float:
        return float(((softmax(b * unit, axis=1) * unit).sum(axis=1) - own).mean())

    if slope(0.0) >= 0:
        return 0.0
    high = 1.0
    while slope(high) < 0 and high < STEEPEST:
        high *= 2
    if (own >= unit.max(axis=1)).all() or high >= STEEPEST:
        raise NotEnoughData(
            f"All {len(classes)} validation rows have the largest score for their own class, so no temperature is the "
            "best. Use Platt scaling, or validate on more documents."
        )
    return float(brentq(slope, 0.0, high, xtol=1e-14 * high, rtol=1e-13)) / float(scale)


def tempered(log_posteriors: LogPosteriors, inverse: float) -> LogPosteriors:
    """Log posteriors at another temperature, normalised anew."""
    return np.asarray(log_softmax(inverse * log_posteriors, axis=1))


def _own(validation: HeldOut, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels of probe k on its own rows."""
    inside = validation.probe_members[:, k]
    labels = validation.probe_labels[inside, k]
    if len(np.unique(labels)) < 2:
        raise NotEnoughData(
            f"Probe {k} has {len(labels)} validation rows, {labels.sum():.0f} of them positive; calibration needs rows "
            "of both classes. Validate on more documents."
        )
    return validation.scores[inside, k], labels


def _platt(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Newton in a trust region on standardised scores, mapped back."""
    num_positive, num_negative = labels.sum(), (1 - labels).sum()
    targets = np.where(labels > 0.5, (num_positive + 1) / (num_positive + 2), 1 / (num_negative + 2))
    mean, sd = scores.mean(), scores.std()
    if not sd > 1e-12 * np.abs(scores).max():
        return 0.0, float(logit(targets.mean()))
    x_N2 = np.stack([(scores - mean) / sd, np.ones(len(scores))], axis=1)

    def loss(v: np.ndarray) -> float:
        t = x_N2 @ v
        return float((np.logaddexp(0, t) - targets * t).mean())

    def gradient(v: np.ndarray) -> np.ndarray:
        return np.asarray(x_N2.T @ (expit(x_N2 @ v) - targets) / len(targets))

    def hessian(v: np.ndarray) -> np.ndarray:
        p = expit(x_N2 @ v)
        return np.asarray((x_N2.T * (p * (1 - p))) @ x_N2 / len(targets))

    start = np.array([0.0, logit(targets.mean())])
    fit = minimize(loss, start, jac=gradient, hess=hessian, method="trust-exact", options={"gtol": NEAR})
    best = fit.x
    for _ in range(POLISHING):  # so near the minimum the loss has no digits left to judge a step by, the gradient has
        best = best - np.linalg.solve(hessian(best), gradient(best))
    if not np.abs(gradient(best)).max() <= GRADIENT:
        raise NotConverged(
            f"Platt scaling stopped at a gradient of {np.abs(gradient(best)).max():.1e} on {len(scores)} rows "
            f"({fit.message}). Look for scores that are not finite or many orders of magnitude apart."
        )
    slope = float(best[0]) / float(sd)
    return slope, float(best[1]) - slope * float(mean)
