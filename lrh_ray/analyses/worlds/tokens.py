"""Concepts that emit a context and a next token, and the exact posterior of the concepts given either.

Given a configuration c of the concepts, the T context tokens and the next token are independent:

    p(x, y) = sum_c p(c) prod_t p(x_t | c) p(y | c)        (Liu et al., arXiv 2503.08980, eq. 1)

    world = TokenWorld.random(prior, rng, context=4, vocabulary=8, sharpness=1.0)
    x, y, c = world.draw(20_000, rng)
    world.log_posterior(x)            # [N, C] log p(c | x), nats

Legend: N contexts, T their tokens, V values of a context token, Y next tokens, C configurations.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax, logsumexp

from lrh_ray.analyses.layouts import Contexts, Emissions, LogPosteriors, NextEmissions
from lrh_ray.analyses.worlds.concepts import ConceptPrior


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TokenWorld:
    """A prior over configurations, log p(x_t | c) [T, C, V] and log p(y | c) [C, Y]."""

    prior: ConceptPrior
    log_context: Emissions
    log_next: NextEmissions

    @classmethod
    def random(
        cls,
        prior: ConceptPrior,
        rng: np.random.Generator,
        *,
        context: int = 4,
        vocabulary: int = 8,
        next_vocabulary: int = 32,
        sharpness: float = 1.0,
        next_sharpness: float = 1.0,
    ) -> "TokenWorld":
        """Softmax emissions of Gaussian scores times `sharpness`: 0 tells nothing, 4 nearly all."""
        C = len(prior.log_probabilities)
        x = log_softmax(sharpness * rng.normal(size=(context, C, vocabulary)), axis=2)
        y = log_softmax(next_sharpness * rng.normal(size=(C, next_vocabulary)), axis=1)
        return cls(prior=prior, log_context=x, log_next=y)

    @classmethod
    def telling(
        cls,
        prior: ConceptPrior,
        rng: np.random.Generator,
        *,
        noise: float,
        context: int = 4,
        vocabulary: int = 8,
        sharpness: float = 1.0,
    ) -> "TokenWorld":
        """As `random`, with a next token for every configuration: its own with probability 1 - noise, else any."""
        C = len(prior.log_probabilities)
        x = log_softmax(sharpness * rng.normal(size=(context, C, vocabulary)), axis=2)
        own = np.eye(C)[rng.permutation(C)]
        return cls(prior=prior, log_context=x, log_next=np.log((1 - noise) * own + noise / C))

    @property
    def contexts(self) -> Contexts:
        """Every context [V^T, T]."""
        T, _, V = self.log_context.shape
        return np.stack(np.meshgrid(*[np.arange(V)] * T, indexing="ij"), axis=-1).reshape(-1, T)

    def draw(self, num: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Contexts [N, T], next tokens [N] and configurations [N]."""
        c = self.prior.draw(num, rng)
        x = np.stack([choose(np.exp(emission)[c], rng) for emission in self.log_context], axis=1)
        return x, choose(np.exp(self.log_next)[c], rng), c

    def log_joint(self, contexts: Contexts) -> LogPosteriors:
        """Log p(x, c) [N, C]."""
        logs = np.broadcast_to(self.prior.log_probabilities, (len(contexts), len(self.prior.log_probabilities))).copy()
        for t, emission in enumerate(self.log_context):
            logs += emission[:, contexts[:, t]].T
        return logs

    def log_posterior(self, contexts: Contexts) -> LogPosteriors:
        """Log p(c | x) [N, C]."""
        return np.asarray(log_softmax(self.log_joint(contexts), axis=1))

    def log_predictive(self, contexts: Contexts) -> np.ndarray:
        """Log p(y | x) [N, Y]: what a perfect next-token model says."""
        return np.asarray(logsumexp(self.log_posterior(contexts)[:, :, None] + self.log_next[None], axis=1))

    @property
    def next_posterior(self) -> np.ndarray:
        """p(c | y) [Y, C]."""
        joint = self.prior.log_probabilities[:, None] + self.log_next
        return np.asarray(np.exp(log_softmax(joint, axis=0)).T)


def centred(logs: LogPosteriors) -> LogPosteriors:
    """Log-posteriors less their mean over configurations (clr): what is left when a constant is free in each row."""
    return np.asarray(logs - logs.mean(axis=1, keepdims=True))


def choose(probabilities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One index a row of probabilities [N, K]."""
    ends = probabilities.cumsum(axis=1)
    return np.asarray((rng.random((len(ends), 1)) * ends[:, -1:] >= ends).sum(axis=1))
