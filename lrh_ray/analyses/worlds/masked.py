"""The masked-bit world of 2503.08980, section 6: concepts seen through shuffled codes, one bit of which is hidden.

A configuration of binary concepts is written in binary after a random renumbering of all configurations; many such
renumberings give a pool of bits, of which M are observed. A model learns to predict one hidden bit from the others, and
a logistic probe reads each concept from its features. More bits leave less doubt about the concepts, and the probe's
accuracy rises with M.

    trial = masked_trial(prior, num_bits=6, seed=0)
    trial.probe, trial.ceiling, trial.raw       # accuracies: of the features, of Bayes, of the bits themselves

The published figure has the first of these alone. Beside it belong the ceiling, which no reader of the visible bits can
pass; the probe on the bits themselves, for what the model adds is the difference to that one; and the probe on features
of random weights, for a wide layer separates a few bits whatever it was trained on.

What can go wrong: accuracies depend on the base rates of the concepts; compare them within one seed.
"""

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

from lrh_ray.analyses.layouts import Bits, Classes
from lrh_ray.analyses.worlds.concepts import ConceptPrior
from lrh_ray.analyses.worlds.learning import perceptron, require_recipe
from lrh_ray.errors import ConfigError
from lrh_ray.vector_math import settle_vector_math


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskedRecipe:
    """Network and training: three hidden layers as in the source; rows are halved for the probe."""

    hidden: int = 256
    layers: int = 3
    rows: int = 6000
    batch: int = 256
    steps: int = 600
    rate: float = 1e-3

    def __post_init__(self) -> None:
        require_recipe(
            self.rate, hidden=self.hidden, layers=self.layers, rows=self.rows, batch=self.batch, steps=self.steps
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskedTrial:
    """Mean accuracy over concepts, on held-out rows; the ceiling and the majority are exact."""

    num_bits: int
    seed: int
    probe: float
    ceiling: float
    raw: float
    untrained: float
    """The probe on features of the initial weights, with batch norm as the rows have it."""
    majority: float
    """Always guessing the likelier value of each concept."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MaskedWorld:
    """`codes` [C, M]: the observed bits of every configuration."""

    prior: ConceptPrior
    codes: Bits

    @classmethod
    def random(cls, prior: ConceptPrior, num_bits: int, rng: np.random.Generator) -> "MaskedWorld":
        """M bits of the pool of as many renumberings as there are configurations.

        Raises:
            ConfigError: A concept that is not binary, or other than 2 to all bits of the pool.
        """
        total, concepts = prior.configurations.shape
        if total != 2**concepts:
            raise ConfigError("The masked-bit world is one of binary concepts; give each two values.")
        if not 2 <= num_bits <= total * concepts:
            raise ConfigError(f"num_bits is {num_bits!r}; the pool of {concepts} concepts has 2 to {total * concepts}.")
        numbers = np.stack([rng.permutation(total) for _ in range(total)], axis=1)
        pool = (numbers[:, :, None] >> np.arange(concepts) & 1).reshape(total, -1)
        return cls(prior=prior, codes=pool[:, rng.choice(pool.shape[1], num_bits, replace=False)])

    def inputs(self, configurations: Classes, hidden: Classes) -> np.ndarray:
        """[N, 2M] float32: bits as -1 and 1, 0 where hidden; then which one is."""
        signs = 2.0 * self.codes[configurations] - 1.0
        masks = np.arange(self.codes.shape[1]) == hidden[:, None]
        return np.concatenate([np.where(masks, 0.0, signs), masks], axis=1).astype(np.float32)

    @property
    def ceiling(self) -> float:
        """Accuracy of the best guess of each concept given the visible bits, over concepts and hidden bits; exact."""
        p, num_bits, correct = np.exp(self.prior.log_probabilities), self.codes.shape[1], 0.0
        concepts = self.prior.configurations.shape[1]
        for hidden in range(num_bits):
            _, seen = np.unique(np.delete(self.codes, hidden, axis=1), axis=0, return_inverse=True)
            for concept in range(concepts):
                mass = np.zeros((int(seen.max()) + 1, 2))
                np.add.at(mass, (seen.reshape(-1), self.prior.configurations[:, concept]), p)
                correct += mass.max(axis=1).sum()
        return float(correct / (num_bits * concepts))

    @property
    def majority(self) -> float:
        """Accuracy of the best guess of each concept that looks at no bit, over concepts; exact."""
        shares = np.exp(self.prior.log_probabilities) @ self.prior.configurations
        return float(np.maximum(shares, 1 - shares).mean())


def masked_trial(prior: ConceptPrior, *, num_bits: int, seed: int, recipe: MaskedRecipe | None = None) -> MaskedTrial:
    """Train on drawn rows, probe the features of fresh ones; the same arguments give the same numbers."""
    recipe, rng = recipe or MaskedRecipe(), np.random.default_rng([seed, num_bits])
    world = MaskedWorld.random(prior, num_bits, rng)
    network = _train(world, recipe, seed, rng)
    configurations, hidden = _draw(world, recipe.rows, rng)
    inputs, values = world.inputs(configurations, hidden), prior.configurations[configurations]
    return MaskedTrial(
        num_bits=num_bits,
        seed=seed,
        probe=_probe(_features(network, inputs), values),
        ceiling=world.ceiling,
        raw=_probe(inputs, values),
        untrained=_probe(_features(_untrained(world, recipe, seed), inputs), values),
        majority=world.majority,
    )


def _features(network: torch.nn.Sequential, inputs: np.ndarray) -> np.ndarray:
    """The last hidden layer [N, hidden]."""
    with torch.inference_mode():
        features: np.ndarray = network[:-1](torch.from_numpy(inputs)).numpy()
    return features


def _draw(world: MaskedWorld, rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Configurations, and the number of the hidden bit of each row."""
    return world.prior.draw(rows, rng), rng.integers(world.codes.shape[1], size=rows)


def _train(world: MaskedWorld, recipe: MaskedRecipe, seed: int, rng: np.random.Generator) -> torch.nn.Sequential:
    """A network [2M] -> [M] logits of the bits, of which the hidden one is trained."""
    configurations, hidden = _draw(world, recipe.rows, rng)
    inputs = torch.from_numpy(world.inputs(configurations, hidden))
    places = torch.from_numpy(hidden)
    targets = torch.from_numpy(world.codes[configurations, hidden].astype(np.float32))
    network = _untrained(world, recipe, seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=recipe.rate)
    for _ in range(recipe.steps):
        rows = torch.from_numpy(rng.integers(recipe.rows, size=recipe.batch))
        logits = network(inputs[rows]).gather(1, places[rows, None])[:, 0]
        loss = functional.binary_cross_entropy_with_logits(logits, targets[rows])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return network.eval()


def _untrained(world: MaskedWorld, recipe: MaskedRecipe, seed: int) -> torch.nn.Sequential:
    """A network with its initial weights. Batch norm takes its statistics from the rows: it has none of its own yet."""
    settle_vector_math()
    num_bits = world.codes.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return perceptron([2 * num_bits, *[recipe.hidden] * recipe.layers, num_bits])


def _probe(rows: np.ndarray, values: np.ndarray) -> float:
    """Mean held-out accuracy of a logistic probe of every concept, fitted on the first half of the rows."""
    half, scores = len(rows) // 2, []
    for concept in range(values.shape[1]):
        fitted = LogisticRegression(max_iter=2000).fit(rows[:half], values[:half, concept])
        scores.append(fitted.score(rows[half:], values[half:, concept]))
    return float(np.mean(scores))
