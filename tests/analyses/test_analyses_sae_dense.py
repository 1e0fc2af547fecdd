"""Architectures with dense codes: their gradients are those of the formulas, their training finds what is planted."""

import functools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from lrh_ray.analyses.sae.architectures.conca import CodeMoments, ConCA
from lrh_ray.analyses.sae.architectures.gated import Gated
from lrh_ray.analyses.sae.architectures.jumprelu import JumpRelu
from lrh_ray.analyses.sae.architectures.relu import LowRank, Relu
from lrh_ray.analyses.sae.dense import DenseTraining
from lrh_ray.analyses.sae.nuclear import nuclear_norm, truncated_svd
from lrh_ray.analyses.sae.parameters import Weights, first_weights
from lrh_ray.analyses.sae.selection import TopK
from lrh_ray.analyses.sae.sparse_step import Auxiliary, SparseTraining
from lrh_ray.analyses.sae.sparsity import PowerPenalty
from lrh_ray.errors import ConfigError, NotEnoughData

WIDTH, LATENTS, ROWS = 12, 40, 30
STEP = 7
GAMMA, WEIGHT = 0.3, 0.2
BANDWIDTH, SCALE, TARGET = 0.4, 4.0, 6.0


def some_rows(num=ROWS, width=WIDTH):
    return torch.randn(num, width, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def parameters_for(rows, num_latents=LATENTS, seed=0):
    weights = dict(first_weights(num_latents, rows.mean(0).numpy(), seed=seed, dtype=rows.dtype).named())
    noise = torch.Generator().manual_seed(4)
    weights["encoder_bias"] = 0.05 * torch.randn(num_latents, generator=noise, dtype=torch.float64).to(rows.dtype)
    weights["encoder"] = weights["encoder"] + 0.05 * torch.randn(weights["encoder"].shape, generator=noise).to(rows)
    return weights


def plain(p, rows):
    return (rows - p["decoder_bias"]) @ p["encoder"].T + p["encoder_bias"]


def squared(p, codes, rows):
    return ((codes @ p["decoder"] + p["decoder_bias"] - rows) ** 2).sum(1).mean()


def l1_loss(p, rows):
    codes = plain(p, rows).relu()
    return squared(p, codes, rows) + WEIGHT * codes.sum(1).mean()


def annealed_loss(p, rows):
    codes = plain(p, rows).relu()
    power = 1 - 0.8 * 8 / 10  # at step 7 of 0 ... 10 eight of ten changes are made
    return squared(p, codes, rows) + WEIGHT * (codes[codes > 0] ** power).sum() / len(rows)


def structured_loss(p, rows):
    codes = plain(p, rows).relu()
    low = ((rows - p["decoder_bias"]) @ p["low_encoder"].T + p["low_bias"]).relu()
    norm = torch.linalg.svdvals(low).sum() / math.sqrt(len(rows))
    return squared(p, codes + low, rows) + WEIGHT * (codes.sum(1).mean() + GAMMA * norm)


def gated_loss(p, rows):
    product = (rows - p["decoder_bias"]) @ p["encoder"].T
    gate = product + p["gate_bias"]
    codes = (product * p["log_gain"].exp() + p["magnitude_bias"]).relu() * (gate > 0)
    alone = gate.relu() @ p["decoder"].detach() + p["decoder_bias"].detach()
    return squared(p, codes, rows) + WEIGHT * gate.relu().sum(1).mean() + ((alone - rows) ** 2).sum(1).mean()


def conca_loss(p, rows, norm):
    pre = rows @ p["encoder"].T + p["encoder_bias"]
    if norm == "batch":
        codes = (pre - pre.mean(0)) / (pre.var(0, unbiased=False) + 1e-5).sqrt()
    else:
        parts = pre.view(len(pre), 1 if norm == "layer" else 4, -1)
        centred = parts - parts.mean(2, keepdim=True)
        codes = (centred / (parts.var(2, unbiased=False, keepdim=True) + 1e-5).sqrt()).view_as(pre)
    return squared(p, codes, rows) + WEIGHT * functional.softplus(codes).sum(1).mean()


def l1():
    return PowerPenalty(weight=WEIGHT)


def annealed(**changed):
    return PowerPenalty(**{"weight": WEIGHT, "last_p": 0.2, "from_step": 0, "to_step": 10, **changed})


CASES = {
    "relu": (lambda p: Relu(p, l1()), l1_loss),
    "p-annealed": (lambda p: Relu(p, annealed()), annealed_loss),
    "structured": (lambda p: Relu(p, l1(), LowRank(gamma=GAMMA, rank=ROWS)), structured_loss),
    "gated": (lambda p: Gated(p, l1()), gated_loss),
    "conca layer": (lambda p: ConCA(p, weight=WEIGHT), lambda p, x: conca_loss(p, x, "layer")),
    "conca group": (lambda p: ConCA(p, weight=WEIGHT, norm="group"), lambda p, x: conca_loss(p, x, "group")),
    "conca batch": (lambda p: ConCA(p, weight=WEIGHT, norm="batch"), lambda p, x: conca_loss(p, x, "batch")),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_the_formula(name):
    make, formula = CASES[name]
    rows = some_rows()
    architecture = make(parameters_for(rows))
    noise = torch.Generator().manual_seed(5)
    for tensor in architecture.parameters.values():
        tensor += 0.02 * torch.randn(tensor.shape, generator=noise, dtype=torch.float64)
    expected = {key: tensor.clone().requires_grad_() for key, tensor in architecture.parameters.items()}
    for tensor in architecture.parameters.values():
        tensor.requires_grad_()
    loss = formula(expected, rows)
    loss.backward()
    found = architecture.loss(rows, STEP)
    found.total.backward()
    assert found.total.item() == pytest.approx(loss.item(), rel=1e-12)
    torch.testing.assert_close(architecture.decode(architecture.codes(rows)).shape, rows.shape)
    for key, tensor in architecture.parameters.items():
        torch.testing.assert_close(tensor.grad, expected[key].grad, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("penalty", ["step", "quadratic", "tanh"])
def test_thresholds_move_by_the_rows_near_them(penalty):
    """The pseudo-derivatives of the paper, equations 11 and 12, written out for every row and latent."""
    rows = some_rows()
    architecture = JumpRelu(
        parameters_for(rows),
        weight=WEIGHT,
        penalty=penalty,
        target=TARGET,
        scale=SCALE,
        bandwidth=BANDWIDTH,
        first_threshold=0.3,
    )
    own = {key: tensor.clone() for key, tensor in architecture.parameters.items()}
    for tensor in architecture.parameters.values():
        tensor.requires_grad_()
    architecture.loss(rows, STEP).total.backward()
    theta, pre = own["log_threshold"].exp(), plain(own, rows)
    codes, fires = pre * (pre > theta), (pre > theta).double()
    error = 2 * (codes @ own["decoder"] + own["decoder_bias"] - rows) / ROWS
    of_codes, of_fires = error @ own["decoder"].T, torch.zeros_like(pre)
    if penalty == "tanh":
        of_codes = of_codes + WEIGHT * SCALE * (1 - torch.tanh(SCALE * codes) ** 2) / ROWS
    elif penalty == "step":
        of_fires = of_fires + WEIGHT / ROWS
    else:
        of_fires = of_fires + WEIGHT * 2 * (fires.sum(1).mean() / TARGET - 1) / TARGET / ROWS
    near = ((pre - theta).abs() < BANDWIDTH / 2) / BANDWIDTH
    of_theta = -(theta * of_codes * near + of_fires * near).sum(0)
    torch.testing.assert_close(architecture.parameters["log_threshold"].grad, of_theta * theta)
    torch.testing.assert_close(architecture.parameters["encoder_bias"].grad, (of_codes * fires).sum(0))
    assert (of_theta != 0).any()


def planted_rows(num, *, seed, width=32, features=40, active=3, truth_seed=9):
    """Sparse sums of planted directions."""
    rng, truth = np.random.default_rng(seed), np.random.default_rng(truth_seed).standard_normal((features, width))
    truth /= np.linalg.norm(truth, axis=1, keepdims=True)
    codes = rng.random((num, features)).argsort(1) < active
    return (codes * (0.5 + rng.random(codes.shape)) @ truth).astype(np.float32), truth


def largest_cosines(decoder, truth):
    unit = decoder / np.linalg.norm(decoder, axis=1, keepdims=True)
    return np.abs(truth @ unit.T).max(axis=1)


TRAINED = {
    "relu": lambda p, _: Relu(p, PowerPenalty(weight=0.3)),
    "p-annealed": lambda p, s: Relu(p, PowerPenalty(weight=0.3, last_p=0.5, from_step=s // 2, to_step=s)),
    "structured": lambda p, _: Relu(p, PowerPenalty(weight=0.3), LowRank(gamma=3.0, rank=16)),
    "gated": lambda p, _: Gated(p, PowerPenalty(weight=0.5)),
    "jumprelu": lambda p, _: JumpRelu(p, weight=0.1, bandwidth=0.2, first_threshold=0.2),
    "jumprelu to a target": lambda p, _: JumpRelu(
        p, weight=1.0, penalty="quadratic", target=3.0, bandwidth=0.2, first_threshold=0.2
    ),
}


@pytest.mark.parametrize("name", TRAINED)
def test_planted_directions_are_found(name):
    steps = 1200
    rows, truth = planted_rows(256 * 40, seed=0)
    centre = torch.from_numpy(rows.mean(axis=0)).double().numpy()
    weights = dict(first_weights(64, centre, seed=1).named())
    before = largest_cosines(weights["decoder"].numpy(), truth).mean()
    training = DenseTraining(TRAINED[name](weights, steps))
    for step in range(steps):
        facts = training.step(rows[step % 40 * 256 :][:256], rate=3e-3 * min(1, 4 * (1 - step / steps)))
    held_out, _ = planted_rows(2000, seed=1)
    with torch.no_grad():
        codes = training.architecture.codes(torch.from_numpy(held_out))
        error = training.architecture.decode(codes).numpy() - held_out
    unexplained = (error**2).sum() / ((held_out - held_out.mean(axis=0)) ** 2).sum()
    after = largest_cosines(training.architecture.parameters["decoder"].detach().numpy(), truth).mean()
    assert unexplained < 0.1, facts
    assert after > 0.95 > 0.5 > before, facts
    if "target" in name:
        assert facts.l0 == pytest.approx(3, abs=0.6)


def test_without_a_branch_the_structured_one_is_p_annealing_bit_for_bit():
    rows, _ = planted_rows(256, seed=0)
    ends = []
    for low_rank in ({}, {"low_rank": None}):
        parameters = parameters_for(torch.from_numpy(rows), 32)
        training = DenseTraining(Relu(parameters, annealed(to_step=20), **low_rank))
        for _ in range(30):
            training.step(rows, rate=1e-3)
        ends.append(training.tensors())
    for name, tensor in ends[0].items():
        torch.testing.assert_close(tensor, ends[1][name], rtol=0, atol=0, equal_nan=True)


def test_a_branch_without_penalty_is_refused_and_a_heavy_one_vanishes():
    with pytest.raises(ConfigError, match="explain everything densely"):
        LowRank(gamma=0.0)
    rows, _ = planted_rows(256 * 8, seed=0)
    training = DenseTraining(
        Relu(parameters_for(torch.from_numpy(rows), 32), PowerPenalty(weight=0.1), LowRank(gamma=1e3, rank=16))
    )
    for step in range(400):
        training.step(rows[step % 8 * 256 :][:256], rate=3e-3)
    sparse, low = training.architecture.branches(torch.from_numpy(rows))
    assert low.norm() / sparse.norm() < 1e-3


@pytest.mark.parametrize(("rank", "inner"), [(20, 12), (64, 50), (12, 12)])
def test_the_truncated_norm_is_the_norm_where_the_rank_suffices(rank, inner):
    noise = torch.Generator().manual_seed(0)
    left = torch.randn(200, inner, generator=noise, dtype=torch.float64)
    matrix = left @ torch.randn(inner, 300, generator=noise, dtype=torch.float64)
    exact = torch.linalg.svdvals(matrix).sum().item()
    assert nuclear_norm(matrix, rank=rank).item() == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("rank", [5, 20, 60])
def test_with_fewer_values_it_is_a_lower_bound_near_their_sum(rank):
    noise = torch.Generator().manual_seed(0)
    matrix = torch.randn(150, 220, generator=noise, dtype=torch.float64) / torch.arange(1, 221).sqrt()
    values = torch.linalg.svdvals(matrix)
    found = nuclear_norm(matrix, rank=rank).item()
    assert found <= values[:rank].sum().item() * (1 + 1e-12) < values.sum().item()
    assert found >= 0.97 * values[:rank].sum().item()


def test_the_gradient_of_a_truncated_norm_is_that_of_the_values_it_sums():
    noise = torch.Generator().manual_seed(0)
    low = torch.randn(40, 6, generator=noise, dtype=torch.float64)
    matrix = (low @ torch.randn(6, 60, generator=noise, dtype=torch.float64)).requires_grad_()
    nuclear_norm(matrix, rank=3).backward()
    left, _, right = torch.linalg.svd(matrix.detach(), full_matrices=False)
    torch.testing.assert_close(matrix.grad, left[:, :3] @ right[:3], rtol=1e-5, atol=1e-7)
    _, values, _ = truncated_svd(torch.zeros(5, 4), 2, seed=0)
    assert not values.any()
    zero = torch.zeros(5, 4, requires_grad=True)
    nuclear_norm(zero, rank=2).backward()
    assert not zero.grad.any()


@pytest.mark.parametrize("cuts", [(), (700,), (1, 40, 41)])
def test_what_was_trained_over_batches_reads_every_row_as_in_a_batch_of_all(cuts):
    """Whatever the blocks, and however short the training: no average follows the weights with a delay."""
    rows = some_rows(2500).float()
    over_batches = ConCA(parameters_for(rows), norm="batch")
    linear = ConCA(parameters_for(rows), norm="none")
    parts = [CodeMoments.of(part, linear) for part in np.split(rows.numpy(), cuts)]
    moments = functools.reduce(CodeMoments.merge, reversed(parts))
    codes = linear.read_with(moments).codes(rows)
    torch.testing.assert_close(codes, over_batches.codes(rows), rtol=0, atol=1e-5)
    torch.testing.assert_close(linear.read_with(moments).codes(rows[:3]), codes[:3], rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [20, 13, 10, 7, 3, 1])
def test_annealing_keeps_the_penalty_where_it_was(length):
    """Also in runs of so few steps that p passes several levels at once."""
    penalty = annealed(from_step=5, to_step=5 + length)
    codes = some_rows(64).relu()
    terms = []
    for step in range(40):
        terms.append(penalty(codes, step).item())
        penalty.done(step)
    assert penalty.power(4) == 1
    assert penalty.power(39) == pytest.approx(0.2)
    np.testing.assert_allclose(terms, terms[0], rtol=1e-9)


@pytest.mark.parametrize("name", ["p-annealed", "gated", "conca batch"])
def test_a_resumed_run_is_the_run(name):
    make, _ = CASES[name]
    rows = some_rows().float().numpy()

    def fresh():
        return DenseTraining(make(parameters_for(torch.from_numpy(rows))))

    whole, first, second = fresh(), fresh(), fresh()
    for _ in range(9):
        whole.step(rows, rate=1e-2)
    for _ in range(4):
        first.step(rows, rate=1e-2)
    second.load({key: tensor.clone() for key, tensor in first.tensors().items()})
    for _ in range(5):
        second.step(rows, rate=1e-2)
    for key, tensor in whole.tensors().items():
        torch.testing.assert_close(second.tensors()[key], tensor, rtol=0, atol=0, equal_nan=True)


def test_the_dead_are_those_that_a_topk_kind_counts():
    """Latents that have not fired for so many rows when a batch comes; one that is silent in a batch is not dead."""
    rows = some_rows(8 * ROWS).float().numpy()
    weights = {name: tensor.float() for name, tensor in parameters_for(torch.from_numpy(rows)).items()}
    weights["encoder_bias"] -= torch.linspace(0, 4, LATENTS)  # from latents that fire often to those that never do
    chosen = Weights(**{name: tensor.clone() for name, tensor in weights.items()})
    kinds = (
        DenseTraining(Relu(weights, l1()), dead_after=3 * ROWS),
        SparseTraining(chosen, TopK(k=LATENTS), auxiliary=Auxiliary(dead_after=3 * ROWS, weight=0)),
    )
    since, silent = torch.zeros(LATENTS, dtype=torch.int64), []
    for batch in np.split(rows, 8):
        dead = int((since >= 3 * ROWS).sum())
        assert [kind.step(batch, rate=0.0).dead for kind in kinds] == [dead, dead]
        fired = (plain({"decoder_bias": chosen.decoder_bias, **weights}, torch.from_numpy(batch)) > 0).any(dim=0)
        since = torch.where(fired, 0, since + ROWS)
        silent.append((dead, int((~fired).sum())))
    assert 0 < silent[-1][0] < silent[-1][1] < LATENTS


def test_mistakes_are_named():
    rows = some_rows().float()
    training = DenseTraining(Relu(parameters_for(rows), l1()))
    before = training.architecture.parameters["encoder"].detach().clone()
    rows[4, 2] = torch.inf
    with pytest.raises(NotEnoughData, match="1 of the 30 rows"):
        training.step(rows.numpy(), rate=1e-3)
    assert torch.equal(training.architecture.parameters["encoder"], before)
    with pytest.raises(ConfigError, match="equal parts"):
        ConCA(parameters_for(some_rows(), 42), norm="group")
    with pytest.raises(ConfigError, match="rank is 0"):
        LowRank(rank=0)
