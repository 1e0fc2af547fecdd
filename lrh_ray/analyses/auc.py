"""Area under the ROC curve of many probes under many weightings of documents.

AUC is the chance that a positive row outscores a negative one, ties counting half. Negatives are sorted once per
probe; a positive then beats a prefix of them. Two ways to weigh the pairs of B draws over S documents, whichever
costs less:

- by document, O(rows * S + B S^2): wins[s, t], the pairs won by positives of document s over negatives of document t,
are
  counted once; a draw with weights w is the quadratic form w . wins w.
- by draw, O(rows * B): weighted prefix sums of the negatives, read off at every positive.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.held_out import HeldOut
from lrh_ray.analyses.layouts import DocumentWeights, Draws, ProbeFloats
from lrh_ray.analyses.ratio import ratio

CHUNK_FLOATS = 1 << 20
"""Largest temporary in numbers: bounds memory for any number of rows and draws."""


def auc(held_out: HeldOut, weights: DocumentWeights) -> Draws:
    """AUC [B, K] for document weights [B, S]; NaN where a draw holds rows of one class only."""
    result = np.empty((len(weights), held_out.scores.shape[1]))
    labels, members = held_out.probe_labels > 0.5, held_out.probe_members
    for k in range(result.shape[1]):
        positive, negative = np.flatnonzero(members[:, k] & labels[:, k]), np.flatnonzero(members[:, k] & ~labels[:, k])
        pairs = _Pairs.of(held_out.scores[:, k], held_out.documents, positive, negative)
        result[:, k] = pairs.by_document(weights) if weights.shape[1] < len(weights) else pairs.by_draw(weights)
    return result


def midranks(scores: np.ndarray) -> np.ndarray:
    """Ranks from 1 of a vector; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Pairs:
    """Positive i beats the first `below[i]` negatives in ascending order and ties with those up to `not_above[i]`."""

    positive_documents: np.ndarray
    negative_documents: np.ndarray
    below: np.ndarray
    not_above: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, documents: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> "_Pairs":
        ascending = negative[np.argsort(scores[negative], kind="stable")]
        return cls(
            positive_documents=documents[positive],
            negative_documents=documents[ascending],
            below=np.searchsorted(scores[ascending], scores[positive], side="left"),
            not_above=np.searchsorted(scores[ascending], scores[positive], side="right"),
        )

    def by_document(self, weights: DocumentWeights) -> ProbeFloats:
        num_documents = weights.shape[1]
        wins = np.empty((num_documents, num_documents))
        for chunk in self._chunks(num_documents):
            of_document = np.eye(num_documents)[:, chunk]
            won = self._wins(of_document)
            for column, t in enumerate(range(chunk.start, chunk.stop)):
                wins[:, t] = np.bincount(self.positive_documents, won[:, column], minlength=num_documents)
        num_positive = np.bincount(self.positive_documents, minlength=num_documents)
        num_negative = np.bincount(self.negative_documents, minlength=num_documents)
        total = ((weights @ wins) * weights).sum(axis=1)
        return ratio(total, (weights @ num_positive) * (weights @ num_negative), otherwise=np.nan)

    def by_draw(self, weights: DocumentWeights) -> ProbeFloats:
        result = np.empty(len(weights))
        for chunk in self._chunks(len(weights)):
            w_SB = np.ascontiguousarray(weights[chunk].T)
            w_positive = w_SB[self.positive_documents]
            total = np.einsum("ib,ib->b", w_positive, self._wins(w_SB))
            all_pairs = w_positive.sum(axis=0) * w_SB[self.negative_documents].sum(axis=0)
            result[chunk] = ratio(total, all_pairs, otherwise=np.nan)
        return result

    def _wins(self, weights_SB: np.ndarray) -> np.ndarray:
        """Weight of the negatives that each positive beats [positives, B]; sums over rows run along memory."""
        prefix = np.zeros((len(self.negative_documents) + 1, weights_SB.shape[1]))
        np.cumsum(weights_SB[self.negative_documents], axis=0, out=prefix[1:])
        return np.asarray((prefix[self.below] + prefix[self.not_above]) / 2)

    def _chunks(self, count: int) -> Iterator[slice]:
        step = max(1, CHUNK_FLOATS // max(1, len(self.positive_documents) + len(self.negative_documents)))
        for start in range(0, count, step):
            yield slice(start, min(start + step, count))
