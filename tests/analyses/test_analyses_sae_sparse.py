"""The sparse step is the dense one: the same selection, the same gradients, the same weights after many steps."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lrh_ray.analyses.sae import tile_memory
from lrh_ray.analyses.sae.device_step import DeviceTraining
from lrh_ray.analyses.sae.mesh import ALONE
from lrh_ray.analyses.sae.parameters import first_weights
from lrh_ray.analyses.sae.selection import BatchTopK, TopK
from lrh_ray.analyses.sae.sharding import Shard
from lrh_ray.analyses.sae.sparse_step import Auxiliary, SparseTraining
from lrh_ray.errors import ConfigError, NotEnoughData

WIDTH, LATENTS, ROWS, RATE = 24, 96, 50, 1e-3
NEVER = 10**9
NESTED = (12, 40, LATENTS)
AUX_K, AUX_WEIGHT = 4, 1 / 32


def rows_of(dtype, batches=8):
    noise = torch.Generator().manual_seed(1)
    rows = torch.randn(batches * ROWS, WIDTH, generator=noise, dtype=torch.float64) * 0.7
    return (rows + torch.randn(WIDTH, generator=noise, dtype=torch.float64)).to(dtype)


def weights_for(rows):
    weights = first_weights(LATENTS, rows.mean(0).numpy(), seed=0, dtype=rows.dtype)
    noise = torch.Generator().manual_seed(2)
    weights.encoder_bias.copy_(torch.randn(LATENTS, generator=noise, dtype=torch.float64) * 0.05)
    return weights


def dense_codes(pre, selection):
    """The chosen of max(pre, 0), by torch; without ties the choice is unique."""
    if isinstance(selection, TopK):
        value, index = pre.relu().topk(selection.k, dim=1)
        return torch.zeros_like(pre).scatter(1, index, value)
    value, index = pre.relu().flatten().topk(selection.k * len(pre))
    return torch.zeros_like(pre).flatten().scatter(0, index, value).view_as(pre)


def dense_loss(rows, w, selection, groups, dead):
    pre = (rows - w["decoder_bias"]) @ w["encoder"].T + w["encoder_bias"]
    codes, ends = dense_codes(pre, selection), groups or (LATENTS,)
    errors = [codes[:, :end] @ w["decoder"][:end] + w["decoder_bias"] - rows for end in ends]
    loss = torch.stack([(error**2).sum(1).mean() for error in errors]).mean()
    if len(dead):
        revived = dense_codes(pre[:, dead], TopK(k=min(AUX_K, len(dead)))) @ w["decoder"][dead]
        loss = loss + AUX_WEIGHT * ((revived + errors[-1].detach()) ** 2).sum(1).mean()
    return loss


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("selection", "groups", "dead_after"),
    [
        (TopK(k=6), (), NEVER),
        (BatchTopK(k=6), (), NEVER),
        (BatchTopK(k=6), NESTED, NEVER),
        (TopK(k=3), (), 100),
        (BatchTopK(k=3), NESTED, 100),
    ],
    ids=["topk", "batchtopk", "matryoshka", "topk with dead", "matryoshka with dead"],
)
def test_fifty_steps_are_those_of_dense_autograd(selection, groups, dead_after, dtype):
    rows, seen_dead = rows_of(dtype), 0
    weights = weights_for(rows)
    dense = {name: tensor.clone().requires_grad_() for name, tensor in weights.named()}
    optimiser = torch.optim.Adam(list(dense.values()), lr=RATE)
    auxiliary = Auxiliary(dead_after=dead_after, k=AUX_K, weight=AUX_WEIGHT)
    training = SparseTraining(weights, selection, groups=groups, auxiliary=auxiliary)
    for step in range(50):
        batch = rows[step % 8 * ROWS :][:ROWS]
        dead = np.flatnonzero(training.since_fired >= dead_after)
        seen_dead += len(dead)
        optimiser.zero_grad()
        loss = dense_loss(batch, dense, selection, groups, dead)
        loss.backward()
        with torch.no_grad():
            gradient = dense["decoder"].grad
            gradient -= (gradient * dense["decoder"]).sum(1, keepdim=True) * dense["decoder"]
        optimiser.step()
        with torch.no_grad():
            dense["decoder"] /= dense["decoder"].norm(dim=1, keepdim=True)
        facts = training.step(batch.numpy(), rate=RATE)
        assert facts.loss + facts.penalty == pytest.approx(loss.item(), rel=1e-5)
        assert facts.dead == len(dead)
    assert (seen_dead > 0) == (dead_after < NEVER)
    for name, tensor in training.weights.named():
        torch.testing.assert_close(tensor, dense[name].detach(), rtol=0, atol=1e-12 if dtype == torch.float64 else 1e-6)


def chosen_by_sorting(pre, k):
    """Of each row the k largest positive values; of equal ones the lowest latents."""
    codes = np.zeros_like(pre)
    for n, row in enumerate(pre):
        for m in sorted(range(len(row)), key=lambda m: (-row[m], m))[:k]:
            codes[n, m] = max(row[m], 0)
    return codes


def chosen_of_batch_by_sorting(pre, k):
    flat, codes = pre.ravel(), np.zeros(pre.size, pre.dtype)
    for at in sorted(range(pre.size), key=lambda at: (-flat[at], at))[: k * len(pre)]:
        codes[at] = max(flat[at], 0)
    return codes.reshape(pre.shape)


def tiles_of(pre, height):
    return lambda: ((first, pre[first : first + height].copy()) for first in range(0, len(pre), height))


@given(
    rows=st.integers(1, 9),
    latents=st.integers(1, 70),
    k=st.integers(1, 70),
    height=st.integers(1, 9),
    levels=st.integers(1, 40),
    shift=st.floats(-1, 1),
    seed=st.integers(0, 10**6),
)
def test_what_is_chosen_is_what_sorting_chooses_with_any_ties(rows, latents, k, height, levels, shift, seed):
    rng, k = np.random.default_rng(seed), min(k, latents)
    pre = (rng.integers(-levels, levels + 1, (rows, latents)) / levels).astype(np.float32)
    bias = np.full(latents, shift, np.float32)
    expected = pre + bias
    alone = Shard(mesh=ALONE, num_latents=latents)
    own = TopK(k=k)(tiles_of(pre, height), bias, rows, None, alone)
    np.testing.assert_array_equal(own.dense(latents), chosen_by_sorting(expected, k))
    batch = BatchTopK(k=k)
    for scale in (1, 0.25, 5):  # the bound of the batch before is too low, then much too high
        scaled = (pre * scale).astype(np.float32)
        found = batch(tiles_of(scaled, height), bias, rows, None, alone)
        np.testing.assert_array_equal(found.dense(latents), chosen_of_batch_by_sorting(scaled + bias, k))


@pytest.mark.parametrize("selection", [TopK, BatchTopK])
def test_threads_and_tiles_change_no_bit_of_a_step(selection, monkeypatch):
    rows, found = rows_of(torch.float32), []
    for threads in (None, 3, 2):
        monkeypatch.setattr(tile_memory, "TILE_BYTES", 16 * LATENTS * 4)
        with ThreadPoolExecutor(threads or 1) as pool:
            training = SparseTraining(
                weights_for(rows), selection(k=4), groups=NESTED, threads=pool if threads else None
            )
            training.step(rows.numpy(), rate=RATE)
        found.append({name: tensor.clone() for name, tensor in training.weights.named()})
    for other in found[1:]:
        for name, tensor in found[0].items():
            assert torch.equal(tensor, other[name])


def test_dead_latents_move_their_encoder_and_the_others_do_not_feel_them():
    """In sparsify 1.3.3 the auxiliary loss leaves the encoder's gradient at 0."""
    rows = rows_of(torch.float64)[:ROWS]
    steps = {}
    for weight in (0.0, 1 / 32):
        weights = weights_for(rows)
        training = SparseTraining(weights, TopK(k=3), auxiliary=Auxiliary(dead_after=1, k=AUX_K, weight=weight))
        training.since_fired[LATENTS // 2 :] = 1
        fired = np.unique(dense_codes((rows - weights.decoder_bias) @ weights.encoder.T, TopK(k=3)).nonzero()[:, 1])
        training.step(rows.numpy(), rate=RATE)
        steps[weight] = {name: tensor.clone() for name, tensor in weights.named()}
    moved = (steps[1 / 32]["encoder"] != steps[0.0]["encoder"]).any(dim=1).numpy()
    assert moved[LATENTS // 2 :].any()
    assert not moved[: LATENTS // 2].any()
    assert len(fired) < LATENTS


def test_values_that_are_not_positive_are_no_codes():
    """Selected by TopK or not: in sparsify 1.3.3 relu(0) lets a gradient through."""
    rows = rows_of(torch.float32)[:ROWS]
    weights = weights_for(rows)
    weights.encoder_bias.fill_(-100.0)
    before = weights.encoder.clone()
    training = SparseTraining(weights, TopK(k=8))
    facts = training.step(rows.numpy(), rate=RATE)
    assert facts.l0 == 0
    assert torch.equal(weights.encoder, before)
    assert (training.since_fired == ROWS).all()


def test_rows_that_are_not_finite_change_nothing():
    rows = rows_of(torch.float32)[:ROWS].clone()
    training = SparseTraining(weights_for(rows), TopK(k=4))
    before = {name: tensor.clone() for name, tensor in training.weights.named()}
    rows[7, 3] = float("nan")
    with pytest.raises(NotEnoughData, match=r"1 of the 50 rows .* not finite\.$"):
        training.step(rows.numpy(), rate=RATE)
    for name, tensor in training.weights.named():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize("k", [0, LATENTS + 1])
@pytest.mark.parametrize("selection", [TopK, BatchTopK])
def test_a_k_that_cannot_be_is_named(selection, k):
    rows = rows_of(torch.float32)[:ROWS]
    with pytest.raises(ConfigError, match=f"k is {k}; of {LATENTS} latents"):
        SparseTraining(weights_for(rows), selection(k=k)).step(rows.numpy(), rate=RATE)


@pytest.mark.parametrize("groups", [(12, 40), (40, 12, LATENTS), (0, LATENTS)])
def test_groups_that_do_not_nest_are_named(groups):
    with pytest.raises(ConfigError, match="the last of them the number of latents"):
        SparseTraining(weights_for(rows_of(torch.float32)), TopK(k=4), groups=groups)


@pytest.mark.parametrize("selection", [TopK, BatchTopK])
def test_enough_candidates_make_the_exact_steps(selection):
    """All positive latents are candidates, and what was updated is followed."""
    rows = rows_of(torch.float32).numpy()
    exact, rough = (
        SparseTraining(weights_for(torch.from_numpy(rows)), selection(k=4), preselect=preselect)
        for preselect in (None, LATENTS // 4)
    )
    for step in range(20):
        own = rows[step % 8 * ROWS : (step % 8 + 1) * ROWS]
        assert exact.step(own, rate=RATE).loss == pytest.approx(rough.step(own, rate=RATE).loss, rel=1e-5)
        assert rough.recall(own) == 1
    for name, tensor in exact.weights.named():
        torch.testing.assert_close(dict(rough.weights.named())[name], tensor, rtol=0, atol=1e-5)


def test_rounding_loses_codes_and_recall_counts_them():
    """Latents in threes that bfloat16 cannot tell apart: the fourth code of a row is one of three."""
    rows = rows_of(torch.float32)[:ROWS]
    found = []
    for preselect in (1, 4):
        weights = weights_for(rows)
        for third, factor in enumerate((1, 1 + 5e-4, 1 + 1e-3)):
            weights.encoder[third::3] = weights.encoder[::3] * factor
            weights.encoder_bias[third::3] = weights.encoder_bias[::3]
        found.append(SparseTraining(weights, TopK(k=4), preselect=preselect).recall(rows.numpy()))
    assert 0.7 < found[0] < 0.95
    assert found[1] == 1


@pytest.mark.parametrize("engine", [SparseTraining, DeviceTraining])
def test_rows_of_many_codes_have_as_many_candidates(engine):
    """A choice of a batch gives long rows most of the codes, and a preselection may not cut them off."""
    rows = rows_of(torch.float32)[:ROWS] * torch.logspace(-1, 1, ROWS)[:, None]
    weights = weights_for(rows)
    pre = torch.addmm(weights.encoder_bias, rows - weights.offset, weights.encoder.T)
    assert (pre >= pre.reshape(-1).topk(4 * ROWS).values[-1]).sum(dim=1).max() > 2 * 4
    assert engine(weights, BatchTopK(k=4), preselect=2).recall(rows.numpy()) > 0.99


def test_a_preselection_that_cannot_be_is_named():
    rows = rows_of(torch.float32)[:ROWS]
    with pytest.raises(ConfigError, match="preselect is 0"):
        SparseTraining(weights_for(rows), TopK(k=4), preselect=0)
    with pytest.raises(ConfigError, match="k is 97"):
        SparseTraining(weights_for(rows), TopK(k=97), preselect=2).step(rows.numpy(), rate=RATE)
