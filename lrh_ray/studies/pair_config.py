"""Settings of the pair test."""

from typing import Literal, TypeAlias

from lrh_ray.config import settings

Metric: TypeAlias = Literal["raw", "whitened", "causal"]


@settings
class PairTestConfig:
    """The pair test of 2503.08980, as published and with held-out words (`lrh pairs CONFIG`)."""

    sites: tuple[str, ...] = ()
    """Sites to test; empty: every site of the store."""

    inverse_penalties: tuple[float, ...] = (1e-4, 1e-2, 1.0)
    """C of the logistic probe as scikit-learn counts it; the published figure has 1e-4."""

    metrics: tuple[Metric, ...] = ("raw", "whitened", "causal")
    """Inner products in which directions are compared; `causal` is for rows of `final_norm`, and skipped elsewhere."""

    repeats: int = 20
    """Times that the words are halved for an estimate."""

    draws: int = 200
    """Draws of the null of swapped pairs, and of the bootstrap over groups of words."""

    random_pairs: int = 100_000
    """Pairs of random tokens, the yardstick of directions in the unembedding; 0 leaves all tests of directions out."""

    seed: int = 0
    """Seed of halves, swaps, bootstrap, noise and random pairs."""

    def __post_init__(self) -> None:
        if not self.inverse_penalties or min(self.inverse_penalties) <= 0:
            raise ValueError("inverse_penalties must be positive, for example [1.0e-4, 1.0]")
        if not self.metrics or len(set(self.metrics)) < len(self.metrics):
            raise ValueError("metrics must name at least one, each once, for example [raw, whitened]")
        if self.repeats < 1 or self.seed < 0:
            raise ValueError("repeats must be 1 or more and seed 0 or more")
        if self.random_pairs and self.random_pairs < 1000:
            raise ValueError("random_pairs must be 0 (no tests of directions) or at least 1000")
        if self.draws < 100:
            raise ValueError("draws must be at least 100 to give a 95 % interval")
