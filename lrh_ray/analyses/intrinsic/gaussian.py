"""Intrinsic probing by Gaussians and greedy selection (Torroba Hennigen et al. 2020, arXiv 2010.02812): the baseline.

Each class is a Gaussian over all dimensions. The model of a subset is then a marginal, which costs nothing: no subset
is trained for. Dimensions are added one by one, always the one after which the labels are most likely.

    probe = fit_gaussian_probe(rows, classes)
    order = probe.greedy(rows, classes, 10)
    log_p = probe.log_posteriors(held_out_rows, order[:5])

Means and covariances are maxima a posteriori under the paper's data-dependent prior (Murphy 2012, section 4.6): for n
rows of a class with scatter S, covariance (diag(S / n) + S) / (n + 2 D + 4). A dimension is added in closed form: with
what is chosen swept out of every class's covariance, the next one is a Gaussian of the residuals (Goodnight 1979), so
that all candidates of a step together cost N D M FLOP.

What can go wrong: a class of fewer rows than dimensions has a covariance that the prior alone makes invertible, and
posteriors that are much too sure, so that estimates of information fall below zero. Classes that are not Gaussian are
misjudged in the same way.

Legend: N rows, D dimensions, M classes.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from lrh_ray.analyses.intrinsic.information import require_classes
from lrh_ray.analyses.layouts import Classes, Indices, LogPosteriors
from lrh_ray.layouts import Rows64

ClassMeans = Float64[np.ndarray, "class feature"]
ClassCovariances = Float64[np.ndarray, "class feature feature"]
ClassLogs = Float64[np.ndarray, "class"]

LOG_2PI = float(np.log(2 * np.pi))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GaussianProbe:
    """Means [M, D], covariances [M, D, D] and log shares [M] of the classes."""

    means: ClassMeans
    covariances: ClassCovariances
    log_shares: ClassLogs

    def log_posteriors(self, rows: Rows64, dimensions: Indices) -> LogPosteriors:
        """The logarithms of p(class | the given dimensions) [N, M], nats. O(N k^2 M)."""
        joint_NM = np.tile(self.log_shares, (len(rows), 1))
        for m in range(len(self.log_shares)):
            factor = np.linalg.cholesky(self.covariances[m][np.ix_(dimensions, dimensions)])
            whitened = np.linalg.solve(factor, (rows[:, dimensions] - self.means[m, dimensions]).T)
            joint_NM[:, m] -= (whitened**2).sum(axis=0) / 2 + np.log(np.diagonal(factor)).sum()
        return np.asarray(joint_NM - np.logaddexp.reduce(joint_NM, axis=1, keepdims=True))

    def greedy(self, rows: Rows64, classes: Classes, number: int) -> Indices:
        """Dimensions added one by one, each the one with the greatest log-likelihood of the labels. O(k N D M)."""
        residual_MND = rows - self.means[:, None]
        covariance_MDD = self.covariances.copy()
        joint_NM, chosen = np.tile(self.log_shares, (len(rows), 1)), list[int]()
        for _ in range(number):
            terms_MND = _log_density(residual_MND, np.diagonal(covariance_MDD, axis1=1, axis2=2)[:, None], chosen)
            scores_D = _likelihoods(joint_NM.T[:, :, None] + terms_MND, classes)
            scores_D[chosen] = -np.inf
            best = int(np.argmax(scores_D))
            joint_NM = joint_NM + terms_MND[:, :, best].T
            pull_MD = covariance_MDD[:, best] / covariance_MDD[:, best, best, None]
            residual_MND = residual_MND - residual_MND[:, :, best, None] * pull_MD[:, None]
            covariance_MDD = covariance_MDD - covariance_MDD[:, :, best, None] * pull_MD[:, None]
            chosen.append(best)
        return np.array(chosen, dtype=np.int64)


def fit_gaussian_probe(rows: Rows64, classes: Classes) -> GaussianProbe:
    """A Gaussian for every class. N D^2 FLOP.

    Raises:
        NotEnoughData: Fewer than two classes, or a class without rows.
    """
    counts, (_, num_features) = np.bincount(classes, minlength=require_classes(classes)), rows.shape
    means = np.stack([rows[classes == m].mean(axis=0) for m in range(len(counts))])
    scatters = [centred.T @ centred for m in range(len(counts)) for centred in [rows[classes == m] - means[m]]]
    return GaussianProbe(
        means=means,
        covariances=np.stack(
            [
                (np.diag(np.diagonal(scatter) / count) + scatter) / (count + 2 * num_features + 4)
                for scatter, count in zip(scatters, counts.tolist(), strict=True)
            ]
        ),
        log_shares=np.log(counts / counts.sum()),
    )


def _log_density(residual_MND: np.ndarray, variance_M1D: np.ndarray, chosen: list[int]) -> np.ndarray:
    """The logarithm of N(residual; 0, variance); a dimension that is chosen has no variance left, and no density."""
    variance_M1D = variance_M1D.copy()
    variance_M1D[:, :, chosen] = 1.0
    return np.asarray(-(residual_MND**2 / variance_M1D + np.log(variance_M1D) + LOG_2PI) / 2)


def _likelihoods(joint_MND: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Log-likelihood [D] of the labels, if the dimension is added."""
    own_ND = np.take_along_axis(joint_MND, classes[None, :, None], axis=0)[0]
    return np.asarray((own_ND - np.logaddexp.reduce(joint_MND, axis=0)).sum(axis=0))
