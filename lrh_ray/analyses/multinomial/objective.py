"""F, its gradient and its curvature in coordinates in which the problem of every penalty looks alike.

At W = 0 all rows have the class rates r as probabilities, so the Hessian of F there is exactly

    (diag(r) - r r^T) (x) C + penalty I

in the weights, with C the population's covariance. With diag(r) - r r^T = U diag(mu) U^T and C = V diag(e) V^T it is
diagonal in the directions U (x) V, with entries mu_j e_d + penalty: the one decomposition of C serves every concept
and penalty. The last eigenvector of the rates, all ones, has mu = 0 and moves no probability; it is left out, so the
weights of a concept are M - 1 *directions*. Each direction of each penalty is then a column of the binary solver's
`Whitening`, and the directions of one penalty laid end to end are one column of its descent.

Where the rates do not hold, diag(r) - r r^T lies below 1/2 (I - 1 1^T / M) whatever the probabilities are (Boehning
1992), which is 1/2 in every direction: the majoriser.

Legend: D features and the intercept, L penalties, J = M - 1 directions, M classes.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh, helmert
from scipy.special import entr

from lrh_ray.analyses.layouts import (
    AugmentedProbes,
    ClassCoefficients,
    ClassDirections,
    ClassFloats,
    PenaltyColumns,
    PenaltyFloats,
    PenaltyInts,
    PenaltyMask,
)
from lrh_ray.analyses.logistic.descent import Descent, Evaluation
from lrh_ray.analyses.logistic.objective import LEAST_CURVATURE
from lrh_ray.analyses.logistic.whitening import Whitening
from lrh_ray.analyses.multinomial.loss import SoftmaxProposal, SoftmaxState
from lrh_ray.analyses.multinomial.problem import MultinomialProblem


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Objective:
    """The problem of the active penalties; columns of whitened arrays are directions, penalty after penalty.

    `directions` [M, J] and `curvature` [J] are U and mu. `linear` [D, L J] is the labels' share of the gradient, known
    from the moments; `penalty` [D, L J] the penalty's share of the Hessian at W = 0, 0 for the intercepts.
    """

    whitening: Whitening
    population: int
    directions: ClassDirections
    curvature: np.ndarray
    linear: AugmentedProbes
    penalty: AugmentedProbes
    count: float
    rate: ClassFloats

    @classmethod
    def of(cls, problem: MultinomialProblem) -> "Objective":
        moments, p, rate = problem.moments, problem.population, problem.rate
        curvature, directions = rate_spectrum(rate)
        L, J = len(problem.penalties), len(curvature)
        mu, added = np.tile(curvature, L), np.repeat(problem.penalties, J)
        root = np.sqrt(np.vstack([mu * moments.spectra[p].values[:, None] + added, mu]))
        whitening = Whitening(moments=moments, populations=np.full(L * J, p), root=root)
        of_classes = np.vstack([rate * moments.positive_offset[:, problem.columns], rate])
        penalty = added / root**2
        penalty[-1] = 0
        return cls(
            whitening=whitening,
            population=p,
            directions=directions,
            curvature=curvature,
            linear=whitening.gradient(np.tile(of_classes @ directions, L)),
            penalty=penalty,
            count=float(moments.count[p]),
            rate=rate,
        )

    @property
    def num_penalties(self) -> int:
        return int(self.linear.shape[1] // len(self.curvature))

    @property
    def condition(self) -> PenaltyFloats:
        """Largest over smallest curvature of the weights at W = 0 [L], in raw coordinates."""
        weights = self._end_to_end(self.whitening.root[:-1] ** 2)
        return np.asarray(weights.max(axis=0) / weights.min(axis=0))

    def start(self) -> Descent:
        """W = 0 with the intercepts at the class rates, where everything is known without a pass."""
        L, moments, p = self.num_penalties, self.whitening.moments, self.population
        point = np.zeros_like(self.linear)
        point[-1] = self.whitening.root[-1] * np.tile(np.log(self.rate) @ self.directions, L)
        of_rates = np.outer(np.append(moments.offset[p], 1.0), self.rate @ self.directions)
        gradient = self._end_to_end(self.whitening.gradient(np.tile(of_rates, L)) - self.linear)
        here = Evaluation(loss=np.full(L, entr(self.rate).sum()), gradient=gradient, diagonal=np.ones_like(gradient))
        return Descent.start(self._end_to_end(point), here, self._diagonal(np.tile(0.5 / self.curvature, L)))

    def proposal(self, turn: int, probes: PenaltyInts, point: PenaltyColumns) -> SoftmaxProposal:
        coefficients = self.coefficients(point, self.whitening.moments.offset)
        return SoftmaxProposal(turn=turn, population=self.population, penalties=probes, coefficients=coefficients)

    def evaluate(self, point: PenaltyColumns, state: SoftmaxState) -> Evaluation:
        side = self._side_by_side(point)
        ridge = self.penalty * side
        shifted = (state.gradient @ self.directions).reshape(side.shape) / self.count
        gradient = self.whitening.gradient(shifted) - self.linear + ridge
        known = self._end_to_end(side * (ridge / 2 - self.linear)).sum(axis=0)
        share = (self._mean_curvature(state) / self.curvature).ravel()
        return Evaluation(
            loss=state.partition / self.count + known,
            gradient=self._end_to_end(gradient),
            diagonal=self._diagonal(np.maximum(share, LEAST_CURVATURE)),
        )

    def of_probes(self, keep: PenaltyMask) -> "Objective":
        own = np.repeat(keep, len(self.curvature))
        return Objective(
            whitening=self.whitening.of_probes(own),
            population=self.population,
            directions=self.directions,
            curvature=self.curvature,
            linear=self.linear[:, own],
            penalty=self.penalty[:, own],
            count=self.count,
            rate=self.rate,
        )

    def coefficients(self, point: PenaltyColumns, origin: np.ndarray) -> ClassCoefficients:
        """Point to weights and intercepts of the classes; `origin` [P, D] is the mean in the rows' coordinates."""
        return self._of_classes(self.whitening.coefficients(self._side_by_side(point), origin))

    def raw_gradient(self, gradient: PenaltyColumns) -> ClassCoefficients:
        """Gradient in the point to gradient in weights and intercepts of the classes, for rows as they are."""
        return self._of_classes(self.whitening.raw_gradient(self._side_by_side(gradient)))

    def _mean_curvature(self, state: SoftmaxState) -> np.ndarray:
        """Mean over rows of u_j . (diag(p) - p p^T) u_j [L, J]."""
        of_squares = np.einsum("mj,lmk,kj->lj", self.directions, state.squares, self.directions, optimize=True)
        return np.asarray((state.gradient[-1] @ self.directions**2 - of_squares) / self.count)

    def _diagonal(self, share: np.ndarray) -> PenaltyColumns:
        """Hessian if diag(p) - p p^T were one matrix for all rows, `share` [L J] times mu along each direction."""
        return self._end_to_end(share * (1 - self.penalty) + self.penalty)

    def _of_classes(self, side: np.ndarray) -> ClassCoefficients:
        return np.asarray(side.reshape(len(side), -1, len(self.curvature)) @ self.directions.T)

    def _end_to_end(self, side: np.ndarray) -> PenaltyColumns:
        """[D, L J] to [D J, L]."""
        D, J = len(side), len(self.curvature)
        return np.ascontiguousarray(side.reshape(D, -1, J).transpose(0, 2, 1)).reshape(D * J, -1)

    def _side_by_side(self, columns: PenaltyColumns) -> AugmentedProbes:
        """[D J, L] to [D, L J]."""
        J, L = len(self.curvature), columns.shape[1]
        return np.ascontiguousarray(columns.reshape(-1, J, L).transpose(0, 2, 1)).reshape(-1, L * J)


def rate_spectrum(rate: ClassFloats) -> tuple[np.ndarray, ClassDirections]:
    """Eigenvalues [J] above 0 and eigenvectors [M, J] of diag(r) - r r^T.

    Found inside the space orthogonal to ones, so that every direction sums to 0 to the last bit even beside a class of
    one row in a million.
    """
    basis = helmert(len(rate)).T
    values, vectors = eigh(basis.T @ (np.diag(rate) - np.outer(rate, rate)) @ basis)
    return values, basis @ vectors
