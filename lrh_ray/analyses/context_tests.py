"""Do contexts lie along the directions of concepts, and does moving them change what it should? Tests of 2311.03658.

**Measurement.** lambda . gamma_W is, for a pair of words that differ in W alone, the log-odds of
the second against the first. So over contexts that continue with a first or with a second word its sign should tell
which, and other concepts' directions should not:

    found = measurement(directions.words, rows0, rows1, documents=(docs0, docs1), bootstrap=bootstrap)
    found.auc.estimates, found.sign.estimates                    # [K], chance .5

**Intervention.** lambda + alpha lambda_W, with lambda_W = C^-1 gamma_W, should raise the logits of second over
first words of W by alpha <difference, gamma_W>_C, and leave the differences of concepts that are causally orthogonal:

    moved = intervention(rows, steering=directions.contexts[k], unembedding=gamma, pairs=pairs, alphas=alphas)
    moved.predicted, moved.observed                              # [A, P], nats

For logits lambda . gamma both are equal whatever the model means: the test checks the algebra, and says which pairs
move how much. With `logits` of the model itself (a soft cap, a scale, further layers) they can differ.

What can go wrong: contexts of one document resemble one another, so intervals need their documents. The context must
not contain the word it is to predict.

Legend: N contexts, D features, K concepts, A strengths, P pairs, V tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.causal_directions import TokenPairs, differences
from lrh_ray.analyses.held_out import HeldOut
from lrh_ray.analyses.intervals import DocumentBootstrap, Sample
from lrh_ray.analyses.layouts import ConceptRows, DoseChanges, OtherRows, TokenRows, Values
from lrh_ray.analyses.metrics import accuracy, auc
from lrh_ray.errors import NotEnoughData
from lrh_ray.layouts import Feature64, Rows64

Logits = Callable[[np.ndarray], np.ndarray]
"""Contexts [N, D] -> logits of all tokens [N, V]."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Measurement:
    """How the score lambda . gamma_W tells contexts of second words from those of first words; chance is .5.

    `auc` [K] does not depend on where zero is; `sign` [K] is the share of contexts whose score has the sign of their
    side. Both with their bootstrap draws [B, K].
    """

    auc: Sample
    sign: Sample


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Intervention:
    """Changes [A, P] of the logit difference second - first of each pair, nats, means over contexts.

    `overtaken` [A, P] is the share of contexts in which the second word's logit exceeds the first's.
    """

    alphas: Values
    predicted: DoseChanges
    observed: DoseChanges
    overtaken: DoseChanges


def measurement(
    words: ConceptRows,
    first: Rows64,
    second: OtherRows,
    *,
    documents: tuple[np.ndarray, np.ndarray],
    bootstrap: DocumentBootstrap,
) -> Measurement:
    """Scores of contexts that continue with first and with second words, for every concept's direction [K, D].

    `documents` are any integers that say which contexts hang together, for `first` and for `second`; contexts of the
    two words of one pair hang together too.

    Raises:
        NotEnoughData: No context on one side, or fewer than 2 documents.
    """
    if not len(first) or not len(second):
        raise NotEnoughData(f"{len(first)} contexts of first and {len(second)} of second words; both are needed.")
    _, document = np.unique(np.concatenate(documents), return_inverse=True)
    labels = np.repeat([0.0, 1.0], [len(first), len(second)])[:, None]
    held_out = HeldOut(
        scores=np.concatenate([first, second]) @ words.T,
        columns=np.zeros(len(words), np.int64),
        labels=labels,
        populations=np.zeros(1, np.int64),
        members=np.ones(labels.shape, dtype=bool),
        documents=document.astype(np.int64),
        num_documents=int(document.max()) + 1,
    )
    return Measurement(
        auc=bootstrap.apply(lambda weights: auc(held_out, weights), held_out.num_documents),
        sign=bootstrap.apply(lambda weights: accuracy(held_out, 0.0, weights), held_out.num_documents),
    )


def intervention(
    rows: Rows64,
    *,
    steering: Feature64,
    unembedding: TokenRows,
    pairs: TokenPairs,
    alphas: Values,
    logits: Logits | None = None,
) -> Intervention:
    """Logit differences of `pairs` when contexts are moved by alpha * `steering`; `logits` None: lambda . gamma.

    Costs A N V D FLOP, or A N P D for plain logits.
    """
    slopes_P = differences(unembedding, pairs) @ steering
    before_NP = _gaps(rows, unembedding, pairs, logits)
    after_ANP = np.stack([_gaps(rows + alpha * steering, unembedding, pairs, logits) for alpha in alphas])
    return Intervention(
        alphas=alphas,
        predicted=np.outer(alphas, slopes_P),
        observed=(after_ANP - before_NP).mean(axis=1),
        overtaken=(after_ANP > 0).mean(axis=1),
    )


def _gaps(rows: np.ndarray, unembedding: TokenRows, pairs: TokenPairs, logits: Logits | None) -> np.ndarray:
    """Logit of the second word less that of the first [N, P]."""
    if logits is None:
        return np.asarray(rows @ differences(unembedding, pairs).T)
    logits_NV = np.asarray(logits(rows), dtype=np.float64)
    return np.asarray(logits_NV[:, pairs.second] - logits_NV[:, pairs.first])
