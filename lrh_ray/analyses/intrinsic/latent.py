"""A probe that learns with the subset of dimensions as a latent variable (Stanczak et al., arXiv 2201.08214).

A probe trained on all dimensions and then shown some of them is off: the rest is missing where it relied on it. One
probe for every subset cannot be trained. Here one softmax probe is trained on random subsets, which are drawn more and
more from where the concept is. The objective is the paper's bound on log p(labels), with entropy scaled as in its code:

    max  E_q(C) [ (1/n) sum log p(y_i | x_i restricted to C) ] + entropy_scale H(q) - penalty |W|^2

over the probe's weights W and the weights phi of q, a Poisson or conditional Poisson (`subsets`). The gradient for phi
is the score function's, (loss - baseline) d log q(C) / d phi, with the mean loss of the row's
other subsets as baseline.

    probe = fit_latent_probe(rows, classes, recipe=LatentRecipe(family="conditional", largest=10), seed=0)
    order = probe.greedy(rows, classes, 10)                      # most informative first
    log_p = probe.log_posteriors(held_out_rows, order[:5])       # [N, M]: what five dimensions say
    probe.inclusion                                              # [D]

Rows are standardised by the training rows, so that a dimension left out stands at its mean. A Poisson draws dimensions
of no use as often as not; a conditional Poisson, whose subsets are of few sizes, draws them hardly ever.

What can go wrong: dimensions that say the same thing share what they say, and which of them comes first is then a
matter of little; redundancy is not found. Everything is relative to what a softmax of a linear map can read. Labels
that depend on one dimension times another are invisible to it.

Legend: N rows, D dimensions, M classes, S subsets of each row.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn import functional

from lrh_ray.analyses.intrinsic.information import candidate_tiles, likelihoods, require_classes
from lrh_ray.analyses.intrinsic.subsets import Family, SubsetModel, subset_model
from lrh_ray.analyses.layouts import Classes, Indices, LogPosteriors
from lrh_ray.errors import ConfigError
from lrh_ray.layouts import Feature64, Rows64
from lrh_ray.vector_math import settle_vector_math

ClassWeights = Float64[np.ndarray, "feature class"]
ClassFloats = Float64[np.ndarray, "class"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentRecipe:
    """How the probe is trained. Rates, subsets and entropy scale are those of the paper's code, less its early stop."""

    family: Family = "conditional"
    smallest: int = 1
    largest: int = 50
    """Sizes of subsets, uniform; for `conditional`, and at most the number of dimensions."""
    subsets: int = 5
    """Subsets drawn for each row and step."""
    batch: int = 256
    steps: int = 600
    rate: float = 0.05
    """Of Adam, falling to 0 along a cosine."""
    entropy_scale: float = 0.01
    penalty: float = 1e-4

    def __post_init__(self) -> None:
        if self.subsets < 2 or self.batch < 1 or self.steps < 1:
            raise ConfigError(
                f"A latent probe needs 2 subsets of a row or more (got {self.subsets!r}: they are one another's "
                f"baseline), and a batch ({self.batch!r}) and steps ({self.steps!r}) of at least 1."
            )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LatentProbe:
    """Weights [D, M] and intercepts [M] for standardised rows; `log_weights`, `inclusion` [D] of the subset model."""

    mean: Feature64
    scale: Feature64
    weights: ClassWeights
    intercepts: ClassFloats
    log_weights: Feature64
    inclusion: Feature64

    def log_posteriors(self, rows: Rows64, dimensions: Indices) -> LogPosteriors:
        """The logarithms of p(class | the given dimensions) [N, M], nats."""
        own = (rows[:, dimensions] - self.mean[dimensions]) / self.scale[dimensions]
        return _log_softmax(own @ self.weights[dimensions] + self.intercepts)

    def ranking(self, number: int) -> Indices:
        """The `number` dimensions most often drawn, first the most."""
        return np.argsort(-self.log_weights, kind="stable")[:number].astype(np.int64)

    def greedy(self, rows: Rows64, classes: Classes, number: int) -> Indices:
        """Dimensions added one by one, each the one with the greatest log-likelihood of the labels; k N D M FLOP."""
        x_DN, weights_MD = ((rows - self.mean) / self.scale).T.astype(np.float32), self.weights.T.astype(np.float32)
        logits_MN, chosen = np.tile(self.intercepts[:, None], len(rows)), list[int]()
        for _ in range(number):
            scores_D = np.concatenate(
                [
                    likelihoods(logits_MN, weights_MD[:, tile, None] * x_DN[tile], classes)
                    for tile in candidate_tiles(len(x_DN), logits_MN)
                ]
            )
            scores_D[chosen] = -np.inf
            best = int(np.argmax(scores_D))
            logits_MN += np.outer(weights_MD[:, best], x_DN[best])
            chosen.append(best)
        return np.array(chosen, dtype=np.int64)


