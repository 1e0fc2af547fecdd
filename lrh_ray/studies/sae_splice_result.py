"""What a spliced model lost, beside what it loses with the mean row and with an autoencoder's first weights.

`ce_recovered` is 0 for the mean row and 1 for the rows themselves, `kl_divergence` as high as `divergence_of_mean` for
the mean row and 0 for the rows themselves. First weights are random directions that choose as many codes: what they
recover is no achievement of training. Intervals are jackknives over documents.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from lrh_ray.analyses.jackknife import Estimate, jackknife_interval
from lrh_ray.records import Measure
from lrh_ray.studies.result_parts import bounded_measure
from lrh_ray.studies.sae_splicing import CLEAN, DIVERGENCE, DIVERGENCE_OF_MEAN, MEAN, SPLICED, TOKENS


def splice_measures(
    keys: Mapping[str, str | int | float], names: Sequence[str], losses: np.ndarray
) -> Iterator[Measure]:
    """Of autoencoders of a map; `losses` [2 A, documents, 6] are of all trained ones, then of their first weights."""
    for name, sums, first in zip(names, *np.split(losses, 2), strict=True):
        own, whole = {**keys, "autoencoder": name}, sums.sum(axis=0)
        recovered = {
            "loss": float(whole[CLEAN] / whole[TOKENS]),
            "loss_spliced": float(whole[SPLICED] / whole[TOKENS]),
            "loss_of_mean": float(whole[MEAN] / whole[TOKENS]),
            "untrained": _recovered(first.sum(axis=0)),
        }
        yield bounded_measure("ce_recovered", _over_documents(sums, _recovered), "of loss", own, recovered)
        diverged = {
            "divergence_of_mean": float(whole[DIVERGENCE_OF_MEAN] / whole[TOKENS]),
            "untrained": _diverged(first.sum(axis=0)),
        }
        yield bounded_measure("kl_divergence", _over_documents(sums, _diverged), "nats a token", own, diverged)


def _over_documents(sums: np.ndarray, statistic: Callable[[np.ndarray], float]) -> Estimate:
    """A number of the sums of all documents [documents, 6]."""
    whole = sums.sum(axis=0)
    return jackknife_interval(statistic(whole), [statistic(whole - document) for document in sums])


def _recovered(sums: np.ndarray) -> float:
    """Of the loss that the mean row in place of every row costs the model, the share that is spared."""
    return float((sums[MEAN] - sums[SPLICED]) / (sums[MEAN] - sums[CLEAN]))


def _diverged(sums: np.ndarray) -> float:
    return float(sums[DIVERGENCE] / sums[TOKENS])
