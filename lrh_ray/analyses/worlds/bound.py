"""Is the upper bound one? Probe log-odds, and latents that are chosen by them, held against the exact log-odds.

Latents of an autoencoder are judged by their correlation with the log-odds of a supervised probe (`sae.upper_bound`),
because nobody knows those of a real model. In a world they are known: u*(x) = log p(c_i = 0 | x) / p(c_i = 1 | x). So

    found.probe           # r of the probe's log-odds with u*, of each concept: 1 would make it a bound
    found.latents         # r of the latents that match the probe best, with the probe and with u*

on contexts that fitted no probe and chose no latent. A perfect model of the same world, whose features are the exact
log p(y|x), says how much of the distance from 1 is the world's: where the next token does not tell the concepts apart,
no linear probe of features can know them.

Controls of the probe: untrained weights, the bits of the input, shuffled labels. Of the latents: as many random
directions of the same features.

What can go wrong: r over contexts as they occur weighs common ones; a probe may be right on these and wrong elsewhere.

Legend: N contexts, D features, M latents.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from lrh_ray.analyses.logistic import LogisticProblem, run_in_memory
from lrh_ray.analyses.moments import LabelledMoments, absolute_penalties
from lrh_ray.analyses.sae.architectures.relu import Relu
from lrh_ray.analyses.sae.dense import DenseTraining
from lrh_ray.analyses.sae.parameters import first_weights
from lrh_ray.analyses.sae.sparsity import PowerPenalty
from lrh_ray.analyses.sae.upper_bound import assigned, correlations
from lrh_ray.analyses.worlds.direct import direct_world
from lrh_ray.analyses.worlds.learning import Recipe, bits_of, encoded, train, untrained
from lrh_ray.analyses.worlds.tokens import TokenWorld, centred
from lrh_ray.errors import NotConverged

LATENTS, BATCH = 64, 512
STEPS, ANNEAL_FROM, ANNEAL_TO = 600, 300, 540
RATE, WEIGHT, LAST_P = 3e-3, 0.03, 0.2
PENALTY, TOLERANCE = 1e-4, 1e-5
AUTOENCODER, RANDOM = "autoencoder", "random directions"


@dataclass(frozen=True, kw_only=True, slots=True)
class Latents:
    """Mean r over concepts of the latents that match the probe best."""

    probe: float
    """With the log-odds of the probe."""
    truth: float
    """With the exact log-odds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BoundTrial:
    """One world: r of the probe's log-odds with the exact ones, of every concept; and of what was chosen by it."""

    noise: float
    seed: int
    probe: tuple[float, ...]
    perfect: tuple[float, ...]
    controls: Mapping[str, tuple[float, ...]]
    accuracy: float
    """Of the probe, mean over concepts."""
    bayes: float
    """Of the exact log-odds: the most there is."""
    latents: Mapping[str, Latents]


def bound_trial(*, noise: float, seed: int, recipe: Recipe) -> BoundTrial:
    """Train a model of the world of A1 (`direct`), probes and an autoencoder; about 15 seconds of one core."""
    world = direct_world(noise, seed)
    network = train(world, recipe, seed)
    rng = np.random.default_rng([seed, 6])
    contexts, _, configurations = world.draw(recipe.test_rows, rng)
    labels = (world.prior.configurations[configurations] == 0).astype(np.float64)
    exact, features = exact_log_odds(world, contexts), encoded(world, network, contexts)
    bits = bits_of(contexts, world.log_context.shape[2]).astype(np.float64)
    probe = probe_log_odds(features, labels)
    half = len(contexts) // 2

    def matched(log_odds: np.ndarray) -> tuple[float, ...]:
        return tuple(_correlation(log_odds[half:, i], exact[half:, i]) for i in range(exact.shape[1]))

    return BoundTrial(
        noise=noise,
        seed=seed,
        probe=matched(probe),
        perfect=matched(probe_log_odds(centred(world.log_predictive(contexts)), labels)),
        controls={
            "untrained weights": matched(
                probe_log_odds(encoded(world, untrained(world, recipe, seed), contexts), labels)
            ),
            "input bits": matched(probe_log_odds(bits, labels)),
            "shuffled labels": matched(probe_log_odds(features, labels[rng.permutation(len(labels))])),
        },
        accuracy=float(((probe > 0) == (labels > 0.5))[half:].mean()),
        bayes=float(((exact > 0) == (labels > 0.5))[half:].mean()),
        latents={
            AUTOENCODER: best_latents(autoencoder_codes(features, seed), probe, exact),
            RANDOM: best_latents(features @ rng.standard_normal((features.shape[1], LATENTS)), probe, exact),
        },
    )


def exact_log_odds(world: TokenWorld, contexts: np.ndarray) -> np.ndarray:
    """Of the first against the second value of every concept [N, concepts], nats."""
    posterior = np.exp(world.log_posterior(contexts))
    found = []
    for concept in range(world.prior.configurations.shape[1]):
        shares = posterior @ world.prior.lifting(concept)
        found.append(np.log(shares[:, 0] / shares[:, 1]))
    return np.stack(found, axis=1)


def probe_log_odds(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Log-odds [N, concepts] of all rows by logistic probes of the first half of them.

    Raises:
        NotConverged: A probe that does not reach its certificate.
    """
    half = len(features) // 2
    own, members = features[:half], np.ones((half, 1), dtype=bool)
    populations = np.zeros(labels.shape[1], np.int64)
    moments = LabelledMoments.of(own, own.mean(axis=0), labels[:half], members, populations).finalize()
    problem = LogisticProblem(moments=moments, penalties=absolute_penalties(moments, (PENALTY,)))
    fit = run_in_memory(problem, [(own, members)], tolerance=TOLERANCE)
    if not fit.converged.all():
        raise NotConverged(f"A probe of a world stands at a gradient of {fit.certificate.max():.1e}; add contexts.")
    return fit.readout.scores(features)


def autoencoder_codes(features: np.ndarray, seed: int) -> np.ndarray:
    """Codes [N, M] of all rows by an autoencoder (p-annealing) of the first half of them."""
    own = features[: len(features) // 2]
    scale = np.sqrt(((own - own.mean(axis=0)) ** 2).sum(axis=1).mean())
    rows = (features / scale).astype(np.float32)
    weights = first_weights(LATENTS, own.mean(axis=0) / scale, seed=seed)
    penalty = PowerPenalty(weight=WEIGHT, last_p=LAST_P, from_step=ANNEAL_FROM, to_step=ANNEAL_TO, warmup=STEPS // 10)
    architecture = Relu(dict(weights.named()), penalty)
    training, rng = DenseTraining(architecture), np.random.default_rng([seed, 7])
    for _ in range(STEPS):
        training.step(rows[rng.integers(len(own), size=BATCH)], rate=RATE)
    with torch.no_grad():
        return np.asarray(architecture.codes(torch.from_numpy(rows)).numpy())


def best_latents(codes: np.ndarray, probe: np.ndarray, exact: np.ndarray) -> Latents:
    """A latent for each concept, matched to the probe on the first half of the rows; r on the others."""
    half, concepts = len(codes) // 2, range(probe.shape[1])
    chosen = assigned(np.stack([correlations(probe[:half, i], codes[:half], exponential=False) for i in concepts]))

    def mean_with(log_odds: np.ndarray) -> float:
        return float(np.mean([_correlation(codes[half:, chosen[i]], log_odds[half:, i]) for i in concepts]))

    return Latents(probe=mean_with(probe), truth=mean_with(exact))


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's r; 0 of a latent that does not vary."""
    return float(correlations(other, one[:, None], exponential=False)[0])
