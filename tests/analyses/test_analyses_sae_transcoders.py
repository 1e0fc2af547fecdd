"""Transcoders explain other rows than they read: sparse steps are those of dense autograd, and a pairing is needed."""

import numpy as np
import pytest
import torch
from test_analyses_sae_dense import planted_rows
from test_analyses_sae_sparse import AUX_K, AUX_WEIGHT, LATENTS, NESTED, NEVER, RATE, ROWS, dense_codes

from lrh_ray.analyses.sae.architectures.conca import ConCA
from lrh_ray.analyses.sae.architectures.gated import Gated
from lrh_ray.analyses.sae.architectures.jumprelu import JumpRelu
from lrh_ray.analyses.sae.architectures.relu import LowRank, Relu
from lrh_ray.analyses.sae.dense import DenseTraining
from lrh_ray.analyses.sae.parameters import first_weights
from lrh_ray.analyses.sae.reader import Scales, ThresholdReader, TopKReader, fold
from lrh_ray.analyses.sae.selection import BatchTopK, TopK
from lrh_ray.analyses.sae.sparse_step import Auxiliary, SparseTraining
from lrh_ray.analyses.sae.sparsity import PowerPenalty
from lrh_ray.errors import ConfigError, NotEnoughData

READ, WRITTEN, WEIGHT, GAMMA = 24, 17, 0.2, 0.3


def ends_of(dtype=torch.float64, batches=8):
    """Rows to read far from the origin, and rows to explain that depend on them."""
    noise = torch.Generator().manual_seed(1)
    read = torch.randn(batches * ROWS, READ, generator=noise, dtype=torch.float64)
    mixed = read @ torch.randn(READ, WRITTEN, generator=noise, dtype=torch.float64) / READ**0.5
    return (read + 3).to(dtype), (mixed.relu() - 1).to(dtype)


def weights_for(read, written, *, skip):
    centres = {"centre": written.mean(0).numpy(), "read_centre": read.mean(0).numpy()}
    weights = first_weights(LATENTS, **centres, seed=0, skip=skip, dtype=read.dtype)
    noise = torch.Generator().manual_seed(2)
    weights.encoder_bias.copy_(torch.randn(LATENTS, generator=noise, dtype=torch.float64) * 0.05)
    if skip:
        weights.skip.copy_(torch.randn(WRITTEN, READ, generator=noise, dtype=torch.float64) * 0.05)
    return weights


def pre_of(read, w, encoder="encoder", bias="encoder_bias"):
    return (read - w["input_offset"]) @ w[encoder].T + w[bias]


def made_of(codes, read, w, end=LATENTS):
    skipped = (read - w["input_offset"]) @ w["skip"].T if "skip" in w else 0
    return codes[:, :end] @ w["decoder"][:end] + w["decoder_bias"] + skipped


def squared(codes, read, written, w, end=LATENTS):
    return ((made_of(codes, read, w, end) - written) ** 2).sum(1).mean()


def sparse_loss(read, written, w, selection, groups, dead):
    pre, ends = pre_of(read, w), groups or (LATENTS,)
    codes = dense_codes(pre, selection)
    loss = torch.stack([squared(codes, read, written, w, end) for end in ends]).mean()
    if len(dead):
        left = (made_of(codes, read, w) - written).detach()
        revived = dense_codes(pre[:, dead], TopK(k=min(AUX_K, len(dead)))) @ w["decoder"][dead]
        loss = loss + AUX_WEIGHT * ((revived + left) ** 2).sum(1).mean()
    return loss