def fit_latent_probe(rows: Rows64, classes: Classes, *, recipe: LatentRecipe, seed: int) -> LatentProbe:
    """Train a probe and its subset model; the same arguments give the same probe on one number of threads.

    Costs steps * batch * subsets * D * M FLOP, and for `conditional` steps * D * largest in D steps each.

    Raises:
        NotEnoughData: Fewer than two classes, or a class without rows.
    """
    num_classes = require_classes(classes)
    settle_vector_math()
    mean, scale = rows.mean(axis=0), rows.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    x, y = torch.from_numpy((rows - mean) / scale), torch.from_numpy(classes)
    generator = torch.Generator().manual_seed(seed)
    largest = min(recipe.largest, rows.shape[1])
    family = subset_model(recipe.family, smallest=min(recipe.smallest, largest), largest=largest)
    phi = torch.zeros(rows.shape[1], dtype=torch.float64, requires_grad=True)
    weights = torch.zeros(rows.shape[1], num_classes, dtype=torch.float64, requires_grad=True)
    intercepts = torch.zeros(num_classes, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([phi, weights, intercepts], lr=recipe.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.steps)
    for _ in range(recipe.steps):
        batch = torch.randint(len(x), (recipe.batch,), generator=generator)
        subsets = family(phi)
        optimiser.zero_grad()
        loss = _loss(subsets, x[batch], y[batch], weights, intercepts, recipe, generator)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return LatentProbe(
        mean=mean,
        scale=scale,
        weights=weights.detach().numpy(),
        intercepts=intercepts.detach().numpy(),
        log_weights=phi.detach().numpy(),
        inclusion=family(phi.detach()).inclusion().numpy(),
    )


def _loss(
    subsets: SubsetModel,
    x: Tensor,
    y: Tensor,
    weights: Tensor,
    intercepts: Tensor,
    recipe: LatentRecipe,
    generator: torch.Generator,
) -> Tensor:
    """A scalar whose gradient is that of the objective: exact for the probe, by the score function for the subsets."""
    masks = subsets.sample(recipe.subsets * len(x), generator)
    logits = (masks.view(recipe.subsets, *x.shape) * x) @ weights + intercepts
    losses_SN = functional.cross_entropy(logits.flatten(0, 1), y.repeat(recipe.subsets), reduction="none").view(
        recipe.subsets, len(x)
    )
    detached = losses_SN.detach()
    advantage = (detached - detached.mean(dim=0)) * recipe.subsets / (recipe.subsets - 1)  # less the others' mean
    score = (advantage.flatten() * subsets.log_prob(masks)).mean()
    return losses_SN.mean() + score - recipe.entropy_scale * subsets.entropy() + recipe.penalty * weights.square().sum()


def _log_softmax(logits_NM: np.ndarray) -> np.ndarray:
    return np.asarray(logits_NM - np.logaddexp.reduce(logits_NM, axis=1, keepdims=True))
