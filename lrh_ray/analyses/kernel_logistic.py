"""Logistic regression of few rows in many dimensions: a batch of fits, in the coordinates of the rows.

A hundred words have a hundred rows however wide the model is. The weights lie in the span of the rows, w = sum_i a_i
x_i, so a fit needs the rows' inner products alone and costs as much as its rows, at any width. Fits over the same rows
(other labels, other halves, other weights) are one batch:

    fit = fit_kernel_logistic(gram_NN, labels_BN, weights_BN, inverse_penalty=1e-4)
    fit.coefficients        # [B, N]: w of fit b is coefficients[b] @ rows
    fit.certificate         # [B]: largest violation of a_i = C weight_i (y_i - p_i), in units of C

The objective is scikit-learn's, C sum_i weight_i loss_i + |w|^2 / 2 with a free intercept; `inverse_penalty` is its C.
As C goes to 0 all p become the base rate, and with as many labels of each class the coefficients are +-C/2: the weights
ARE the difference of the class means. A probe with the C = 1e-4 of the pair test says little that the means do not.

Newton's method on the function values (Rasmussen and Williams 2006, algorithm 3.1, with the intercept solved exactly);
a step that lowers neither the objective nor the gradient is halved.

What can go wrong: `NotConverged` is raised when a certificate stays above both the tolerance and what rounding of the
scores allows. Rows that are no two classes have no probe: `NotEnoughData`.

Legend: N rows, B fits, M rows that a fit uses.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from lrh_ray.analyses.layouts import FitFloats, FitRows, RowGram
from lrh_ray.errors import NotConverged, NotEnoughData

TOLERANCE = 1e-9
MAX_STEPS, MAX_HALVINGS = 60, 30
SMALLEST_CURVATURE, ROUNDING = 1e-12, 8 * np.finfo(np.float64).eps
BATCH_FLOATS = 1 << 23
"""Numbers in the Gram matrices of fits that are solved together."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class KernelFit:
    """`coefficients` [B, N] on the rows, `intercepts` [B], `certificate` [B] in units of the inverse penalty."""

    coefficients: FitRows
    intercepts: FitFloats
    certificate: FitFloats


@dataclass(kw_only=True, slots=True)
class _Point:
    """Where every fit of a batch stands: scores and coefficients [B, M], intercepts and objective [B]."""

    scores: np.ndarray
    coefficients: np.ndarray
    intercepts: np.ndarray
    objective: np.ndarray


