"""Crosscoders: penalties count a latent at each of its sites, and sites of planted directions are told apart."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from lrh_ray.analyses.sae.architectures.gated import Gated
from lrh_ray.analyses.sae.architectures.jumprelu import JumpRelu
from lrh_ray.analyses.sae.architectures.relu import LowRank, Relu
from lrh_ray.analyses.sae.dense import DenseTraining
from lrh_ray.analyses.sae.evaluation import Reconstruction
from lrh_ray.analyses.sae.parameters import first_weights
from lrh_ray.analyses.sae.reader import Scales, TopKReader, fold
from lrh_ray.analyses.sae.selection import TopK
from lrh_ray.analyses.sae.site_norms import SHARED, site_norms, sites_of_latents
from lrh_ray.analyses.sae.sparse_step import Auxiliary, SparseTraining
from lrh_ray.analyses.sae.sparsity import PowerPenalty
from lrh_ray.analyses.state import merge_tree

WIDTHS, LATENTS, ROWS, WEIGHT, STEP = (7, 12, 5), 40, 30, 0.2, 7
WIDTH = sum(WIDTHS)


def some_rows(num=ROWS):
    return torch.randn(num, WIDTH, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 1


def parameters_for(rows):
    weights = dict(first_weights(LATENTS, rows.mean(0).numpy(), seed=0, dtype=rows.dtype).named())
    noise = torch.Generator().manual_seed(4)
    weights["encoder_bias"] = 0.05 * torch.randn(LATENTS, generator=noise, dtype=torch.float64)
    return weights


def lengths(decoder):
    return sum(part.norm(dim=1) for part in decoder.split(WIDTHS, dim=1))


def product(w, rows):
    return (rows - w["decoder_bias"]) @ w["encoder"].T


def squared(w, codes, rows):
    return ((codes @ w["decoder"] + w["decoder_bias"] - rows) ** 2).sum(1).mean()


def relu_loss(w, rows):
    codes = (product(w, rows) + w["encoder_bias"]).relu()
    return squared(w, codes, rows) + WEIGHT * (codes * lengths(w["decoder"])).sum(1).mean()


def structured_loss(w, rows):
    codes = (product(w, rows) + w["encoder_bias"]).relu()
    low = ((rows - w["decoder_bias"]) @ w["low_encoder"].T + w["low_bias"]).relu()
    norm = torch.linalg.svdvals(low * lengths(w["decoder"])).sum() / len(rows) ** 0.5
    penalty = (codes * lengths(w["decoder"])).sum(1).mean() + 0.3 * norm
    return squared(w, codes + low, rows) + WEIGHT * penalty


def annealed_loss(w, rows):
    codes = (product(w, rows) + w["encoder_bias"]).relu() * lengths(w["decoder"])
    plain = (product(w, rows) + w["encoder_bias"]).relu()
    power = 1 - 0.8 * 8 / 10  # at step 7 of 0 ... 10 eight of ten changes are made
    return squared(w, plain, rows) + WEIGHT * (codes[codes > 0] ** power).sum() / len(rows)


def gated_loss(w, rows):
    gate = product(w, rows) + w["gate_bias"]
    codes = (product(w, rows) * w["log_gain"].exp() + w["magnitude_bias"]).relu() * (gate > 0)
    alone = gate.relu() @ w["decoder"].detach() + w["decoder_bias"].detach()
    penalty = WEIGHT * (gate.relu() * lengths(w["decoder"])).sum(1).mean()
    return squared(w, codes, rows) + penalty + ((alone - rows) ** 2).sum(1).mean()


def annealing():
    return PowerPenalty(weight=WEIGHT, last_p=0.2, from_step=0, to_step=10)


CASES = {
    "relu": (lambda w, **more: Relu(w, PowerPenalty(weight=WEIGHT), **more), relu_loss),
    "p-annealed": (lambda w, **more: Relu(w, annealing(), **more), annealed_loss),
    "structured": (
        lambda w, **more: Relu(w, PowerPenalty(weight=WEIGHT), LowRank(gamma=0.3, rank=ROWS), **more),
        structured_loss,
    ),
    "gated": (lambda w, **more: Gated(w, PowerPenalty(weight=WEIGHT), **more), gated_loss),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_the_formula(name):
    make, formula = CASES[name]
    rows = some_rows()
    architecture = make(parameters_for(rows), widths=WIDTHS)
    expected = {key: tensor.clone().requires_grad_() for key, tensor in architecture.parameters.items()}
    for tensor in architecture.parameters.values():
        tensor.requires_grad_()
    loss = formula(expected, rows)
    loss.backward()
    found = architecture.loss(rows, STEP)
    found.total.backward()
    assert found.total.item() == pytest.approx(loss.item(), rel=1e-12)
    for key, tensor in architecture.parameters.items():
        torch.testing.assert_close(tensor.grad, expected[key].grad, rtol=1e-9, atol=1e-11)


def test_soft_counts_count_lengths_and_counts_do_not():
    rows, weights = some_rows(), parameters_for(some_rows())
    codes = JumpRelu(weights, weight=1.0).codes(rows)
    for penalty, expected in (
        ("tanh", torch.tanh(4 * codes * lengths(weights["decoder"])).sum(1).mean()),
        ("step", (codes > 0).double().sum(1).mean()),
    ):
        found = JumpRelu(weights, weight=1.0, penalty=penalty, widths=WIDTHS).loss(rows, STEP)
        assert (found.total - found.square).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("name", CASES)
def test_one_site_is_an_autoencoder(name):
    """Decoder rows have length 1, and a penalty on that length pulls along the row, where no step goes."""
    make, _ = CASES[name]
    rows, ends = some_rows(), []
    for widths in ((), (WIDTH,)):
        training = DenseTraining(make(parameters_for(rows), widths=widths))
        for _ in range(20):
            training.step(rows.numpy(), rate=1e-3)
        ends.append(training.parameters)
    for key, tensor in ends[0].items():
        torch.testing.assert_close(ends[1][key], tensor, rtol=0, atol=1e-9)


WIDE, FEATURES, ACTIVE = 24, 12, 3
"""Width of each of two sites; planted directions that only the first has, only the second has, and both have."""


def planted(num, seed):
    """Rows of two sites side by side, and the directions [3 FEATURES, 2 WIDE] they are sparse sums of."""
    truth = np.random.default_rng(9).standard_normal((3 * FEATURES, 2, WIDE))
    truth /= np.linalg.norm(truth, axis=2, keepdims=True)
    truth[:FEATURES, 1] = truth[FEATURES : 2 * FEATURES, 0] = 0
    truth = truth.reshape(3 * FEATURES, 2 * WIDE)
    rng = np.random.default_rng(seed)
    codes = rng.random((num, 3 * FEATURES)).argsort(1) < ACTIVE
    return (codes * (0.5 + rng.random(codes.shape)) @ truth).astype(np.float32), truth


def trained(kind, rows, steps=800):
    weights = first_weights(64, rows.mean(axis=0, dtype=np.float64), seed=1)
    if kind == "topk":
        training = SparseTraining(weights, TopK(k=ACTIVE), auxiliary=Auxiliary(dead_after=5000))
    else:
        training = DenseTraining(Relu(dict(weights.named()), PowerPenalty(weight=0.3), widths=(WIDE, WIDE)))
    for step in range(steps):
        training.step(rows[step % 40 * 256 :][:256], rate=5e-3 * min(1, 2 * (1 - step / steps)))
    return training.parameters


@pytest.mark.parametrize("kind", ["topk", "relu"])
def test_shared_and_specific_directions_are_found_and_told_apart(kind):
    rows, truth = planted(256 * 40, 0)
    decoder = trained(kind, rows)["decoder"]
    unit = truth / np.linalg.norm(truth, axis=1, keepdims=True)
    cosines = unit @ decoder.numpy().T
    best = cosines.argmax(axis=1)
    found = cosines.max(axis=1) > 0.9
    assert found.mean() > 0.9
    places = sites_of_latents(site_norms(decoder, (WIDE, WIDE)).numpy())[best]
    expected = np.repeat([0, 1, SHARED], FEATURES)
    assert (places == expected)[found].mean() > 0.95
    first = first_weights(64, np.zeros(2 * WIDE), seed=1).decoder
    assert (sites_of_latents(site_norms(first, (WIDE, WIDE)).numpy()) == SHARED).mean() > 0.95


def test_lengths_of_parts_are_shares_of_a_row():
    decoder = first_weights(LATENTS, np.zeros(WIDTH), seed=0, dtype=torch.float64).decoder
    norms = site_norms(decoder, WIDTHS).numpy()
    np.testing.assert_allclose((norms**2).sum(axis=1), 1)
    np.testing.assert_allclose(norms[:, 1], np.linalg.norm(decoder.numpy()[:, 7:19], axis=1))
    assert sites_of_latents(np.array([[3.1, 1.0], [1.0, 3.1], [1.0, 1.0], [2.0, 1.0]])).tolist() == [0, 1, -1, -1]


def test_sums_of_sites_are_those_of_their_columns_and_do_not_depend_on_splits():
    rng = np.random.default_rng(0)
    scale = np.repeat([3.0, 0.2, 11.0], WIDTHS)
    rows = ((rng.standard_normal((600, WIDTH)) + 2) * scale).astype(np.float32)
    scales = Scales(read=torch.from_numpy(scale), written=torch.from_numpy(scale), codes=1.0)
    weights = dict(first_weights(LATENTS, (rows / scale).mean(axis=0), seed=0).named())
    reader, groups = TopKReader(parameters=fold(weights, scales), k=5), rng.integers(0, 6, 600)
    starts = (0, 7, 19)

    def sums(own):
        return Reconstruction.of(
            rows[own], reader, np.ones(WIDTH), groups[own], num_groups=6, scale=scale, starts=starts
        )

    whole = sums(slice(None))
    merged = merge_tree([sums(slice(*cut)) for cut in pairwise([0, 1, 250, 251, 600])])
    np.testing.assert_allclose(merged.of_sites, whole.of_sites, rtol=1e-6)
    x = torch.from_numpy(rows)
    error = ((reader.decode(reader.codes(x)) - x).double().numpy() / scale) ** 2
    spread = ((rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)) / scale) ** 2
    assert whole.fvu().value == pytest.approx(error.sum() / spread.sum(), rel=1e-5)
    for number, (first, last) in enumerate(pairwise((*starts, WIDTH))):
        left = error[:, first:last].sum() / spread[:, first:last].sum()
        assert whole.of_site(number).fvu().value == pytest.approx(left, rel=1e-5)
        assert whole.of_site(number).l0().value == whole.l0().value


def test_folded_weights_read_every_site_in_its_own_unit():
    rows = some_rows().float()
    scale = torch.from_numpy(np.repeat([3.0, 0.2, 11.0], WIDTHS))
    weights = {name: tensor.float() for name, tensor in parameters_for(some_rows()).items()}
    scaled = TopKReader(parameters=weights, k=5)
    folded = TopKReader(parameters=fold(weights, Scales(read=scale, written=scale, codes=1.0)), k=5)
    whole = (rows * scale).float()
    torch.testing.assert_close(folded.codes(whole), scaled.codes(rows), rtol=1e-4, atol=1e-4)
    back = folded.decode(folded.codes(whole)) / scale
    torch.testing.assert_close(back.float(), scaled.decode(scaled.codes(rows)), rtol=1e-4, atol=1e-4)
