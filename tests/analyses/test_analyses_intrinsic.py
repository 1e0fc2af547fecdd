"""Intrinsic probing: subset distributions against enumeration, planted dimensions found, and nothing found in noise."""

from importlib import import_module
from itertools import combinations, product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from lrh_ray.analyses.intervals import DocumentBootstrap
from lrh_ray.analyses.intrinsic import (
    ConditionalPoisson,
    LatentRecipe,
    Poisson,
    bits,
    fit_gaussian_probe,
    fit_latent_probe,
    information,
    label_p_value,
    random_subsets,
)
from lrh_ray.errors import ConfigError, NotEnoughData

BOOTSTRAP = DocumentBootstrap(draws=200, seed=0)
NUM_FEATURES, PLANTED = 64, np.array([3, 17, 30, 41, 63])


def all_masks(num_dimensions):
    return torch.tensor(list(product([0.0, 1.0], repeat=num_dimensions)), dtype=torch.float64)


def enumerated(model, num_dimensions):
    """Probabilities of all subsets by their definition, up to the normaliser, which is summed."""
    masks = all_masks(num_dimensions)
    weight = torch.exp(masks @ model.log_weights.detach())
    if isinstance(model, ConditionalPoisson):
        size, shares = masks.sum(dim=1), torch.zeros(len(masks), dtype=torch.float64)
        for k in range(model.smallest, model.largest + 1):
            shares[size == k] = weight[size == k] / weight[size == k].sum() / (model.largest - model.smallest + 1)
        return masks, shares
    return masks, weight / weight.sum()


def models(seed, num_dimensions, spread=1.5):
    phi = torch.from_numpy(spread * np.random.default_rng([seed, 20]).standard_normal(num_dimensions))
    smallest, largest = sorted(np.random.default_rng([seed, 21]).integers(0, num_dimensions + 1, 2).tolist())
    return [
        Poisson(log_weights=phi),
        ConditionalPoisson(log_weights=phi, smallest=smallest, largest=largest),
        ConditionalPoisson(log_weights=phi, smallest=largest, largest=largest),
    ]


@given(st.integers(0, 1000), st.integers(1, 8))
def test_probabilities_inclusion_and_entropy_are_those_of_enumeration(seed, num_dimensions):
    for model in models(seed, num_dimensions):
        masks, shares = enumerated(model, num_dimensions)
        np.testing.assert_allclose(torch.exp(model.log_prob(masks)), shares, atol=1e-10)
        np.testing.assert_allclose(model.inclusion(), shares @ masks, atol=1e-10)
        np.testing.assert_allclose(model.entropy(), torch.special.entr(shares).sum(), atol=1e-10)


@given(st.integers(0, 1000))
def test_gradients_are_those_of_enumeration(seed):
    for model in models(seed, 5):
        phi = model.log_weights.clone().requires_grad_()
        kind = {} if isinstance(model, Poisson) else {"smallest": model.smallest, "largest": model.largest}
        masks, shares = enumerated(model, 5)
        possible = shares > 0
        reward = torch.from_numpy(np.random.default_rng([seed, 22]).standard_normal(len(masks)))[possible]
        again = type(model)(log_weights=phi, **kind)
        again.sample(3, torch.Generator().manual_seed(seed))  # takes no gradient away
        (ours,) = torch.autograd.grad(again.entropy() + reward @ again.log_prob(masks[possible]), phi)
        for i in range(5):  # finite differences of the enumerated values
            ends = []
            for step in (1e-5, -1e-5):
                moved = type(model)(log_weights=model.log_weights + step * torch.eye(5, dtype=torch.float64)[i], **kind)
                _, there = enumerated(moved, 5)
                ends.append(torch.special.entr(there).sum() + reward @ torch.log(there[possible]))
            assert float(ours[i]) == pytest.approx(float(ends[0] - ends[1]) / 2e-5, abs=1e-6)


def test_weights_of_any_size_neither_overflow_nor_vanish():
    phi = torch.linspace(-900, 900, 300, dtype=torch.float64)
    model = ConditionalPoisson(log_weights=phi, smallest=3, largest=3)
    assert model.log_prob((torch.arange(300) >= 297).double()[None]).item() == pytest.approx(0, abs=0.01)
    shifted = ConditionalPoisson(log_weights=phi + 500, smallest=3, largest=3)
    np.testing.assert_allclose(shifted.inclusion(), model.inclusion(), atol=1e-9)
    assert torch.isfinite(model.entropy())