def fit_kernel_logistic(
    gram: RowGram, labels: FitRows, weights: FitRows, *, inverse_penalty: float, tolerance: float = TOLERANCE
) -> KernelFit:
    """Fit `labels` [B, N] of 0/1 with row weights [B, N] (0 leaves a row out) on rows with this Gram matrix [N, N].

    Costs about ten solutions of M equations per fit, where M rows have a weight.

    Raises:
        NotEnoughData: A fit has rows of one class only.
        NotConverged: A certificate stays above `tolerance`.
    """
    positive = (weights * labels).sum(axis=1)
    if not ((positive > 0) & (positive < weights.sum(axis=1))).all():
        raise NotEnoughData("A logistic fit has rows of one class only; give every half rows of both.")
    rows_BM = _rows_with_weight(weights)
    coefficients_BN, intercepts_B, certificate_B = np.zeros(labels.shape), np.zeros(len(labels)), np.zeros(len(labels))
    step = max(1, BATCH_FLOATS // rows_BM.shape[1] ** 2)
    for first in range(0, len(labels), step):
        batch = slice(first, first + step)
        rows = rows_BM[batch]
        own = np.take_along_axis(labels[batch], rows, axis=1), np.take_along_axis(weights[batch], rows, axis=1)
        point = _descend(gram[rows[:, :, None], rows[:, None, :]], *own, inverse_penalty, tolerance)
        np.put_along_axis(coefficients_BN[batch], rows, point.coefficients, axis=1)
        intercepts_B[batch] = point.intercepts
        certificate_B[batch] = _violation(point, *own, inverse_penalty)
        if (certificate_B[batch] > np.maximum(tolerance, _rounding(gram, point))).any():
            raise NotConverged(
                f"A logistic fit with C = {inverse_penalty:g} stands at a certificate of "
                f"{certificate_B[batch].max():.1e} after {MAX_STEPS} Newton steps; lower C, or scale the rows."
            )
    return KernelFit(coefficients=coefficients_BN, intercepts=intercepts_B, certificate=certificate_B)


def _rows_with_weight(weights: np.ndarray) -> np.ndarray:
    """[B, M] rows of each fit, those with a weight first; M is the largest number of them."""
    most = int((weights > 0).sum(axis=1).max())
    return np.sort(np.argsort(weights <= 0, axis=1, kind="stable")[:, :most], axis=1)


def _descend(
    gram: np.ndarray, labels: np.ndarray, weights: np.ndarray, inverse_penalty: float, tolerance: float
) -> _Point:
    """Newton's steps of a batch, each fit with its own Gram matrix, until all are done."""
    point = _start(gram, labels, weights, inverse_penalty)
    for _ in range(MAX_STEPS):
        enough = np.maximum(tolerance, _rounding(gram, point))
        going = np.flatnonzero(_violation(point, labels, weights, inverse_penalty) > enough)
        if not len(going):
            break
        _step(point, going, gram[going], labels[going], weights[going], inverse_penalty)
    return point


def _start(gram: np.ndarray, labels: np.ndarray, weights: np.ndarray, inverse_penalty: float) -> _Point:
    """No weights, and the intercept of the base rate."""
    rate_B = (weights * labels).sum(axis=1) / weights.sum(axis=1)
    intercepts_B = np.log(rate_B / (1 - rate_B))
    point = _Point(
        scores=np.repeat(intercepts_B[:, None], labels.shape[1], axis=1),
        coefficients=np.zeros_like(labels),
        intercepts=intercepts_B,
        objective=np.zeros(len(labels)),
    )
    point.objective = _objective(point, gram, labels, weights, inverse_penalty)
    return point


def _of(point: _Point, fits: np.ndarray) -> _Point:
    return _Point(
        scores=point.scores[fits],
        coefficients=point.coefficients[fits],
        intercepts=point.intercepts[fits],
        objective=point.objective[fits],
    )


def _step(
    point: _Point, going: np.ndarray, gram: np.ndarray, labels: np.ndarray, weights: np.ndarray, inverse_penalty: float
) -> None:
    """One Newton step of the fits `going`, in place; each as long as it lowers its objective."""
    here = _of(point, going)
    coefficients_BM, intercepts_B = _newton(here, gram, labels, weights, inverse_penalty)
    length_B, undecided = np.ones(len(going)), np.arange(len(going))
    for _ in range(MAX_HALVINGS):
        share = length_B[undecided, None]
        before = _of(here, undecided)
        alpha_BM = before.coefficients + share * (coefficients_BM[undecided] - before.coefficients)
        beta_B = before.intercepts + share[:, 0] * (intercepts_B[undecided] - before.intercepts)
        trial = _Point(
            scores=_times(alpha_BM, gram[undecided]) + beta_B[:, None],
            coefficients=alpha_BM,
            intercepts=beta_B,
            objective=before.objective,
        )
        trial.objective = _objective(trial, gram[undecided], labels[undecided], weights[undecided], inverse_penalty)
        own = labels[undecided], weights[undecided], inverse_penalty
        # near the minimum the objective no longer shows progress in float64, and the gradient does
        good = (trial.objective < before.objective) | (_violation(trial, *own) < _violation(before, *own))
        accepted = going[undecided[good]]
        point.scores[accepted], point.coefficients[accepted] = trial.scores[good], alpha_BM[good]
        point.intercepts[accepted], point.objective[accepted] = beta_B[good], trial.objective[good]
        undecided = undecided[~good]
        if not len(undecided):
            return
        length_B[undecided] /= 2


def _newton(
    point: _Point, gram: np.ndarray, labels: np.ndarray, weights: np.ndarray, inverse_penalty: float
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and intercepts at which the quadratic model of the objective is smallest."""
    p_BM = expit(point.scores)
    curvature_BM = inverse_penalty * weights * np.maximum(p_BM * (1 - p_BM), SMALLEST_CURVATURE)
    root_BM = np.sqrt(curvature_BM)
    residual_BM = inverse_penalty * weights * (labels - p_BM)
    target_BM = point.scores + np.divide(residual_BM, curvature_BM, out=np.zeros_like(p_BM), where=curvature_BM > 0)
    system_BMM = root_BM[:, :, None] * gram * root_BM[:, None, :]
    np.einsum("bmm->bm", system_BMM)[...] += 1.0
    both_BM2 = np.stack([root_BM * target_BM, root_BM], axis=2)
    solved_BM2 = root_BM[:, :, None] * np.linalg.solve(system_BMM, both_BM2)
    intercepts_B = solved_BM2[:, :, 0].sum(axis=1) / solved_BM2[:, :, 1].sum(axis=1)
    return solved_BM2[:, :, 0] - intercepts_B[:, None] * solved_BM2[:, :, 1], intercepts_B


def _rounding(gram: np.ndarray, point: _Point) -> np.ndarray:
    """How far rounding alone can move a fit's scores: 1e-6 where attention sinks are ten thousand long."""
    return np.asarray(ROUNDING * np.einsum("...nn->...n", gram).max() * np.abs(point.coefficients).sum(axis=1))


def _times(coefficients_BM: np.ndarray, gram_BMM: np.ndarray) -> np.ndarray:
    return np.asarray(np.matmul(coefficients_BM[:, None, :], gram_BMM)[:, 0])


def _objective(
    point: _Point, gram: np.ndarray, labels: np.ndarray, weights: np.ndarray, inverse_penalty: float
) -> np.ndarray:
    loss_BM = np.logaddexp(0.0, point.scores) - labels * point.scores
    norm_B = np.einsum("bm,bm->b", _times(point.coefficients, gram), point.coefficients)
    return np.asarray(inverse_penalty * (weights * loss_BM).sum(axis=1) + norm_B / 2)


def _violation(point: _Point, labels: np.ndarray, weights: np.ndarray, inverse_penalty: float) -> np.ndarray:
    """At the minimum, coefficient_i = C weight_i (y_i - p_i), and these sum to zero."""
    residual_BM = weights * (labels - expit(point.scores))
    stationarity_B = np.abs(point.coefficients / inverse_penalty - residual_BM).max(axis=1)
    return np.asarray(np.maximum(stationarity_B, np.abs(residual_BM.sum(axis=1))))
