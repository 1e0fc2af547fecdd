"""The world of clusters on a sphere: its draws, its exact posterior, and what an encoder recovers of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats

from lrh_ray.analyses.worlds.sphere_learning import (
    SphereRecipe,
    fresh_points,
    sphere_reading,
    sphere_trial,
    train_encoder,
    untrained_encoder,
)
from lrh_ray.analyses.worlds.spheres import SLOPE, SphereWorld, draw_around
from lrh_ray.errors import ConfigError

SHORT = SphereRecipe(hidden=64, layers=3, batch=512, steps=600, rate=2e-2, instances=200)
TINY = SphereRecipe(hidden=8, layers=1, batch=16, steps=3, instances=200)


def world_of(dim=3, num_classes=40, concentration=10.0):
    rng = np.random.default_rng([0, 0])  # the world of the trial of seed 0
    return SphereWorld.random(rng, dim=dim, num_classes=num_classes, concentration=concentration)


@pytest.fixture(scope="module")
def world():
    return world_of()


@pytest.mark.parametrize(("dim", "concentration"), [(2, 1.0), (3, 10.0), (5, 10.0), (5, 50.0), (20, 0.5)])
def test_points_are_von_mises_fisher(dim, concentration):
    """The cosine to the centre against its density, integrated numerically; Kolmogorov-Smirnov at 1e-3."""
    centre = np.full(dim, dim**-0.5)
    points = draw_around(np.tile(centre, (20_000, 1)), concentration, np.random.default_rng(5))
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1.0, atol=1e-12)
    mean = special.ive(dim / 2, concentration) / special.ive(dim / 2 - 1, concentration)
    np.testing.assert_allclose(points.mean(axis=0), mean * centre, atol=0.02)

    angles = np.linspace(0, np.pi, 20_001)  # density of the angle: sin^(D - 2) exp(kappa cos)
    density = np.sin(angles) ** (dim - 2) * np.exp(concentration * (np.cos(angles) - 1))
    below = integrate.cumulative_trapezoid(density, angles, initial=0)
    found = np.arccos(np.clip(points @ centre, -1, 1))
    assert stats.kstest(found, lambda a: np.interp(a, angles, below / below[-1])).pvalue > 1e-3


def test_every_row_is_drawn_around_its_own_class(world):
    points, classes = world.draw(30_000, np.random.default_rng(1))
    mean = 1 / np.tanh(10) - 1 / 10  # of the cosine, in three dimensions
    for number in (0, 17, 39):
        own = points[classes == number]
        assert len(own) == pytest.approx(750, abs=150)
        np.testing.assert_allclose(own.mean(axis=0), mean * world.centres[number], atol=0.06)


def test_the_posterior_is_bayes_rule_with_scipys_densities(world):
    points, _ = world.draw(50, np.random.default_rng(2))
    logs = np.stack([stats.vonmises_fisher(v, world.concentration).logpdf(points) for v in world.centres], axis=1)
    expected = logs - special.logsumexp(logs, axis=1, keepdims=True)
    np.testing.assert_allclose(world.log_posterior(points), expected, atol=1e-10)


def test_the_mixing_can_be_undone(world):
    points, _ = world.draw(200, np.random.default_rng(3))
    x = world.observe(points)
    for layer in world.mixing[:0:-1]:
        x = x @ layer
        x = np.where(x > 0, x, x / SLOPE)
    np.testing.assert_allclose(x @ world.mixing[0], points, atol=1e-12)


def test_a_classifier_recovers_the_sphere_and_its_controls_do_not(world):
    trained = sphere_reading(world, train_encoder(world, SHORT, seed=0), seed=0)
    assert trained.points > 0.98
    assert trained.centres > 0.95
    assert trained.divergence < 0.05
    assert trained.rotation_error is None
    trial, permuted = (
        sphere_trial(concentration=10.0, seed=0, recipe=SHORT, labels=labels, dim=3, num_classes=40)
        for labels in ("class", "permuted")
    )
    assert trial.trained == trained
    assert set(trial.controls) == {"untrained weights", "input"}
    assert trial.controls == permuted.controls
    assert max(*trial.controls.values(), permuted.trained.points) < trained.points - 0.05
    assert permuted.trained.divergence > 1


def test_instances_are_labels_enough_and_unit_vectors_leave_a_rotation(world):
    recipe = replace(SHORT, label_vectors="unit")
    found = sphere_reading(world, train_encoder(world, recipe, seed=1, labels="instance"), seed=1)
    assert found.points > 0.97
    assert found.centres > 0.97
    assert found.rotation_error < 0.1
    blank = sphere_reading(world, untrained_encoder(world, recipe, seed=1, labels="instance"), seed=1)
    assert blank.rotation_error > 0.5
    assert blank.divergence > 0.5


@pytest.mark.parametrize(("labels", "num_labels"), [("class", 40), ("instance", 200)])
def test_a_perfect_encoder_reads_as_perfect(world, labels, num_labels):
    """The inverse of the mixing as the body, kappa v as label vectors: nothing is left to recover."""
    encoder = untrained_encoder(world, TINY, 0, labels=labels)
    inverse = [torch.from_numpy(layer.astype(np.float32)) for layer in world.mixing]

    class Undo(torch.nn.Module):
        def forward(self, x):
            for layer in inverse[:0:-1]:
                x = x @ layer
                x = torch.where(x > 0, x, x / SLOPE)
            return x @ inverse[0]

    encoder.body = Undo()
    vectors = world.concentration * world.centres[np.arange(num_labels) % 40]
    encoder.labels.weight.data = torch.from_numpy(vectors.astype(np.float32))
    found = sphere_reading(world, encoder, seed=0)
    assert found.points == pytest.approx(1, abs=1e-9)
    assert found.centres == pytest.approx(1, abs=1e-9)
    assert found.divergence == pytest.approx(0, abs=1e-6)


def test_one_seed_is_one_encoder_and_torchs_state_stays(world):
    before = torch.random.get_rng_state()
    first, again, other = (train_encoder(world, TINY, seed, labels="instance") for seed in (3, 3, 4))
    assert torch.equal(before, torch.random.get_rng_state())
    assert first.labels.weight.shape == (200, 3)
    for one, same in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, same)
    assert not torch.equal(first.labels.weight, other.labels.weight)
    np.testing.assert_array_equal(fresh_points(world, 3), fresh_points(world, 3))
    assert not np.array_equal(fresh_points(world, 3), fresh_points(world, 4))


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="concentration is -1"):
        world_of(concentration=-1)
    with pytest.raises(ConfigError, match="at least 2 of either"):
        world_of(num_classes=1)
    with pytest.raises(ConfigError, match="instances is 0"):
        SphereRecipe(instances=0)
