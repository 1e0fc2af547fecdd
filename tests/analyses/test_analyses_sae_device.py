"""The step in torch is the compiled one: the same choices, the same weights, the same files."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lrh_ray.analyses.sae.device_kernels import SparseProducts, decode, dots
from lrh_ray.analyses.sae.device_step import DeviceTraining
from lrh_ray.analyses.sae.parameters import first_weights
from lrh_ray.analyses.sae.selection import BatchTopK, TopK
from lrh_ray.analyses.sae.sparse_step import Auxiliary, SparseTraining
from lrh_ray.analyses.sae.tensor_codes import TensorCodes
from lrh_ray.errors import ConfigError, NotEnoughData

WIDTH, LATENTS, ROWS, RATE = 24, 96, 50, 1e-3
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
CASES = {
    "topk": (lambda: TopK(k=4), (), 10**9),
    "topk with dead": (lambda: TopK(k=4), (), 2 * ROWS),
    "batchtopk": (lambda: BatchTopK(k=4), (), 10**9),
    "matryoshka with dead": (lambda: BatchTopK(k=4), (12, 40, LATENTS), 2 * ROWS),
    "skip transcoder with dead": (lambda: TopK(k=4), (), ROWS),
}


def rows_of(step, dtype=np.float64):
    noise = np.random.default_rng([3, step % 8]).standard_normal((ROWS, WIDTH))
    return (0.7 * noise + np.random.default_rng(4).standard_normal(WIDTH)).astype(dtype)


def written_of(case, rows):
    """What a transcoder explains; others explain what they read."""
    return np.tanh(rows[:, : WIDTH // 2]) if "transcoder" in case else None


def made(kind, case, dtype=torch.float64, **more):
    selection, groups, dead_after = CASES[case]
    centre = rows_of(0).mean(axis=0)
    weights = first_weights(LATENTS, centre, seed=0, dtype=dtype)
    if "transcoder" in case:
        written = written_of(case, rows_of(0)).mean(axis=0)
        weights = first_weights(LATENTS, written, seed=0, read_centre=centre, skip=True, dtype=dtype)
    return kind(weights, selection(), groups=groups, auxiliary=Auxiliary(dead_after=dead_after, k=5), **more)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES)
def test_fifty_steps_are_those_of_the_compiled_one(case, device):
    compiled, here = made(SparseTraining, case), made(DeviceTraining, case, device=device)
    dead = 0
    for step in range(50):
        rows, target = rows_of(step), written_of(case, rows_of(step))
        expected, found = (one.step(rows, rate=RATE, target=target) for one in (compiled, here))
        assert (found.l0, found.dead) == (expected.l0, expected.dead)
        assert found.loss == pytest.approx(expected.loss, rel=1e-9)
        assert found.penalty == pytest.approx(expected.penalty, rel=1e-9)
        dead += found.dead
    assert bool(dead) == ("dead" in case)
    for name, tensor in compiled.tensors().items():
        torch.testing.assert_close(here.tensors()[name], tensor, rtol=0, atol=1e-10)


class Waits(TorchDispatchMode):
    """Counts operations whose size depends on values: a GPU's host waits for it to know them."""

    def __init__(self):
        super().__init__()
        self.num = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masks = [one for one in args[1] if one is not None] if name in ("index", "index_put_") else []
        by_mask = any(one.dtype in (torch.bool, torch.uint8) for one in masks)
        self.num += by_mask or name in ("nonzero", "masked_select", "unique2", "bincount")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("case", CASES)
def test_no_size_in_a_step_depends_on_values(case):
    training = made(DeviceTraining, case)
    for step in range(4):
        rows = rows_of(step)
        with Waits() as waits:
            training.step(rows, rate=RATE, target=written_of(case, rows))
        assert waits.num == 0
    with Waits() as waits:
        torch.arange(3)[torch.tensor([True, False, True])]
    assert waits.num  # or nothing was counted