def test_samples_have_the_sizes_and_shares_of_the_model():
    for model in models(3, 6):
        _, shares = enumerated(model, 6)
        drawn = model.sample(20_000, torch.Generator().manual_seed(1))
        assert drawn.shape == (20_000, 6)
        code = 2.0 ** torch.arange(5, -1, -1, dtype=torch.float64)
        counts = torch.bincount((drawn @ code).long(), minlength=64)
        assert not counts[shares == 0].any()
        expected = 20_000 * shares[shares > 0]
        excess = ((counts[shares > 0] - expected) ** 2 / expected).sum().item()
        degrees = int((shares > 0).sum()) - 1
        assert excess < degrees + 4 * np.sqrt(2 * degrees) + 1


def world(seed=0, num_rows=1500, distractors=True, shuffled=False):
    """Three classes that five dimensions of 64 tell apart, each little; every one has a copy that is worse.

    Returns training rows and classes, held-out rows and classes, and documents of the held-out rows.
    """
    rng = np.random.default_rng([seed, 23])
    classes = rng.integers(0, 3, 2 * num_rows)
    rows = rng.standard_normal((2 * num_rows, NUM_FEATURES))
    means = rng.choice([-1.0, 0.0, 1.0], (3, len(PLANTED)))
    while (np.abs(means[:, None] - means).sum(axis=2)[~np.eye(3, dtype=bool)] < 3).any() or (
        means.std(axis=0) == 0
    ).any():
        means = rng.choice([-1.0, 0.0, 1.0], (3, len(PLANTED)))
    rows[:, PLANTED] += means[classes]
    if distractors:
        rows[:, PLANTED - 1] = 0.7 * rows[:, PLANTED] + 0.7 * rng.standard_normal((2 * num_rows, len(PLANTED)))
    rows = rows * np.geomspace(0.1, 100, NUM_FEATURES) + 5.0
    if shuffled:
        classes = rng.permutation(classes)
    train, held_out = slice(0, num_rows), slice(num_rows, None)
    return rows[train], classes[train], rows[held_out], classes[held_out], np.arange(num_rows) // 10


RECIPES = {
    "poisson": LatentRecipe(family="poisson", steps=300),
    "conditional": LatentRecipe(family="conditional", smallest=1, largest=10, steps=300),
    "gaussian": None,
}


def fitted(kind, rows, classes, seed=0):
    return (
        fit_gaussian_probe(rows, classes)
        if kind == "gaussian"
        else fit_latent_probe(rows, classes, recipe=RECIPES[kind], seed=seed)
    )


@pytest.fixture(scope="module")
def probes():
    """A probe of each kind, of the planted world."""
    rows, classes, *_ = world()
    return {kind: fitted(kind, rows, classes) for kind in RECIPES}


@pytest.mark.parametrize("kind", RECIPES)
def test_planted_dimensions_are_found_among_worse_copies(probes, kind):
    rows, classes, others, labels, documents = world()
    order = probes[kind].greedy(rows, classes, 8)
    assert set(order[:5].tolist()) == set(PLANTED.tolist())
    five, eight = (
        information(probes[kind].log_posteriors(others, order[:k]), labels, documents, BOOTSTRAP) for k in (5, 8)
    )
    assert five.low > 0.4
    assert five.share == pytest.approx(five.bits / five.entropy)
    assert eight.bits < five.bits + 0.05  # copies add nothing

    def bits(dimensions):
        return information(probes[kind].log_posteriors(others, dimensions), labels, documents, BOOTSTRAP).bits

    null = random_subsets(bits, num_features=NUM_FEATURES, size=5, draws=99, seed=1)
    assert null.p_value(five.bits) == 0.01


def test_planted_dimensions_are_drawn_most(probes):
    """And a Poisson, which may take any number, draws the others as often as not: they cost nothing."""
    for kind in ("poisson", "conditional"):
        assert set(probes[kind].ranking(5).tolist()) == set(PLANTED.tolist())
    others = np.delete(probes["poisson"].inclusion, PLANTED)
    assert probes["poisson"].inclusion[PLANTED].min() > 0.9
    assert others.mean() == pytest.approx(0.5, abs=0.05)
    assert probes["conditional"].inclusion.sum() == pytest.approx(5.5)  # sizes from 1 to 10


@pytest.mark.parametrize("kind", RECIPES)
def test_shuffled_labels_have_no_dimensions(kind):
    rows, classes, others, labels, documents = world(seed=5, num_rows=600, shuffled=True)
    probe = fitted(kind, rows, classes)

    def bits(dimensions):
        return information(probe.log_posteriors(others, dimensions), labels, documents, BOOTSTRAP).bits

    found = bits(probe.greedy(rows, classes, 5))
    null = random_subsets(bits, num_features=NUM_FEATURES, size=5, draws=99, seed=2)
    assert found < 0.01
    assert null.p_value(found) > 0.05


