"""Trained autoencoders as they are used: sums over a corpus, thresholds, and weights in the rows' own unit."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch

from lrh_ray.analyses.sae.architectures.conca import ConCA
from lrh_ray.analyses.sae.architectures.gated import Gated
from lrh_ray.analyses.sae.architectures.jumprelu import JumpRelu
from lrh_ray.analyses.sae.architectures.relu import LowRank, Relu
from lrh_ray.analyses.sae.evaluation import Reconstruction
from lrh_ray.analyses.sae.parameters import first_weights
from lrh_ray.analyses.sae.reader import ThresholdReader, TopKReader, fold, pre_activations
from lrh_ray.analyses.sae.sparsity import PowerPenalty
from lrh_ray.analyses.sae.threshold import PreActivationCounts
from lrh_ray.analyses.state import merge_tree
from lrh_ray.errors import NotEnoughData

WIDTH, LATENTS, ROWS, GROUPS, SCALE = 12, 40, 600, 6, 37.0


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    return (rng.standard_normal((ROWS, WIDTH)) * SCALE + 5).astype(np.float32)


@pytest.fixture(scope="module")
def parameters(rows):
    found = dict(first_weights(LATENTS, rows.mean(axis=0).astype(np.float64) / SCALE, seed=0).named())
    noise = torch.Generator().manual_seed(1)
    return found | {"encoder_bias": 0.1 * torch.randn(LATENTS, generator=noise)}


MADE = {
    "topk": lambda p: TopKReader(parameters=p, k=5),
    "relu": lambda p: Relu(p, PowerPenalty(weight=1)),
    "structured": lambda p: Relu(p, PowerPenalty(weight=1), LowRank()),
    "gated": lambda p: Gated(p, PowerPenalty(weight=1)),
    "jumprelu": lambda p: JumpRelu(p, weight=1, first_threshold=0.3),
    "conca": lambda p: ConCA(p),
    "conca in groups": lambda p: ConCA(p, norm="group"),
}


@pytest.mark.parametrize("name", MADE)
def test_folded_weights_read_rows_as_they_are(name, parameters, rows):
    scaled = MADE[name](parameters)
    folded = MADE[name](fold(scaled.parameters, SCALE, normalised="conca" in name))
    own, whole = torch.from_numpy(rows / np.float32(SCALE)), torch.from_numpy(rows)
    codes, other = scaled.codes(own), folded.codes(whole)
    torch.testing.assert_close(other, codes if "conca" in name else codes * SCALE, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(folded.decode(other), scaled.decode(codes) * SCALE, rtol=1e-4, atol=2e-3)


def test_sums_do_not_depend_on_how_rows_are_split(parameters, rows):
    reader, centre = TopKReader(parameters=fold(parameters, SCALE), k=5), rows.mean(axis=0, dtype=np.float64)
    groups = np.random.default_rng(2).integers(0, GROUPS, ROWS)
    whole = Reconstruction.of(rows, reader, centre, groups, num_groups=GROUPS)
    cuts = [0, 1, 250, 251, 600]
    parts = [Reconstruction.of(rows[a:b], reader, centre, groups[a:b], num_groups=GROUPS) for a, b in pairwise(cuts)]
    merged = merge_tree(parts)
    np.testing.assert_allclose(merged.sums, whole.sums, rtol=1e-6)
    np.testing.assert_array_equal(merged.fired, whole.fired)
    np.testing.assert_array_equal(merged.ends, whole.ends)
    assert merged.dead() == whole.dead()
    assert whole.rows == ROWS


def test_unexplained_variance_is_that_of_the_whole_corpus(parameters, rows):
    reader = TopKReader(parameters=fold(parameters, SCALE), k=5)
    groups = np.random.default_rng(2).integers(0, GROUPS, ROWS)
    found = Reconstruction.of(rows, reader, np.zeros(WIDTH), groups, num_groups=GROUPS)

    def unexplained(kept):
        x = torch.from_numpy(rows[kept])
        error = (reader.decode(reader.codes(x)) - x).double().numpy()
        centred = rows[kept].astype(np.float64) - rows[kept].mean(axis=0, dtype=np.float64)
        return (error**2).sum() / (centred**2).sum()

    estimate = found.fvu()
    assert estimate.value == pytest.approx(unexplained(np.ones(ROWS, bool)), rel=1e-6)
    without = [unexplained(groups != g) for g in range(GROUPS)]
    spread = np.sqrt((GROUPS - 1) * np.var(without))
    assert estimate.high - estimate.value == pytest.approx(2.5706 * spread, rel=1e-4)
    codes = reader.codes(torch.from_numpy(rows))
    assert found.l0().value == pytest.approx((codes > 0).sum(1).double().mean().item())
    np.testing.assert_allclose(found.density, (codes > 0).double().mean(0).numpy())
    assert found.dead().value == pytest.approx((~(codes > 0).any(0)).double().mean().item())


@dataclass(frozen=True)
class Planted:
    """Rows are codes."""

    def codes(self, rows):
        return rows

    def decode(self, codes, rows=None):
        return codes


def firing(mask, groups, num_groups):
    rows = mask.astype(np.float32)
    return Reconstruction.of(rows, Planted(), np.zeros(mask.shape[1]), groups, num_groups=num_groups)


def test_dead_latents_are_those_left_when_each_group_is_left_out():
    rng = np.random.default_rng(5)
    mask, groups = rng.random((80, 60)) < 0.03, rng.permutation(np.arange(80) % 8)
    found = firing(mask, groups, 9).dead()  # a group without rows
    without = [(~mask[groups != g].any(axis=0)).mean() for g in range(8)]
    error = np.sqrt(7 * np.var(without))
    assert found.value == pytest.approx((~mask.any(axis=0)).mean())
    assert found.high - found.value == pytest.approx(2.3646 * error, rel=1e-4)
    assert found.low == max(0, found.value - (found.high - found.value))


def test_the_interval_of_the_dead_holds_what_as_many_other_documents_say():
    """Latents of very different rates, rows of a document alike: the mean over corpora lies inside, nearly always."""
    rng = np.random.default_rng(6)
    rate = 10 ** rng.uniform(-4, -1, 400)
    groups = np.repeat(np.arange(20), 10)

    def corpus():
        documents = rng.random((20, 400)) < 5 * rate  # what a document is about
        return (rng.random((200, 400)) < 0.3) & documents[groups]

    trials = [firing(corpus(), groups, 20).dead() for _ in range(40)]
    true = np.mean([trial.value for trial in trials])
    assert np.mean([trial.low <= true <= trial.high for trial in trials]) >= 0.9


def test_latents_that_always_or_never_fire_are_sure():
    mask = np.tile(np.arange(10) < 7, (40, 1))
    found = firing(mask, np.arange(40) % 4, 4).dead()
    assert (found.value, found.low, found.high) == pytest.approx((0.3, 0.3, 0.3))


def test_one_group_has_no_interval(parameters, rows):
    reader = TopKReader(parameters=parameters, k=5)
    one = Reconstruction.of(rows, reader, np.zeros(WIDTH), np.zeros(ROWS, np.int64), num_groups=GROUPS)
    for number in (one.fvu, one.dead):
        with pytest.raises(NotEnoughData, match="at least 2"):
            number()


@pytest.mark.parametrize("k", [1, 5, 12])
def test_the_threshold_is_the_exact_quantile_in_two_passes(k, parameters, rows):
    own = fold(parameters, SCALE)
    blocks = [rows[:200], rows[200:]]
    coarse = merge_tree([PreActivationCounts.of(block, own) for block in blocks])
    prefix = coarse.place(k)
    fine = merge_tree([PreActivationCounts.of(block, own, prefix=prefix) for block in blocks])
    pre = np.sort(pre_activations(own, torch.from_numpy(rows)).numpy(), axis=None)[::-1]
    threshold = fine.threshold(coarse, k)
    assert threshold == pytest.approx(pre[ROWS * k - 1], rel=1e-6)
    codes = ThresholdReader(parameters=own, threshold=threshold).codes(torch.from_numpy(rows))
    assert (codes > 0).sum().item() == pytest.approx(ROWS * k, abs=1)


def test_without_enough_positive_values_there_is_no_threshold(parameters, rows):
    silent = parameters | {"encoder_bias": torch.full((LATENTS,), -1e4)}
    coarse = PreActivationCounts.of(rows, silent)
    assert coarse.place(1) is None
    assert coarse.threshold(coarse, 1) == 0.0
