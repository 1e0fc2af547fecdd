"""Sparse probing: how few latents say what a dense probe says (Gurnee et al. 2023, arXiv 2305.01610; Gao et al. 2024).

    order = best_latents(mean_differences(codes, labels), 20)
    scores = latent_scores((codes, labels), held_out_codes, order[:5])          # log-odds [N] of five latents
    dense = dense_probes(train, validation, penalties=(1e-2, 1e-1, 1.0))        # the ceiling, on all features

Latents are ranked by the absolute difference of their mean codes between the two classes, and the first k are read by
a logistic probe. If an autoencoder has a latent for a concept, k = 1 is nearly as good as the dense probe; if it takes
dozens, the concept is spread over latents. The nulls are as many random latents among those that fire at all, and the
same procedure on an autoencoder of random directions: of thousands of directions some few separate any two classes.

Classes are of equal size, so that accuracy has a chance level of one half. Latents are divided by their standard
deviation, so that the slight penalty weighs them alike.

What can go wrong: a latent that never fires in the training rows says nothing; with none that does, log-odds are 0.

Legend: N rows, M latents, K latents of a probe.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from lrh_ray.analyses.held_out import HeldOut
from lrh_ray.analyses.logistic import LogisticProblem, run_in_memory
from lrh_ray.analyses.metrics import log_loss
from lrh_ray.analyses.moments import LabelledMoments, absolute_penalties
from lrh_ray.analyses.readout import LinearReadout
from lrh_ray.errors import NotConverged

PENALTY = 1e-3
"""Of latents of unit variance."""
TOLERANCE, MAX_PASSES = 1e-6, 400


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LabelledFeatures:
    """Features [N, F] of rows, 0/1 labels [N, C], and the document of each row [N]."""

    features: np.ndarray
    labels: np.ndarray
    documents: np.ndarray


def mean_differences(codes: csr_array, labels: np.ndarray) -> np.ndarray:
    """Mean code of rows of class 1 less that of class 0, of every latent [M]."""
    share = np.where(labels > 0.5, 1 / (labels > 0.5).sum(), -1 / (labels <= 0.5).sum())
    return np.asarray(codes.T @ share)


def best_latents(differences: np.ndarray, size: int) -> np.ndarray:
    """At most `size` latents by the absolute difference of their means; those without a difference are none."""
    order = np.argsort(-np.abs(differences), kind="stable")[:size]
    return np.asarray(order[differences[order] != 0])


def random_latents(codes: csr_array, size: int, rng: np.random.Generator) -> np.ndarray:
    """At most `size` random latents among those that fire in a row, or all of them."""
    firing = np.unique(codes.indices[codes.data != 0])
    return np.asarray(rng.permutation(firing)[:size])


def latent_scores(train: tuple[csr_array, np.ndarray], held_out: csr_array, latents: np.ndarray) -> np.ndarray:
    """Log-odds [N] of held-out codes by a logistic probe of some latents, fitted to codes and labels."""
    codes, labels = train
    own, other = (part[:, latents].toarray().astype(np.float64) for part in (codes, held_out))
    spread = own.std(axis=0)
    varying = spread > 0
    if not varying.any():
        return np.zeros(held_out.shape[0])
    fitted = fit_probes(own[:, varying] / spread[varying], labels[:, None], (PENALTY,))
    return np.asarray(fitted.scores(other[:, varying] / spread[varying])[:, 0])


def fit_probes(features: np.ndarray, labels: np.ndarray, penalties: Sequence[float]) -> LinearReadout:
    """Logistic probes of labels [N, C] with every penalty, relative to the features' mean variance.

    Raises:
        NotEnoughData: Rows of one class only, or that are not finite.
        NotConverged: A certificate was not reached.
    """
    members, populations = np.ones((len(features), 1), dtype=bool), np.zeros(labels.shape[1], np.int64)
    shift, own = features.mean(axis=0).astype(np.float64), labels.astype(np.float64)
    moments = LabelledMoments.of(features, shift, own, members, populations).finalize()
    problem = LogisticProblem(moments=moments, penalties=absolute_penalties(moments, penalties))
    fit = run_in_memory(problem, [(features, members)], tolerance=TOLERANCE, max_passes=MAX_PASSES)
    if not fit.converged.all():
        raise NotConverged(
            f"A logistic probe of {features.shape[1]} features and {len(features)} rows stands at a gradient of "
            f"{fit.certificate.max():.1e} after {fit.passes} passes; give it more rows."
        )
    return fit.readout


def dense_probes(train: LabelledFeatures, validation: LabelledFeatures, penalties: Sequence[float]) -> LinearReadout:
    """A logistic probe of all features for each label; the validation rows choose its penalty by their log-loss."""
    every = fit_probes(train.features, train.labels, penalties)
    judged = beside(every.scores(validation.features), every.columns, validation)
    losses = log_loss(judged, judged.ones)[0].reshape(-1, len(penalties))
    return every.of_probes(np.arange(len(losses)) * len(penalties) + losses.argmin(axis=1))


def beside(scores: np.ndarray, columns: np.ndarray, rows: LabelledFeatures) -> HeldOut:
    """Scores [N, K] beside the labels of their columns [K]; documents are renumbered."""
    _, documents = np.unique(rows.documents, return_inverse=True)
    return HeldOut(
        scores=scores,
        columns=columns,
        labels=rows.labels.astype(np.float64),
        populations=np.zeros(rows.labels.shape[1], np.int64),
        members=np.ones((len(scores), 1), dtype=bool),
        documents=documents,
        num_documents=int(documents.max(initial=-1)) + 1,
    )