def test_information_is_that_of_the_world():
    """Two Gaussians with one covariance: the bound reaches what the true posterior gives, no more."""
    rng = np.random.default_rng(24)
    classes = rng.integers(0, 2, 8000)
    rows = rng.standard_normal((8000, 6))
    rows[:, 2] += 1.5 * classes
    truth = information(log_truth(rows[4000:]), classes[4000:], np.arange(4000), BOOTSTRAP)
    for kind in ("gaussian", "poisson"):
        probe = fitted(kind, rows[:4000], classes[:4000])
        order = probe.greedy(rows[:4000], classes[:4000], 1)
        found = information(probe.log_posteriors(rows[4000:], order), classes[4000:], np.arange(4000), BOOTSTRAP)
        assert order.tolist() == [2]
        assert found.bits == pytest.approx(truth.bits, abs=0.01)
        assert found.low < truth.bits < found.high


def log_truth(rows):
    """log p(class | x) for equal shares and means 0 and 1.5 in dimension 2."""
    odds = 1.5 * rows[:, 2] - 1.5**2 / 2
    return -np.stack([np.logaddexp(0, odds), np.logaddexp(0, -odds)], axis=1)


def test_information_against_its_definition_and_its_interval_over_documents():
    rng = np.random.default_rng(25)
    documents = np.repeat(np.arange(30), 20)
    classes = np.repeat(rng.integers(0, 2, 30), 20)
    logits = rng.standard_normal((600, 2)) + np.eye(2)[classes]
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    found = information(log_p, classes, documents, BOOTSTRAP)
    share = classes.mean()
    entropy = -share * np.log2(share) - (1 - share) * np.log2(1 - share)
    assert found.entropy == pytest.approx(entropy, abs=1e-12)
    assert found.bits == pytest.approx(entropy + log_p[np.arange(600), classes].mean() / np.log(2), abs=1e-12)
    assert bits(log_p, classes) == pytest.approx(found.bits, abs=1e-12)
    by_row = information(log_p, classes, np.arange(600), BOOTSTRAP)
    assert by_row.bits == pytest.approx(found.bits, abs=1e-12)
    assert found.high - found.low > by_row.high - by_row.low  # labels vary between documents only
    perfect = information(np.log(np.eye(2)[classes] * 0.998 + 0.001), classes, documents, BOOTSTRAP)
    assert perfect.share > 0.99


def test_permuted_labels_tell_what_is_there_from_what_is_not():
    """P values of posteriors that know nothing are uniform, whatever they look like; documents move as a whole."""
    p_values = {"rows": [], "documents": []}
    for seed in range(200):
        rng = np.random.default_rng([seed, 28])
        documents = np.repeat(np.arange(20), 5)
        of_documents, logits = (
            np.repeat(rng.integers(0, 2, 20), 5),
            np.repeat(2 * rng.standard_normal((20, 2)), 5, axis=0),
        )
        log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        p_values["documents"].append(label_p_value(log_p, of_documents, documents, draws=39, seed=0))
        p_values["rows"].append(label_p_value(log_p, rng.permutation(of_documents), np.arange(100), draws=39, seed=0))
    for found in p_values.values():
        assert np.mean(np.array(found) <= 0.1) == pytest.approx(0.1, abs=0.06)
        assert np.mean(found) == pytest.approx(0.5, abs=0.07)
    right = np.log(np.eye(2)[of_documents] * 0.8 + 0.1)
    assert label_p_value(right, of_documents, documents, draws=99, seed=0) == 0.01


@pytest.mark.parametrize("kind", ["gaussian", "poisson"])
def test_tiles_of_candidates_change_nothing(probes, kind, monkeypatch):
    rows, classes, *_ = world(num_rows=300)
    whole = probes[kind].greedy(rows, classes, 6)
    monkeypatch.setattr(import_module("lrh_ray.analyses.intrinsic.information"), "TILE_FLOATS", 5 * 300 * 3)
    np.testing.assert_array_equal(probes[kind].greedy(rows, classes, 6), whole)