@pytest.mark.parametrize("skip", [False, True], ids=["plain", "skip"])
@pytest.mark.parametrize(
    ("selection", "groups", "dead_after"),
    [(TopK(k=6), (), NEVER), (TopK(k=3), (), 100), (BatchTopK(k=3), NESTED, 100)],
    ids=["topk", "topk with dead", "matryoshka with dead"],
)
def test_thirty_sparse_steps_are_those_of_dense_autograd(selection, groups, dead_after, skip):
    (read, written), seen_dead = ends_of(), 0
    weights = weights_for(read, written, skip=skip)
    dense = {name: tensor.clone() for name, tensor in weights.named()}
    learning = [tensor.requires_grad_() for name, tensor in dense.items() if name != "input_offset"]
    optimiser = torch.optim.Adam(learning, lr=RATE)
    auxiliary = Auxiliary(dead_after=dead_after, k=AUX_K, weight=AUX_WEIGHT)
    training = SparseTraining(weights, selection, groups=groups, auxiliary=auxiliary)
    for step in range(30):
        batch, target = (rows[step % 8 * ROWS :][:ROWS] for rows in (read, written))
        dead = np.flatnonzero(training.since_fired >= dead_after)
        seen_dead += len(dead)
        optimiser.zero_grad()
        loss = sparse_loss(batch, target, dense, selection, groups, dead)
        loss.backward()
        with torch.no_grad():
            gradient = dense["decoder"].grad
            gradient -= (gradient * dense["decoder"]).sum(1, keepdim=True) * dense["decoder"]
        optimiser.step()
        with torch.no_grad():
            dense["decoder"] /= dense["decoder"].norm(dim=1, keepdim=True)
        facts = training.step(batch.numpy(), rate=RATE, target=target.numpy())
        assert facts.loss + facts.penalty == pytest.approx(loss.item(), rel=1e-9)
    assert (seen_dead > 0) == (dead_after < NEVER)
    assert set(training.parameters) == set(dense)
    for name, tensor in training.weights.named():
        torch.testing.assert_close(tensor, dense[name].detach(), rtol=0, atol=1e-12)


def relu_loss(read, written, w):
    codes = pre_of(read, w).relu()
    return squared(codes, read, written, w) + WEIGHT * codes.sum(1).mean()


def structured_loss(read, written, w):
    codes, low = pre_of(read, w).relu(), pre_of(read, w, "low_encoder", "low_bias").relu()
    norm = torch.linalg.svdvals(low).sum() / len(read) ** 0.5
    return squared(codes + low, read, written, w) + WEIGHT * (codes.sum(1).mean() + GAMMA * norm)


def gated_loss(read, written, w):
    gate = pre_of(read, w, bias="gate_bias")
    product = gate - w["gate_bias"]
    codes = (product * w["log_gain"].exp() + w["magnitude_bias"]).relu() * (gate > 0)
    held = {name: tensor.detach() for name, tensor in w.items()}
    alone = squared(gate.relu(), read, written, held)
    return squared(codes, read, written, w) + WEIGHT * gate.relu().sum(1).mean() + alone


