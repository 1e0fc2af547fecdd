"""Training on another device: nothing of the CPU gets among its tensors, and files are those of any device."""

import numpy as np
import pytest
import torch
from pretended_device import DEVICE, There, pretended
from sae_workers import DEVICE_KINDS, KINDS, make, rows_of, run

from lrh_ray.analyses.sae.architectures.relu import LowRank, Relu
from lrh_ray.analyses.sae.dense import DenseTraining
from lrh_ray.analyses.sae.mesh import ALONE
from lrh_ray.analyses.sae.parameters import first_weights
from lrh_ray.analyses.sae.sparsity import PowerPenalty
from lrh_ray.errors import NotEnoughData

DENSE_KINDS = tuple(kind for kind in KINDS if "topk" not in kind and "matryoshka" not in kind)
STEPS = 24


@pytest.mark.parametrize("kind", [*DENSE_KINDS, *DEVICE_KINDS])
def test_steps_on_a_device_are_those_on_the_cpu_and_so_are_the_files(kind):
    """The pretended device computes with the CPU's kernels: every bit is the same, or something was left behind."""
    half, facts = run(kind, ALONE, STEPS // 2)
    whole, more = run(kind, ALONE, STEPS)
    with pretended():
        there, told = run(kind, ALONE, STEPS // 2, device=DEVICE)
        on, told_more = run(kind, ALONE, STEPS, half, device=DEVICE)  # goes on from the file of a CPU
    back, _ = run(kind, ALONE, STEPS, there)  # and a CPU from that of the device
    np.testing.assert_array_equal(told, facts)
    np.testing.assert_array_equal(told_more, more[STEPS // 2 :])
    for expected, found in ((half, there), (whole, on), (whole, back)):
        assert expected.keys() == found.keys()
        for name, tensor in expected.items():
            assert not isinstance(found[name], There)
            assert torch.equal(torch.nan_to_num(found[name]), torch.nan_to_num(tensor)), name


@pytest.mark.gpu
@pytest.mark.parametrize("kind", DENSE_KINDS)
def test_steps_on_a_gpu_are_those_on_the_cpu(kind):
    whole, facts = run(kind, ALONE, STEPS)
    there, told = run(kind, ALONE, STEPS, device="cuda")
    np.testing.assert_allclose(told, facts, rtol=1e-9, atol=1e-12)
    for name, tensor in whole.items():
        torch.testing.assert_close(there[name], tensor, rtol=0, atol=1e-8, equal_nan=True)


def test_a_low_rank_branch_is_made_on_the_device():
    found = []
    for device in (torch.device("cpu"), DEVICE):
        with pretended():
            own = first_weights(32, np.zeros(24), seed=0, dtype=torch.float64).on(device)
            branched = Relu(dict(own.named()), PowerPenalty(weight=0.1, last_p=0.5, to_step=4), LowRank(rank=3))
            training = DenseTraining(branched)
            for step in range(6):
                training.step(rows_of(step), rate=1e-3)
            found.append(training.tensors())
    for name, tensor in found[0].items():
        assert torch.equal(torch.nan_to_num(found[1][name]), torch.nan_to_num(tensor)), name


@pytest.mark.parametrize("kind", ["relu", "device topk"])
def test_rows_that_are_not_finite_are_refused_on_a_device(kind):
    rows = rows_of(0)
    rows[3] = np.inf
    with pretended(), pytest.raises(NotEnoughData, match="1 of the 64 rows"):
        make(kind, ALONE, device=DEVICE).step(rows, rate=1e-3)


@pytest.mark.parametrize("kind", ["device topk, preselected", "device batchtopk, preselected"])
def test_recall_is_counted_on_the_device(kind):
    with pretended():
        assert make(kind, ALONE, device=DEVICE).recall(rows_of(0)) == 1


def test_the_pretended_device_tells_what_a_real_one_would_refuse():
    with pretended():
        there = torch.randn(4, 3).to(DEVICE)
        with pytest.raises(AssertionError, match="two devices"):
            there @ torch.randn(3, 2)
        with pytest.raises((TypeError, RuntimeError)):
            there.numpy()
        assert (there * torch.tensor(2.0)).cpu().shape == (4, 3)