@given(st.integers(0, 1000))
def test_the_gaussian_baseline_is_the_plain_one(seed):
    """Posteriors of subsets by SciPy, and greedy steps by trying every subset."""
    rng = np.random.default_rng([seed, 26])
    classes = np.concatenate([np.arange(3), rng.integers(0, 3, 57)])
    rows = rng.standard_normal((60, 5)) @ rng.standard_normal((5, 5)) + 0.5 * classes[:, None]
    probe = fit_gaussian_probe(rows, classes)

    def posterior(dimensions):
        own = list(dimensions)
        joint = np.stack(
            [
                np.log(np.mean(classes == m))
                + multivariate_normal(probe.means[m][own], probe.covariances[m][np.ix_(own, own)]).logpdf(rows[:, own])
                for m in range(3)
            ],
            axis=1,
        )
        return joint - np.logaddexp.reduce(joint, axis=1, keepdims=True)

    np.testing.assert_allclose(probe.log_posteriors(rows, np.array([4, 1])), posterior([4, 1]), atol=1e-9)
    chosen = []
    for _ in range(4):
        rest = [d for d in range(5) if d not in chosen]
        scores = [posterior([*chosen, d])[np.arange(60), classes].sum() for d in rest]
        chosen.append(rest[int(np.argmax(scores))])
    assert probe.greedy(rows, classes, 4).tolist() == chosen
    scatter = np.cov(rows[classes == 1].T, bias=True)
    count = (classes == 1).sum()
    expected = (np.diag(np.diagonal(scatter)) + count * scatter) / (count + 14)
    np.testing.assert_allclose(probe.covariances[1], expected, atol=1e-12)
    mean = fit_gaussian_probe(rows, classes, estimate="mean").covariances[1]
    np.testing.assert_allclose(mean, expected * (count + 14) / (count + 1), atol=1e-12)


def test_a_rare_class_is_read_with_the_mean_covariance_and_misread_with_the_likeliest():
    rng = np.random.default_rng(29)
    classes = (rng.random(6000) < 0.03).astype(np.int64)
    rows = rng.standard_normal((6000, 200))
    rows[:, 7] += 2.5 * classes
    said = {
        estimate: bits(
            fit_gaussian_probe(rows[:3000], classes[:3000], estimate=estimate).log_posteriors(
                rows[3000:], np.array([7])
            ),
            classes[3000:],
        )
        for estimate in ("mean", "maximum")
    }
    assert said["mean"] > 0.06 > said["maximum"]


def test_greedy_steps_of_the_latent_probe_are_those_of_trying_each(probes):
    rows, classes, *_ = world()
    probe, chosen = probes["conditional"], []
    for _ in range(2):
        scores = [
            -np.inf
            if d in chosen
            else probe.log_posteriors(rows, np.array([*chosen, d]))[np.arange(len(rows)), classes].sum()
            for d in range(NUM_FEATURES)
        ]
        chosen.append(int(np.argmax(scores)))
    assert probe.greedy(rows, classes, 2).tolist() == chosen


def test_the_scale_of_dimensions_and_the_order_of_classes_change_nothing():
    rows, classes, *_ = world(num_rows=300)
    recipe = LatentRecipe(family="conditional", largest=5, steps=20)
    one, same = (fit_latent_probe(rows, classes, recipe=recipe, seed=4) for _ in range(2))
    np.testing.assert_array_equal(one.log_weights, same.log_weights)
    np.testing.assert_array_equal(one.weights, same.weights)
    scaled = fit_latent_probe(rows * np.geomspace(1, 1e3, NUM_FEATURES) - 7, classes, recipe=recipe, seed=4)
    np.testing.assert_allclose(scaled.log_weights, one.log_weights, atol=1e-6)
    other = fit_latent_probe(rows, classes, recipe=recipe, seed=5)
    assert not np.array_equal(other.log_weights, one.log_weights)


def test_a_conditional_poisson_of_one_size_counts_all_subsets_once():
    model = ConditionalPoisson(log_weights=torch.zeros(6, dtype=torch.float64), smallest=2, largest=2)
    assert float(model.entropy()) == pytest.approx(np.log(len(list(combinations(range(6), 2)))), abs=1e-12)
    np.testing.assert_allclose(model.inclusion(), 2 / 6, atol=1e-12)


def test_what_cannot_be_probed_is_named():
    rows = np.random.default_rng(27).standard_normal((10, 3))
    with pytest.raises(NotEnoughData, match=r"\[0, 10\] rows"):
        fit_gaussian_probe(rows, np.ones(10, np.int64))
    with pytest.raises(NotEnoughData, match="two classes"):
        fit_latent_probe(rows, np.zeros(10, np.int64), recipe=LatentRecipe(steps=1), seed=0)
    with pytest.raises(NotEnoughData, match="one class"):
        information(np.zeros((10, 2)), np.zeros(10, np.int64), np.arange(10), BOOTSTRAP)
    with pytest.raises(ConfigError, match="5 of 3"):
        random_subsets(lambda _: 0.0, num_features=3, size=5, draws=2, seed=0)
    with pytest.raises(ConfigError, match="Subsets of 2 to 1"):
        ConditionalPoisson(log_weights=torch.zeros(3, dtype=torch.float64), smallest=2, largest=1)
    with pytest.raises(ConfigError, match="2 subsets"):
        LatentRecipe(subsets=1)
