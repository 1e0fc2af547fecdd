"""Intrinsic probing by Gaussians and greedy selection (Torroba Hennigen et al. 2020, arXiv 2010.02812): the baseline.

Each class is a Gaussian over all dimensions. The model of a subset is then a marginal, which costs nothing: no subset
is trained for. Dimensions are added one by one, always the one after which the labels are most likely.

    probe = fit_gaussian_probe(rows, classes)
    order = probe.greedy(rows, classes, 10)
    log_p = probe.log_posteriors(held_out_rows, order[:5])

Means and covariances are maxima a posteriori under the paper's data-dependent prior (Murphy 2012, section 4.6): for n
rows of a class with scatter S, covariance (diag(S / n) + S) / (n + 2 D + 4). With few rows in many dimensions that
makes every variance too small, and of a rare class most: 16 times for 80 rows and 600 dimensions. The mean of the same
posterior, (diag(S / n) + S) / (n + 1), does not depend on D, and is to be had with `estimate="mean"`.

A dimension is added in closed form: with what is chosen swept out of every class's covariance, the next one is a
Gaussian of the residuals (Goodnight 1979), so that all candidates of a step together cost N D M FLOP.

What can go wrong: a class of fewer rows than dimensions has a covariance that the prior alone makes invertible, and
posteriors that are much too sure, so that estimates of information fall below zero. Classes that are not Gaussian are
misjudged in the same way.

Legend: N rows, D dimensions, M classes.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float64

from lrh_ray.analyses.intrinsic.information import candidate_tiles, likelihoods, require_classes
from lrh_ray.analyses.layouts import Classes, Indices, LogPosteriors
from lrh_ray.layouts import Rows64

ClassMeans = Float64[np.ndarray, "class feature"]
ClassCovariances = Float64[np.ndarray, "class feature feature"]
ClassLogs = Float64[np.ndarray, "class"]

Estimate: TypeAlias = Literal["maximum", "mean"]
"""Of a covariance, from its posterior."""

LOG_2PI = float(np.log(2 * np.pi))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GaussianProbe:
    """Means [M, D], covariances [M, D, D] and log shares [M] of the classes."""

    means: ClassMeans
    covariances: ClassCovariances
    log_shares: ClassLogs

    def log_posteriors(self, rows: Rows64, dimensions: Indices) -> LogPosteriors:
        """The logarithms of p(class | the given dimensions) [N, M], nats. O(N k^2 M)."""
        joint_NM, own = np.tile(self.log_shares, (len(rows), 1)), rows[:, dimensions]
        for m in range(len(self.log_shares)):
            factor = np.linalg.cholesky(self.covariances[m][np.ix_(dimensions, dimensions)])
            whitening = np.linalg.inv(factor)  # a product with many rows is several times faster than a solution
            whitened = (own - self.means[m, dimensions]) @ whitening.T
            joint_NM[:, m] -= np.einsum("nk,nk->n", whitened, whitened) / 2 + np.log(np.diagonal(factor)).sum()
        return np.asarray(joint_NM - np.logaddexp.reduce(joint_NM, axis=1, keepdims=True))

    def greedy(self, rows: Rows64, classes: Classes, number: int) -> Indices:
        """Dimensions added one by one, each the one with the greatest log-likelihood of the labels. O(k N D M).

        Holds N D M numbers in float32; likelihoods are summed in float64.
        """
        residual_MDN = (rows.T - self.means[:, :, None]).astype(np.float32)
        covariance_MDD = self.covariances.copy()
        joint_MN, chosen = np.tile(self.log_shares[:, None], len(rows)), list[int]()
        for _ in range(number):
            variance_MD = np.diagonal(covariance_MDD, axis1=1, axis2=2).copy()
            variance_MD[:, chosen] = 1.0  # nothing is left of it, and it is not chosen again
            spread_MD1 = variance_MD[:, :, None].astype(np.float32)
            scores_D = np.concatenate(
                [
                    likelihoods(joint_MN, _log_density(residual_MDN[:, tile], spread_MD1[:, tile]), classes)
                    for tile in candidate_tiles(rows.shape[1], joint_MN)
                ]
            )
            scores_D[chosen] = -np.inf
            best = int(np.argmax(scores_D))
            joint_MN += _log_density(residual_MDN[:, best], variance_MD[:, best, None])
            for residual_DN, covariance_DD in zip(residual_MDN, covariance_MDD, strict=True):
                pull_D = covariance_DD[best] / covariance_DD[best, best]
                residual_DN -= np.outer(pull_D.astype(np.float32), residual_DN[best])
                covariance_DD -= np.outer(pull_D, covariance_DD[best])
            chosen.append(best)
        return np.array(chosen, dtype=np.int64)


def fit_gaussian_probe(rows: Rows64, classes: Classes, *, estimate: Estimate = "maximum") -> GaussianProbe:
    """A Gaussian for every class. N D^2 FLOP.

    Raises:
        NotEnoughData: Fewer than two classes, or a class without rows.
    """
    counts, (_, num_features) = np.bincount(classes, minlength=require_classes(classes)), rows.shape
    excess = 2 * num_features + 4 if estimate == "maximum" else 1
    means = np.stack([rows[classes == m].mean(axis=0) for m in range(len(counts))])
    scatters = [centred.T @ centred for m in range(len(counts)) for centred in [rows[classes == m] - means[m]]]
    return GaussianProbe(
        means=means,
        covariances=np.stack(
            [
                (np.diag(np.diagonal(scatter) / count) + scatter) / (count + excess)
                for scatter, count in zip(scatters, counts.tolist(), strict=True)
            ]
        ),
        log_shares=np.log(counts / counts.sum()),
    )


def _log_density(residual: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """The logarithm of N(residual; 0, variance)."""
    return np.asarray(residual**2 * (-0.5 / variance) - (np.log(variance) + LOG_2PI) / 2)
