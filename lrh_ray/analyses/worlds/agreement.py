"""Do two training runs find the same features? Identifiability between models, up to a linear map (Roeder et al. 2021).

If features are a linear map of log-posteriors, then those of two models of one world are linear maps of each other,
whatever their seeds. Logits fix features only where the vectors of the next tokens differ, so both models are compared
on the span of those differences (`identified`): the rest of a feature vector has no effect on any prediction.

    first, second = train(world, recipe, seed=0), train(world, recipe, seed=1)
    found = agreement(identified(f_1, next_vectors(first)), identified(f_2, next_vectors(second)), seed=0)
    found.r_squared, found.canonical, found.unmixed

Three measures, each blind to less than the one before: R^2 and canonical correlations ignore invertible linear maps;
the mean correlation after ICA (`unmixed`) ignores order, signs and what ICA can undo; that of the coordinates as they
are (`matched`) ignores only order and signs, and is low for two models that agree in all that matters.

What can go wrong: all of them are above 0 for models that have not learnt the same, since both see the same contexts.
The controls say how far: untrained weights, a model of another world, shuffled rows. ICA that has not `converged` is
one of several answers.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import FastICA
from sklearn.exceptions import ConvergenceWarning

from lrh_ray.analyses.joint import JointMoments
from lrh_ray.analyses.linear_map import fit_linear, r_squared
from lrh_ray.analyses.similarity import canonical, mcc
from lrh_ray.analyses.worlds.direct import direct_world
from lrh_ray.analyses.worlds.learning import RIDGE, Network, Recipe, encoded, next_vectors, train, untrained
from lrh_ray.analyses.worlds.tokens import TokenWorld
from lrh_ray.layouts import Rows64

OTHER = 10_000
"""What a trial adds to its seed for the second model, and for the other world."""
SPAN = 1e-3
"""Directions in which next tokens differ less, relative to the most, count as none."""
ICA_STEPS = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How alike two sets of features of the same rows are: 1 is the same, up to what each measure ignores."""

    r_squared: float
    """Of a linear map, fitted on one half of the rows and scored on the other; the mean of both directions."""
    canonical: float
    """Mean canonical correlation, over as many directions as the smaller side has."""
    matched: float
    """Mean absolute correlation of coordinates, matched one to one (MCC)."""
    unmixed: float
    """MCC after ICA on either side."""
    converged: bool
    """Whether ICA did, on both sides."""


def identified_directions(vectors: np.ndarray) -> np.ndarray:
    """Orthonormal directions [k, D] in which the vectors of next tokens [Y, D] differ; k is at most Y - 1."""
    _, spread, directions = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    return np.asarray(directions[spread > SPAN * spread[0]])


def identified(features: Rows64, vectors: np.ndarray) -> np.ndarray:
    """The coordinates [N, k] of features [N, D] that next tokens depend on."""
    return np.asarray(features @ identified_directions(vectors).T)


def agreement(first: Rows64, second: np.ndarray, seed: int) -> Agreement:
    """Compare features [N, P] and [N, Q] of the same N rows. `seed` starts ICA."""
    halves = np.repeat(np.arange(2), [len(first) // 2, len(first) - len(first) // 2])
    shift = np.concatenate([first.mean(axis=0), second.mean(axis=0)])
    state = JointMoments.of(first, second, shift=shift, groups=halves, num_groups=2)
    fit, held_out, both = state.only(0), state.only(1), state.joint()
    there = r_squared(fit_linear(fit, RIDGE), held_out).total
    back = r_squared(fit_linear(fit.swapped, RIDGE), held_out.swapped).total
    (one, one_converged), (other, other_converged) = _unmixed(first, seed), _unmixed(second, seed)
    zero, together = np.zeros(len(first), np.int64), np.zeros(one.shape[1] + other.shape[1])
    return Agreement(
        r_squared=(there + back) / 2,
        canonical=float(canonical(both).correlations.mean()),
        matched=mcc(both).mean,
        unmixed=mcc(JointMoments.of(one, other, shift=together, groups=zero).joint()).mean,
        converged=one_converged and other_converged,
    )


def _unmixed(features: np.ndarray, seed: int) -> tuple[np.ndarray, bool]:
    """Independent components, and whether the search for them ended."""
    ica = FastICA(whiten="unit-variance", random_state=seed, max_iter=ICA_STEPS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # reported as a fact
        components = ica.fit_transform(features)
    return np.asarray(components), bool(ica.n_iter_ < ICA_STEPS)


@dataclass(frozen=True, kw_only=True, slots=True)
class AgreementTrial:
    """Two models of one world, and the controls."""

    noise: float
    seed: int
    trained: Agreement
    controls: Mapping[str, Agreement]


def agreement_trial(*, noise: float, seed: int, recipe: Recipe) -> AgreementTrial:
    """Train two models of the world of A1 (`direct`) and one of another such world; about 20 seconds of one core."""
    world, elsewhere, other = direct_world(noise, seed), direct_world(noise, seed + OTHER), seed + OTHER
    rng = np.random.default_rng([seed, 3])
    contexts, _, _ = world.draw(recipe.test_rows, rng)
    first = _features(world, train(world, recipe, seed), contexts)
    second = _features(world, train(world, recipe, other), contexts)
    foreign = _features(world, train(elsewhere, recipe, other), contexts)
    blank, blank_other = (_features(world, untrained(world, recipe, s), contexts) for s in (seed, other))
    return AgreementTrial(
        noise=noise,
        seed=seed,
        trained=agreement(first, second, seed),
        controls={
            "untrained weights": agreement(blank, blank_other, seed),
            "another world": agreement(first, foreign, seed),
            "shuffled rows": agreement(first, second[rng.permutation(len(second))], seed),
        },
    )


def _features(world: TokenWorld, network: Network, contexts: np.ndarray) -> np.ndarray:
    return identified(encoded(world, network, contexts), next_vectors(network))
