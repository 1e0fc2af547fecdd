"""Held-out metrics of many probes and many weightings of documents at once.

Every metric maps document weights [B, S] to values [B, K]: a bootstrap draw is a row of weights, the plain estimate
the row of ones. Means over rows become sums per document first, after which a draw costs O(documents). The area under
the ROC curve is not a mean over rows; it is computed in `lrh_ray.analyses.auc` and offered here with the others.

    accuracy(held_out, threshold=0.0, weights=held_out.ones)[0]     # [K]
    log_loss(held_out, weights=DocumentBootstrap(draws=1000, seed=0).weights(held_out.num_documents))

A value is NaN where its draw holds no row of the probe's population.
"""

import numpy as np

from lrh_ray.analyses.auc import auc
from lrh_ray.analyses.held_out import HeldOut
from lrh_ray.analyses.layouts import Classes, Documents, DocumentWeights, Draws, LogPosteriors, ProbeFloats
from lrh_ray.analyses.ratio import ratio
from lrh_ray.layouts import Columns64

__all__ = [
    "accuracy",
    "auc",
    "base_rate_log_loss",
    "document_sums",
    "log_loss",
    "majority_accuracy",
    "mean_over_documents",
    "multiclass_accuracy",
    "multiclass_log_loss",
]


def accuracy(held_out: HeldOut, threshold: float, weights: DocumentWeights) -> Draws:
    """Share of rows whose decision, score > threshold, equals the label: 0 for log-odds, 0.5 for ridge."""
    correct = (held_out.scores > threshold) == (held_out.probe_labels > 0.5)
    return mean_over_documents(correct, held_out.probe_members, held_out.documents, weights)


def log_loss(held_out: HeldOut, weights: DocumentWeights) -> Draws:
    """Mean of -log p(label) in nats, for scores that are log-odds (logistic, LDA; not ridge)."""
    sign = 1 - 2 * held_out.probe_labels
    losses = np.logaddexp(0, sign * held_out.scores)
    return mean_over_documents(losses, held_out.probe_members, held_out.documents, weights)


def multiclass_accuracy(
    log_posteriors: LogPosteriors, classes: Classes, documents: Documents, weights: DocumentWeights
) -> Draws:
    """Share of rows whose most probable class is theirs [B, 1]; pass only rows of the concept's population."""
    correct = (log_posteriors.argmax(axis=1) == classes)[:, None]
    return mean_over_documents(correct, np.ones_like(correct), documents, weights)


def multiclass_log_loss(
    log_posteriors: LogPosteriors, classes: Classes, documents: Documents, weights: DocumentWeights
) -> Draws:
    """Mean of -log p(class) in nats [B, 1]; pass only rows of the concept's population."""
    losses = -np.take_along_axis(log_posteriors, classes[:, None], axis=1)
    return mean_over_documents(losses, np.ones_like(losses, dtype=bool), documents, weights)


def mean_over_documents(
    values: np.ndarray, members: np.ndarray, documents: Documents, weights: DocumentWeights
) -> Draws:
    """Weighted means [B, K] of row values [N, K] over their members [N, K] (or [N, 1])."""
    num_documents = weights.shape[1]
    totals = document_sums(np.where(members, values, 0.0), documents, num_documents)
    counts = document_sums(members.astype(np.float64), documents, num_documents)
    return ratio(weights @ totals, weights @ counts, otherwise=np.nan)


def document_sums(values: np.ndarray, documents: Documents, num_documents: int) -> np.ndarray:
    """Sums [S, K] of row values [N, K] per document."""
    columns = [np.bincount(documents, values[:, k], minlength=num_documents) for k in range(values.shape[1])]
    return np.stack(columns, axis=1) if columns else np.zeros((num_documents, 0))


def majority_accuracy(training_rate: Columns64, held_out: HeldOut) -> ProbeFloats:
    """Accuracy [K] of always answering the class that is larger in the training rows."""
    answer = training_rate[held_out.columns] > 0.5
    correct = answer == (held_out.probe_labels > 0.5)
    return mean_over_documents(correct, held_out.probe_members, held_out.documents, held_out.ones).ravel()


def base_rate_log_loss(training_rate: Columns64, held_out: HeldOut) -> ProbeFloats:
    """Log-loss [K] in nats of always answering the training rate: what a probe must beat to have learnt anything."""
    rate = training_rate[held_out.columns]
    losses = -np.where(held_out.probe_labels > 0.5, np.log(rate), np.log1p(-rate))
    return mean_over_documents(losses, held_out.probe_members, held_out.documents, held_out.ones).ravel()
