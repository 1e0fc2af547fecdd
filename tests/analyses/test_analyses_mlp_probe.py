"""Networks side by side: each is what it would be alone, learns what no line can tell, and nothing from noise."""

import numpy as np
import pytest
import torch
from torch import nn

from lrh_ray.analyses.mlp_probe import MlpProbes, MlpReadout, MlpShape, joined, mlp_losses

WIDTH, ROWS = 6, 4096


def rows_of(seed, num=ROWS):
    return np.random.default_rng(seed).standard_normal((num, WIDTH)) * [1, 10, 0.1, 1, 1, 3] + 2.0


def trained(labels, *, hidden, steps, seed=0, rate=1e-2, members=None, dtype=torch.float32):
    """Networks [K] on all rows at once."""
    rows = rows_of(seed)
    probes = MlpProbes(
        MlpShape(width=WIDTH, hidden=hidden, probes=labels.shape[1]), rows.mean(axis=0), rows.std(axis=0), seed=0
    ).to(dtype)
    optimiser = torch.optim.Adam(probes.parameters(), lr=rate)
    x, y = torch.from_numpy(rows).to(dtype), torch.from_numpy(labels).to(dtype)
    members = torch.ones_like(y) if members is None else torch.from_numpy(members).to(dtype)
    for _ in range(steps):
        optimiser.zero_grad()
        mlp_losses(probes(x), y, members, members.sum(dim=0)).sum().backward()
        optimiser.step()
    return probes


def xor(rows):
    return (rows[:, 0] > 2) ^ (rows[:, 4] > 2)


def labels_of(seed):
    rows = rows_of(seed)
    noise = np.random.default_rng([seed, 1]).random(len(rows)) < 0.5
    return np.column_stack([xor(rows), rows[:, 1] > 5, noise]).astype(np.float64)


@pytest.mark.parametrize("hidden", [(16,), (12, 8)])
def test_they_read_what_no_line_can_tell_and_nothing_from_noise(hidden):
    readout = MlpReadout.of(trained(labels_of(0), hidden=hidden, steps=200), np.arange(3), step=200)
    accuracy = ((readout.scores(rows_of(1)) > readout.threshold) == labels_of(1)).mean(axis=0)
    assert accuracy[0] > 0.95
    assert accuracy[1] > 0.97
    assert abs(accuracy[2] - 0.5) < 0.03


@pytest.mark.parametrize("hidden", [(16,), (12, 8)])
def test_one_among_many_is_the_network_that_it_would_be_alone(hidden):
    """Against torch's own layers, from the same first weights, on the members of its population."""
    labels = labels_of(0)
    members = np.random.default_rng(2).random(labels.shape) < [1.0, 0.5, 0.9]
    together = trained(labels, hidden=hidden, steps=20, members=members, dtype=torch.float64)
    rows = rows_of(0)
    x = (torch.from_numpy(rows) - together.mean) / together.scale
    for k in range(3):
        first = MlpProbes(MlpShape(width=WIDTH, hidden=hidden, probes=3), rows.mean(axis=0), rows.std(axis=0), seed=0)
        layers = []
        for weight, bias in zip(first.weights, first.biases, strict=True):
            layer = nn.Linear(*weight.shape[1:], dtype=torch.float64)
            layer.load_state_dict({"weight": weight[k].T, "bias": bias[k]})
            layers += [layer, nn.ReLU()]
        alone = nn.Sequential(*layers[:-1])
        optimiser = torch.optim.Adam(alone.parameters(), lr=1e-2)
        own, y = torch.from_numpy(members[:, k]), torch.from_numpy(labels[:, k])
        for _ in range(20):
            optimiser.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(alone(x[own])[:, 0], y[own]).backward()
            optimiser.step()
        torch.testing.assert_close(together(torch.from_numpy(rows))[:, k], alone(x)[:, 0], atol=1e-9, rtol=1e-9)


def test_a_readout_says_what_the_networks_say_and_parts_of_it_too():
    probes = trained(labels_of(0), hidden=(12, 8), steps=5)
    early, late = (MlpReadout.of(probes, np.arange(3), step=step) for step in (1, 5))
    both, rows = joined([early, late]), rows_of(3)
    with torch.inference_mode():
        expected = probes(torch.from_numpy(rows).float()).numpy()
    np.testing.assert_allclose(both.scores(rows), np.hstack([expected, expected]), atol=1e-5)
    part = both.of_probes(np.array([4, 0]))
    np.testing.assert_array_equal(part.scores(rows), both.scores(rows)[:, [4, 0]])
    assert part.columns.tolist() == [1, 0]
    assert part.regularisation.tolist() == [5.0, 1.0]


@pytest.mark.parametrize("hidden", [(), (4, 4, 4), (0,)])
def test_shapes_that_cannot_be_are_refused(hidden):
    with pytest.raises(ValueError, match="one or two layers"):
        MlpShape(width=4, hidden=hidden, probes=2)
