"""A small next-token model of a token world, and how linearly its features hold the posterior of the concepts.

The model is the one that Theorem 3.1 speaks of: features f(x) of the context, one vector for each next token, and a
softmax of their products. Contexts enter as the bits of their tokens: one-hot tokens would make log p(c|x) linear in
the input, and the raw control would then win by construction.

    trained = train(world, Recipe(), seed=0)
    read = reading(world, trained, seed=0)
    read.features, read.logits, read.divergence

What can go wrong: a world harder than the recipe trains for shows the optimiser, not the theorem. `divergence`, the
KL from the true p(y|x), says which; report it beside every R^2.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lrh_ray.analyses.joint import JointMoments
from lrh_ray.analyses.layouts import Contexts
from lrh_ray.analyses.linear_map import fit_linear, r_squared
from lrh_ray.analyses.worlds.tokens import TokenWorld, centred
from lrh_ray.errors import ConfigError
from lrh_ray.layouts import Rows64
from lrh_ray.vector_math import settle_vector_math

Control: TypeAlias = Literal["bits", "shuffled rows"]
RIDGE = 1e-8
LEAST = {"batch": 2, "test_rows": 4}
"""Batch norm has no variance of one row, and test rows are halved."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How a network is built and trained; the defaults reach a KL of .01 in the worlds of the acceptance test."""

    hidden: int = 128
    layers: int = 3
    features: int = 16
    rows: int = 200_000
    batch: int = 512
    steps: int = 2500
    rate: float = 2e-3
    test_rows: int = 20_000

    def __post_init__(self) -> None:
        require_recipe(
            self.rate,
            hidden=self.hidden,
            layers=self.layers,
            features=self.features,
            rows=self.rows,
            batch=self.batch,
            steps=self.steps,
            test_rows=self.test_rows,
        )


def require_recipe(rate: float, **counts: int) -> None:
    """Refuse what no training can be done with.

    Raises:
        ConfigError: A count below 1, or below what `LEAST` says of it, or a rate that is not a positive finite number.
    """
    for name, count in counts.items():
        least = LEAST.get(name, 1)
        if count < least:
            raise ConfigError(f"{name} is {count!r}; a recipe needs at least {least}.")
    if not (math.isfinite(rate) and rate > 0):
        raise ConfigError(f"rate is {rate!r}; a learning rate is a positive finite number, 2e-3 say.")


def perceptron(widths: Sequence[int]) -> nn.Sequential:
    """A multi-layer perceptron: batch norm and ReLU after every layer but the last."""
    blocks = [
        part
        for before, after in pairwise(widths[:-1])
        for part in (nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU())
    ]
    return nn.Sequential(*blocks, nn.Linear(widths[-2], widths[-1]))


class Network(nn.Module):
    """Bits of the context -> features [N, D] -> logits of the next token [N, Y]."""

    def __init__(self, num_bits: int, num_next: int, recipe: Recipe) -> None:
        super().__init__()
        self.encoder = perceptron([num_bits, *[recipe.hidden] * recipe.layers, recipe.features])
        self.unembedding = nn.Linear(recipe.features, num_next, bias=False)

    def forward(self, bits: Tensor) -> Tensor:
        logits: Tensor = self.unembedding(self.encoder(bits))
        return logits


def bits_of(contexts: np.ndarray, vocabulary: int) -> np.ndarray:
    """Tokens [N, T] as their binary digits [N, T * bits], float32."""
    num_bits = max(1, (vocabulary - 1).bit_length())
    digits = contexts[:, :, None] >> np.arange(num_bits) & 1
    return np.asarray(digits.reshape(len(contexts), -1), dtype=np.float32)


def train(world: TokenWorld, recipe: Recipe, seed: int, *, permuted: bool = False) -> Network:
    """A network that has learnt p(y|x) from draws; with `permuted` next tokens belong to other contexts (a control).

    The same arguments give the same weights on one machine with one number of threads. The global random state of torch
    is left as it was.
    """
    rng = np.random.default_rng([seed, 1])
    contexts, following, _ = world.draw(recipe.rows, rng)
    if permuted:
        following = rng.permutation(following)
    network = untrained(world, recipe, seed)
    bits, targets = torch.from_numpy(bits_of(contexts, _vocabulary(world))), torch.from_numpy(following)
    optimiser = torch.optim.Adam(network.parameters(), lr=recipe.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.steps)
    network.train()
    for _ in range(recipe.steps):
        rows = torch.from_numpy(rng.integers(recipe.rows, size=recipe.batch))
        loss = functional.cross_entropy(network(bits[rows]), targets[rows])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return network.eval()


def untrained(world: TokenWorld, recipe: Recipe, seed: int) -> Network:
    """A network with its initial weights."""
    settle_vector_math()
    num_bits = bits_of(np.zeros((1, len(world.log_context)), np.int64), _vocabulary(world)).shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network(num_bits, world.log_next.shape[1], recipe).eval()


def encoded(world: TokenWorld, network: Network, contexts: Contexts) -> Rows64:
    """Features f(x) [N, D] of contexts, computed in float32."""
    with torch.inference_mode():
        features: np.ndarray = network.encoder(torch.from_numpy(bits_of(contexts, _vocabulary(world)))).numpy()
    return features.astype(np.float64)


def next_vectors(network: Network) -> Rows64:
    """The unembedding: one vector for every next token [Y, D]."""
    vectors: np.ndarray = network.unembedding.weight.detach().numpy()
    return vectors.astype(np.float64)


def _vocabulary(world: TokenWorld) -> int:
    return int(world.log_context.shape[2])


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """Held-out R^2 (variance-weighted, all configurations or logits) of linear maps, fitted on other contexts.

    `divergence` is E KL(p(y|x) || model) in nats.
    """

    logits: float
    """log p(c|x) -> the model's centred logits: the direction of Theorem 3.1."""
    features: float
    """f(x) -> centred log p(c|x): what a reader of the features gets."""
    divergence: float


def reading(world: TokenWorld, network: Network, recipe: Recipe, seed: int, control: Control | None = None) -> Reading:
    """How linear the relation of features and log-posteriors is, on fresh contexts: half to fit, half to score.

    Controls: `bits` reads the input instead of the features; `shuffled rows` pairs features with other contexts.
    """
    rng = np.random.default_rng([seed, 2])
    contexts, _, _ = world.draw(recipe.test_rows, rng)
    features = encoded(world, network, contexts)
    logits = features @ next_vectors(network).T
    log_p = world.log_predictive(contexts)
    log_q = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    if control == "bits":
        features = bits_of(contexts, _vocabulary(world)).astype(np.float64)
    elif control == "shuffled rows":
        features = features[rng.permutation(len(features))]
    posterior = centred(world.log_posterior(contexts))
    return Reading(
        logits=held_out(posterior, centred(logits)),
        features=held_out(features, posterior),
        divergence=float((np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean()),
    )


def held_out(x: np.ndarray, y: np.ndarray) -> float:
    """R^2 on the second half of the rows of the map fitted on the first."""
    halves = np.repeat(np.arange(2), [len(x) // 2, len(x) - len(x) // 2])
    shift = np.concatenate([x[:1000].mean(axis=0), y[:1000].mean(axis=0)]).astype(np.float64)
    state = JointMoments.of(x, y, shift=shift, groups=halves, num_groups=2)
    return r_squared(fit_linear(state.only(0), RIDGE), state.only(1)).total
