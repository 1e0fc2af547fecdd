"""An encoder that tells the classes of a sphere world apart, and how linearly its features hold the points.

    world = SphereWorld.random(np.random.default_rng(0), concentration=10.0)
    encoder = train_encoder(world, SphereRecipe(), seed=0, labels="class")
    read = sphere_reading(world, encoder, seed=0)
    read.points, read.centres, read.divergence

Labels are classes, or instances (DIET): each of many instances is a label of its own and shows a fresh point around its
class at every step, as augmentations of an image do. Points are fresh at every step here too; a fixed set of 50,000 is
learnt by heart, and R^2 then stops near .985.

Features may be any linear map of the points while the vectors of the labels are free. Where those have length 1, the
features of a perfect classifier are kappa times a rotation of the points: `rotation_error` measures that.

What can go wrong: too few steps show the optimiser, not the theorem. `divergence`, the KL from the true p(c | z), says
which; report it beside every R^2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from scipy.special import log_softmax
from torch import Tensor, nn
from torch.nn import functional

from lrh_ray.analyses.layouts import Classes
from lrh_ray.analyses.worlds.learning import held_out, perceptron, require_recipe
from lrh_ray.analyses.worlds.spheres import SphereWorld
from lrh_ray.layouts import Rows64
from lrh_ray.vector_math import settle_vector_math

Labels: TypeAlias = Literal["class", "instance", "permuted"]
"""What an encoder is trained to tell: classes, instances of them, or the classes of other points (a control)."""

TEST_POINTS = 8192


@dataclass(frozen=True, kw_only=True, slots=True)
class SphereRecipe:
    """How an encoder is built and trained: Adam with a cosine schedule, fresh points at every step.

    The source has six hidden layers, 50 to 250 wide for five dimensions, and half a million steps at a rate of 1e-3.
    """

    hidden: int = 128
    layers: int = 3
    batch: int = 1024
    steps: int = 5000
    rate: float = 1e-2
    instances: int = 1000
    """Labels of DIET."""
    label_vectors: Literal["free", "unit"] = "free"
    """`unit`: of length 1, which leaves a rotation open and no more."""

    def __post_init__(self) -> None:
        require_recipe(
            self.rate,
            hidden=self.hidden,
            layers=self.layers,
            batch=self.batch,
            steps=self.steps,
            instances=self.instances,
        )


class Encoder(nn.Module):
    """x [N, D] -> logits [N, labels]: products of the features with one vector for each label."""

    def __init__(self, dim: int, num_labels: int, recipe: SphereRecipe) -> None:
        super().__init__()
        self.body = perceptron([dim, *[recipe.hidden] * recipe.layers, dim])
        self.labels = nn.Linear(dim, num_labels, bias=False)
        self.unit = recipe.label_vectors == "unit"

    @property
    def vectors(self) -> Tensor:
        """The label vectors [labels, D] that the logits are made with."""
        weight: Tensor = self.labels.weight
        return functional.normalize(weight, dim=1) if self.unit else weight

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(self.body(x), self.vectors)


def train_encoder(world: SphereWorld, recipe: SphereRecipe, seed: int, *, labels: Labels = "class") -> Encoder:
    """An encoder that has learnt the labels. The same arguments give the same weights on one machine and thread count.

    The global random state of torch is left as it was.
    """
    rng = np.random.default_rng([seed, 1])
    encoder = untrained_encoder(world, recipe, seed, labels=labels)
    optimiser = torch.optim.Adam(encoder.parameters(), lr=recipe.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.steps)
    encoder.train()
    for _ in range(recipe.steps):
        points, targets = _batch(world, recipe, labels, rng)
        loss = functional.cross_entropy(encoder(_observed(world, points)), torch.from_numpy(targets))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return encoder.eval()


def untrained_encoder(world: SphereWorld, recipe: SphereRecipe, seed: int, *, labels: Labels = "class") -> Encoder:
    """An encoder with its initial weights."""
    settle_vector_math()
    num_labels = recipe.instances if labels == "instance" else len(world.centres)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Encoder(world.dim, num_labels, recipe).eval()


def _batch(
    world: SphereWorld, recipe: SphereRecipe, labels: Labels, rng: np.random.Generator
) -> tuple[Rows64, Classes]:
    """Fresh points and what to call them. Instance i is one of class i modulo the number of classes."""
    if labels == "instance":
        instances = rng.integers(recipe.instances, size=recipe.batch)
        return world.around(instances % len(world.centres), rng), instances
    points, classes = world.draw(recipe.batch, rng)
    return points, (rng.permutation(classes) if labels == "permuted" else classes)


def _observed(world: SphereWorld, points: Rows64) -> Tensor:
    return torch.from_numpy(world.observe(points).astype(np.float32))


@dataclass(frozen=True, kw_only=True, slots=True)
class SphereReading:
    """What an encoder has recovered, on fresh points. R^2 is held-out and variance-weighted."""

    points: float
    """Features -> points z, fitted on one half of 8192 and scored on the other."""
    centres: float
    """Vectors of the labels -> directions v of their classes, fitted on half the labels."""
    rotation_error: float | None
    """Mean |s - 1| over the singular values of the map without intercept from features / kappa to points; None unless
    label vectors have length 1."""
    divergence: float
    """E KL(p(label | z) || encoder), nats."""


def sphere_reading(world: SphereWorld, encoder: Encoder, seed: int) -> SphereReading:
    """How linear the relation of features and points is, and of label vectors and directions."""
    points = fresh_points(world, seed)
    with torch.inference_mode():
        features = encoder.body(_observed(world, points)).numpy().astype(np.float64)
    vectors = encoder.vectors.detach().numpy().astype(np.float64)
    classes = np.arange(len(vectors)) % len(world.centres)
    log_p = log_softmax(world.log_posterior(points)[:, classes], axis=1)  # of instances too: all are equally likely
    log_q = log_softmax(features @ vectors.T, axis=1)
    return SphereReading(
        points=held_out(features, points),
        centres=held_out(vectors, world.centres[classes]),
        rotation_error=_rotation_error(features / world.concentration, points) if encoder.unit else None,
        divergence=float((np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean()),
    )


def fresh_points(world: SphereWorld, seed: int) -> Rows64:
    """The points that a trial of this seed is scored on."""
    points, _ = world.draw(TEST_POINTS, np.random.default_rng([seed, 2]))
    return points


def _rotation_error(features: Rows64, points: Rows64) -> float:
    weights, *_ = np.linalg.lstsq(features, points, rcond=None)
    return float(np.abs(np.linalg.svd(weights, compute_uv=False) - 1).mean())


@dataclass(frozen=True, kw_only=True, slots=True)
class SphereTrial:
    """One world and one encoder. `controls` are R^2 of a linear map to the points from what nothing was learnt of."""

    concentration: float
    labels: Labels
    seed: int
    trained: SphereReading
    controls: Mapping[str, float]


def sphere_trial(
    *,
    concentration: float,
    seed: int,
    recipe: SphereRecipe,
    labels: Labels = "class",
    dim: int = 5,
    num_classes: int = 100,
) -> SphereTrial:
    """Train an encoder in a world and read it; about 35 seconds of one core.

    The control of a trial of classes is, beside its own, the same trial with permuted labels.
    """
    rng = np.random.default_rng([seed, 0])
    world = SphereWorld.random(rng, dim=dim, num_classes=num_classes, concentration=concentration)
    points = fresh_points(world, seed)
    return SphereTrial(
        concentration=concentration,
        labels=labels,
        seed=seed,
        trained=sphere_reading(world, train_encoder(world, recipe, seed, labels=labels), seed),
        controls={
            "untrained weights": sphere_reading(world, untrained_encoder(world, recipe, seed), seed).points,
            "input": held_out(world.observe(points), points),
        },
    )
