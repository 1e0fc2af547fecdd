"""A language of hidden concepts that change with time, and the exact belief of its ideal reader at every token.

Each concept is a Markov chain of its own; the token of a moment tells, with noise, of all concepts of that moment
together (a factorial hidden Markov model):

    p(c_1 .. c_T, x_1 .. x_T) = p(c_1) p(x_1 | c_1) prod_t p(c_t | c_t-1) p(x_t | c_t)

What is there to know about the concepts after reading x_1 .. x_t is the filtered posterior p(c_t | x_<=t), which the
forward algorithm gives exactly. A next-token model never sees the concepts, yet predicts the better the closer it
comes to this posterior; so it is a ground truth for every layer, position and moment of training of a real model.

    world = HiddenMarkovWorld.random(np.random.default_rng(0))
    tokens, configurations = world.draw(100, 64, rng)       # [N, T] each
    world.filtered(tokens)                                  # [N, T, C] log p(c_t | x_<=t), nats

Legend: N sequences, T tokens, C configurations of the concepts, K concepts, V tokens of the vocabulary.

What can go wrong: chains that hardly ever change, or tokens that tell nearly all, make log-posteriors of -50 nats and
more; a linear map of them is then a matter of the extremes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from scipy.special import log_softmax, logsumexp

from lrh_ray.analyses.worlds.tokens import choose
from lrh_ray.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class HiddenMarkovWorld:
    """Concepts and their values [C, K], p(c_1) [C], p(c_t | c_t-1) [C, C] (rows: before) and log p(x | c) [C, V]."""

    configurations: np.ndarray
    start: np.ndarray
    transition: np.ndarray
    log_emission: np.ndarray

    @classmethod
    def random(
        cls,
        rng: np.random.Generator,
        *,
        values: Sequence[int] = (2, 2, 2),
        vocabulary: int = 32,
        persistence: float = 0.9,
        sharpness: float = 1.0,
    ) -> "HiddenMarkovWorld":
        """One chain for each entry of `values`, which keeps its value with probability about `persistence`.

        A chain that leaves its value goes to any value with random weights. The score of a token is a sum over
        concepts of Gaussian scores times `sharpness`: at 0 tokens tell nothing.

        Raises:
            ConfigError: A concept of fewer than 2 values, more than 4096 configurations, a vocabulary below 2, or a
                persistence outside [0, 1).
        """
        _require(values, vocabulary, persistence)
        chains = [_chain(size, persistence, rng) for size in values]
        configurations = np.indices(tuple(values)).reshape(len(values), -1).T
        scores = sum(
            sharpness * rng.normal(size=(size, vocabulary))[configurations[:, k]] for k, size in enumerate(values)
        )
        transition = reduce(np.kron, chains)
        return cls(
            configurations=configurations,
            start=_stationary(transition),
            transition=transition,
            log_emission=log_softmax(np.asarray(scores), axis=1),
        )

    def draw(self, num: int, length: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and configurations [N, T], int64."""
        emission = np.exp(self.log_emission)
        configurations = np.empty((num, length), np.int64)
        tokens = np.empty((num, length), np.int64)
        for t in range(length):
            before = self.transition[configurations[:, t - 1]] if t else np.tile(self.start, (num, 1))
            configurations[:, t] = choose(before, rng)
            tokens[:, t] = choose(emission[configurations[:, t]], rng)
        return tokens, configurations

    def filtered(self, tokens: np.ndarray) -> np.ndarray:
        """Log p(c_t | x_<=t) [N, T, C] by the forward algorithm, float64; N T C^2 FLOP."""
        beliefs = np.empty((*tokens.shape, len(self.start)))
        expected = np.tile(self.start, (len(tokens), 1))
        for t in range(tokens.shape[1]):
            with np.errstate(divide="ignore"):  # a configuration that cannot be reached has probability 0
                joint = np.log(expected) + self.log_emission[:, tokens[:, t]].T
            beliefs[:, t] = log_softmax(joint, axis=1)
            expected = np.exp(beliefs[:, t]) @ self.transition
        return beliefs

    def log_predictive(self, filtered: np.ndarray) -> np.ndarray:
        """Log p(x_t+1 | x_<=t) [N, T, V] from filtered beliefs [N, T, C]: what a perfect model says."""
        expected = np.exp(filtered) @ self.transition
        return np.asarray(logsumexp(np.log(expected)[..., None] + self.log_emission, axis=-2))

    def marginals(self, filtered: np.ndarray, concept: int) -> np.ndarray:
        """Log p(c_k = v | x_<=t) [N, T, values of concept k] from filtered beliefs [N, T, C]."""
        column = self.configurations[:, concept]
        parts = [logsumexp(filtered[..., column == value], axis=-1) for value in range(int(column.max()) + 1)]
        return np.stack(parts, axis=-1)

    @property
    def vocabulary(self) -> int:
        return int(self.log_emission.shape[1])


def _require(values: Sequence[int], vocabulary: int, persistence: float) -> None:
    if not values or min(values) < 2 or math.prod(values) > 4096:
        raise ConfigError(f"values is {list(values)!r}: each concept needs at least 2, all together at most 4096.")
    if vocabulary < 2:
        raise ConfigError(f"vocabulary is {vocabulary!r}; a language has at least 2 tokens.")
    if not 0 <= persistence < 1:
        raise ConfigError(f"persistence is {persistence!r}; it is a probability below 1, for example 0.9.")


def _chain(size: int, persistence: float, rng: np.random.Generator) -> np.ndarray:
    """[size, size]: stay, or go to any value with weights of the leaving one's own."""
    elsewhere = rng.uniform(0.2, 0.8, size=(size, size))
    return np.asarray(persistence * np.eye(size) + (1 - persistence) * elsewhere / elsewhere.sum(1, keepdims=True))


def _stationary(transition: np.ndarray) -> np.ndarray:
    """The distribution that a step does not change: left eigenvector of eigenvalue 1."""
    equations = np.vstack([transition.T - np.eye(len(transition)), np.ones(len(transition))])
    solution = np.linalg.lstsq(equations, np.append(np.zeros(len(transition)), 1.0), rcond=None)[0]
    return np.asarray(np.clip(solution, 0, None) / np.clip(solution, 0, None).sum())