def conca_loss(read, written, w):
    pre = pre_of(read, w)
    centred = pre - pre.mean(1, keepdim=True)
    codes = centred / (pre.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    return squared(codes, read, written, w) + WEIGHT * torch.nn.functional.softplus(codes).sum(1).mean()


DENSE = {
    "relu": (lambda p: Relu(p, PowerPenalty(weight=WEIGHT)), relu_loss),
    "structured": (lambda p: Relu(p, PowerPenalty(weight=WEIGHT), LowRank(gamma=GAMMA, rank=99)), structured_loss),
    "gated": (lambda p: Gated(p, PowerPenalty(weight=WEIGHT)), gated_loss),
    "conca": (lambda p: ConCA(p, weight=WEIGHT), conca_loss),
}


@pytest.mark.parametrize("skip", [False, True], ids=["plain", "skip"])
@pytest.mark.parametrize("name", DENSE)
def test_dense_gradients_are_those_of_the_formula(name, skip):
    make, formula = DENSE[name]
    read, written = ends_of(batches=1)
    architecture = make(dict(weights_for(read, written, skip=skip).named()))
    expected = {key: tensor.clone().requires_grad_() for key, tensor in architecture.parameters.items()}
    for tensor in architecture.parameters.values():
        tensor.requires_grad_()
    architecture.parameters["input_offset"].requires_grad_(False)
    loss = formula(read, written, expected)
    loss.backward()
    found = architecture.loss(read, 0, written)
    found.total.backward()
    assert found.total.item() == pytest.approx(loss.item(), rel=1e-12)
    for key, tensor in architecture.parameters.items():
        if key != "input_offset":
            torch.testing.assert_close(tensor.grad, expected[key].grad, rtol=1e-9, atol=1e-11)


def test_thresholds_of_a_transcoder_explain_its_target():
    """JumpReLU has an estimated slope of its own: that of an autoencoder of y = x, to which only the target differs."""
    read, written = ends_of(batches=1)
    weights = dict(weights_for(read, written, skip=True).named())
    architecture = JumpRelu(weights, weight=WEIGHT, first_threshold=0.3)
    codes = architecture.codes(read)
    pre = pre_of(read, weights)
    torch.testing.assert_close(codes, pre * (pre > 0.3))
    found = architecture.loss(read, 0, written)
    expected = squared(codes, read, written, weights)
    assert found.square.item() == pytest.approx(expected.item(), rel=1e-12)
    assert found.total.item() == pytest.approx((expected + WEIGHT * (pre > 0.3).double().sum(1).mean()).item())


@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_to_its_own_rows_it_is_the_autoencoder_but_for_one_way_of_the_offset(kind):
    """The first step from the same weights: all bits but those of the offset of the target, which has another slope."""
    rows, ends = ends_of(torch.float32)[0][:ROWS].numpy(), []
    for transcodes in (False, True):
        weights = first_weights(LATENTS, rows.mean(axis=0, dtype=np.float64), seed=0)
        if transcodes:
            offset = rows.mean(axis=0, dtype=np.float64)
            other = first_weights(LATENTS, offset, seed=0, read_centre=offset)
            other.encoder.copy_(weights.encoder)
            weights = other
        if kind == "sparse":
            training = SparseTraining(weights, TopK(k=6))
        else:
            training = DenseTraining(Relu(dict(weights.named()), PowerPenalty(weight=0.1)))
        training.step(rows, rate=RATE, target=rows if transcodes else None)
        ends.append(training.parameters)
    autoencoder, transcoder = ends
    for name in ("encoder", "encoder_bias", "decoder"):
        assert torch.equal(autoencoder[name], transcoder[name])
    assert not torch.equal(autoencoder["decoder_bias"], transcoder["decoder_bias"])
    codes = TopKReader(parameters=autoencoder, k=6)
    same = TopKReader(parameters=autoencoder | {"input_offset": autoencoder["decoder_bias"]}, k=6)
    x = torch.from_numpy(rows)
    assert torch.equal(codes.codes(x), same.codes(x))
    assert torch.equal(codes.decode(codes.codes(x)), same.decode(same.codes(x)))


def planted_ends(num, seed, *, shuffled=False):
    """What is written has a direction of its own for every direction that is read, and the same codes."""
    read, truth = planted_rows(num, seed=seed)
    written_truth = np.random.default_rng(4).standard_normal((len(truth), WRITTEN))
    written_truth /= np.linalg.norm(written_truth, axis=1, keepdims=True)
    written = (_codes_of(num, seed) @ written_truth).astype(np.float32)
    return read, written[np.random.default_rng(seed + 1).permutation(num)] if shuffled else written, written_truth


def _codes_of(num, seed, features=40, active=3):
    """As `planted_rows` draws them."""
    rng = np.random.default_rng(seed)
    chosen = rng.random((num, features)).argsort(1) < active
    return chosen * (0.5 + rng.random(chosen.shape))


def left_after(read, written, *, skip=False, k=3, steps=600, held_out=None):
    """FVU of held-out rows, and the training."""
    weights = first_weights(
        64, written.mean(axis=0, dtype=np.float64), seed=1, read_centre=read.mean(axis=0, dtype=np.float64), skip=skip
    )
    training = SparseTraining(weights, TopK(k=k), auxiliary=Auxiliary(dead_after=5000))
    for step in range(steps):
        own = slice(step % 40 * 256, step % 40 * 256 + 256)
        training.step(read[own], rate=5e-3 * min(1, 2 * (1 - step / steps)), target=written[own])
    x, y = map(torch.from_numpy, held_out)
    reader = TopKReader(parameters=training.parameters, k=k)
    error = reader.decode(reader.codes(x), x) - y
    return float(error.pow(2).sum() / (y - y.mean(0)).pow(2).sum()), training


def test_planted_pairs_of_directions_are_found_and_a_shuffled_pairing_teaches_nothing():
    read, written, truth = planted_ends(256 * 40, 0)
    held_out = planted_ends(2000, 1)[:2]
    left, training = left_after(read, written, held_out=held_out)
    found = np.abs(truth @ training.parameters["decoder"].numpy().T).max(axis=1)
    assert left < 0.25
    assert found.mean() > 0.9
    shuffled = planted_ends(256 * 40, 0, shuffled=True)[1]
    assert left_after(read, shuffled, held_out=held_out)[0] > 0.95


def test_a_skip_connection_takes_what_is_linear():
    read, written, _ = planted_ends(256 * 40, 0)
    held_out = planted_ends(2000, 1)[:2]
    linear = np.random.default_rng(6).standard_normal((read.shape[1], WRITTEN)).astype(np.float32)
    both = [(x, y + x @ linear) for x, y in ((read, written), held_out)]
    without, _ = left_after(*both[0], held_out=both[1], steps=300)
    with_skip, training = left_after(*both[0], held_out=both[1], steps=300, skip=True)
    assert with_skip < 0.5 * without
    assert training.parameters["skip"].abs().max() > 0.1


@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_a_resumed_run_is_the_run(kind):
    read, written = (rows[:ROWS].float().numpy() for rows in ends_of())

    def fresh():
        weights = weights_for(torch.from_numpy(read), torch.from_numpy(written), skip=True)
        if kind == "sparse":
            return SparseTraining(weights, BatchTopK(k=4))
        return DenseTraining(Gated(dict(weights.named()), PowerPenalty(weight=0.1)))

    whole, first, second = fresh(), fresh(), fresh()
    for _ in range(9):
        whole.step(read, rate=1e-2, target=written)
    for _ in range(4):
        first.step(read, rate=1e-2, target=written)
    second.load({key: tensor.clone() for key, tensor in first.tensors().items()})
    for _ in range(5):
        second.step(read, rate=1e-2, target=written)
    for key, tensor in whole.tensors().items():
        torch.testing.assert_close(second.tensors()[key], tensor, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", ["topk", "threshold", "relu", "gated", "jumprelu", "conca"])
def test_folded_weights_read_and_write_rows_as_they_are(name):
    read, written = (rows[:ROWS].float() for rows in ends_of())
    weights = dict(weights_for(read, written, skip=True).named())
    make = {
        "topk": lambda p: TopKReader(parameters=p, k=5),
        "threshold": lambda p: ThresholdReader(parameters=p, threshold=0.2 if p is weights else 0.2 * 37),
        "relu": lambda p: Relu(p, PowerPenalty(weight=1)),
        "gated": lambda p: Gated(p, PowerPenalty(weight=1)),
        "jumprelu": lambda p: JumpRelu(p, weight=1, first_threshold=0.3),
        "conca": lambda p: ConCA(p),
    }[name]
    scales = Scales(read=torch.tensor([0.3], dtype=torch.float64), written=torch.tensor([37.0]).double(), codes=37.0)
    scaled = make(weights)
    folded = make(fold(scaled.parameters, scales, normalised=name == "conca"))
    codes, whole = scaled.codes(read), 0.3 * read
    unit = 1 if name == "conca" else 37
    torch.testing.assert_close(folded.codes(whole), codes * unit, rtol=1e-3, atol=1e-3 * unit)
    back = folded.decode(folded.codes(whole), whole)
    torch.testing.assert_close(back, scaled.decode(codes, read) * 37, rtol=1e-3, atol=0.02)


def test_mistakes_are_named():
    read, written = (rows[:ROWS].float() for rows in ends_of())
    with pytest.raises(ConfigError, match="only transcoders have one"):
        first_weights(LATENTS, written.mean(0).double().numpy(), seed=0, skip=True)
    for training in (
        SparseTraining(weights_for(read, written, skip=False), TopK(k=4)),  # its loss does not show a row it read
        DenseTraining(Relu(dict(weights_for(read, written, skip=True).named()), PowerPenalty(weight=1))),
    ):
        before = {name: tensor.clone() for name, tensor in training.parameters.items()}
        for target in (None, written[:-1].numpy(), written[:, 1:].numpy()):
            with pytest.raises(ConfigError, match=r"beside 50 rows to read they are \[50, 17\]"):
                training.step(read.numpy(), rate=RATE, target=target)
        for end in (read, written):
            spoiled = end.clone()
            spoiled[7, 3] = torch.nan
            ends = (spoiled, written) if end is read else (read, spoiled)
            with pytest.raises(NotEnoughData, match=r"1 of the 50 rows .* not finite"):
                training.step(ends[0].numpy(), rate=RATE, target=ends[1].numpy())
        for name, tensor in training.parameters.items():
            assert torch.equal(tensor, before[name])
    reader = TopKReader(parameters=training.parameters, k=4)
    with pytest.raises(ConfigError, match="give `decode` the rows"):
        reader.decode(reader.codes(read))