@pytest.mark.parametrize("device", DEVICES)
def test_either_goes_on_from_the_files_of_the_other(device):
    compiled, here = made(SparseTraining, "topk with dead"), made(DeviceTraining, "topk with dead", device=device)
    for step in range(20):
        compiled.step(rows_of(step), rate=RATE)
    here.load(compiled.tensors())
    assert here.step(rows_of(20), rate=RATE).dead == compiled.step(rows_of(20), rate=RATE).dead > 0
    back = made(SparseTraining, "topk with dead")
    back.load(here.tensors())
    for name, tensor in compiled.tensors().items():
        torch.testing.assert_close(back.tensors()[name], tensor, rtol=0, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
def test_the_same_rows_make_the_same_bits(device):
    one, two = (made(DeviceTraining, "matryoshka with dead", torch.float32, device=device) for _ in range(2))
    for step in range(10):
        for training in (one, two):
            training.step(rows_of(step, np.float32), rate=RATE)
    for name, tensor in one.tensors().items():
        assert torch.equal(two.tensors()[name], tensor), name


def test_a_batch_whose_codes_are_all_in_a_few_rows_is_chosen_exactly():
    """More than there is room for at first: such rows are sought deeper, and the choice is still that of all."""
    rows = rows_of(0)
    rows[:3] *= 30
    compiled, here = (made(kind, "batchtopk") for kind in (SparseTraining, DeviceTraining))
    facts = [one.step(rows, rate=RATE) for one in (compiled, here)]
    assert facts[0].l0 == facts[1].l0 == 4
    for name, tensor in compiled.tensors().items():
        torch.testing.assert_close(here.tensors()[name], tensor, rtol=0, atol=1e-10)


@pytest.mark.parametrize("case", ["topk", "batchtopk"])
def test_a_preselection_of_all_latents_is_the_exact_choice(case):
    rows = rows_of(0, np.float32)
    exact = made(DeviceTraining, case, torch.float32)
    chosen = made(DeviceTraining, case, torch.float32, preselect=LATENTS // 4)
    assert chosen.recall(rows) == exact.recall(rows) == 1
    assert chosen.step(rows, rate=RATE).loss == pytest.approx(exact.step(rows, rate=RATE).loss, rel=1e-6)


def test_fewer_candidates_find_less_and_recall_says_so():
    """Latents in threes that bfloat16 cannot tell apart: the fourth code of a row is one of three."""
    rows = rows_of(0, np.float32)
    trainings = [made(DeviceTraining, "topk", torch.float32, preselect=preselect) for preselect in (1, 4)]
    for training in trainings:
        for third, factor in enumerate((1, 1 + 5e-4, 1 + 1e-3)):
            training.weights.encoder[third::3] = training.weights.encoder[::3] * factor
    few, many = (training.recall(rows) for training in trainings)
    assert 0.7 < few < 0.95
    assert many == 1


def test_products_are_those_of_dense_codes():
    noise = torch.Generator().manual_seed(0)
    index = torch.stack([torch.randperm(9, generator=noise)[:3] for _ in range(6)])
    value = torch.rand(6, 3, generator=noise, dtype=torch.float64)
    rows = torch.randn(6, 5, generator=noise, dtype=torch.float64)
    matrix = torch.randn(9, 5, generator=noise, dtype=torch.float64)
    dense = torch.zeros(6, 9, dtype=torch.float64).scatter(1, index, value)
    products = SparseProducts.of(TensorCodes(value=value, index=index), slice(0, 9))
    torch.testing.assert_close(decode(value, index, matrix), dense @ matrix)
    torch.testing.assert_close(dots(rows, matrix, index), (rows @ matrix.T).gather(1, index))
    torch.testing.assert_close(products.with_rows(value, rows), dense.T @ rows)
    torch.testing.assert_close(products.sums(value), dense.sum(dim=0))
    value = torch.where(value > 0.4, value, 0)  # some are absent
    dense = torch.zeros(6, 9, dtype=torch.float64).scatter(1, index, value)
    for latents in (slice(3, 7), slice(0, 9)):
        cut = SparseProducts.of(TensorCodes(value=value, index=index), latents, cut=True)
        torch.testing.assert_close(cut.with_rows(value, rows), dense.T[latents] @ rows)
        torch.testing.assert_close(cut.sums(value), dense.sum(dim=0)[latents])
    nothing = SparseProducts.of(TensorCodes(value=0 * value, index=index), slice(0, 9), cut=True)
    assert not nothing.with_rows(value, rows).any()
    assert not nothing.sums(value).any()


def test_mistakes_are_named():
    training = made(DeviceTraining, "topk")
    before = {name: tensor.clone() for name, tensor in training.tensors().items()}
    rows = rows_of(0)
    rows[7, 3] = np.nan
    with pytest.raises(NotEnoughData, match="1 of the 50 rows"):
        training.step(rows, rate=RATE)
    for name, tensor in training.tensors().items():
        assert torch.equal(tensor, before[name])
    with pytest.raises(ConfigError, match="preselect is 0"):
        made(DeviceTraining, "topk", preselect=0)
    with pytest.raises(ConfigError, match="k is 97"):
        DeviceTraining(first_weights(LATENTS, np.zeros(WIDTH), seed=0), TopK(k=97))
