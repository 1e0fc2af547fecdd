"""Two workers that share the latents out make the steps of one: the same choices, the same weights up to rounding."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sae_workers
import torch
from sae_workers import CASES, LATENTS, STEPS, make, run
from safetensors.torch import load_file

from lrh_ray.analyses.sae.architectures.conca import ConCA
from lrh_ray.analyses.sae.architectures.relu import LowRank, Relu
from lrh_ray.analyses.sae.sharding import ALONE, Shard
from lrh_ray.analyses.sae.sparsity import PowerPenalty
from lrh_ray.analyses.sae.training import joined
from lrh_ray.collective import Share
from lrh_ray.errors import ConfigError

TWO = Share(rank=0, world=2)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workers")
    command = [sys.executable, str(Path(sae_workers.__file__))]
    workers = [subprocess.Popen([*command, str(rank), str(folder)]) for rank in range(2)]
    assert [worker.wait(timeout=280) for worker in workers] == [0, 0]
    return {
        case: [load_file(folder / "{}-{}-{}.safetensors".format(*case, rank)) for rank in range(2)] for case in CASES
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} in {case[1]}")
def test_a_hundred_steps_of_two_workers_are_those_of_one(shared, case):
    """In float32 rounding decides the sign of what is nearly 0, and Adam makes a step of it; TopK stands even that."""
    kind, dtype = case
    parts = [dict(part) for part in shared[case]]
    told = [part.pop("facts").numpy() for part in parts]
    whole, facts = run(kind, ALONE, dtype=dtype)
    np.testing.assert_array_equal(told[0], told[1])  # all workers are told the same
    np.testing.assert_allclose(told[0], facts, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(told[0][:, 2:], facts[:, 2:])  # the same choices, the same dead
    if "dead" in kind:
        assert facts[:, 3].any()
    for part in parts:
        for name in {"parameter.decoder_bias", "parameter.skip"} & part.keys():
            assert torch.equal(part[name], parts[0][name])
        assert len(part["parameter.decoder"]) == LATENTS // 2
    for name, tensor in joined(parts).items():
        if name.startswith("parameter."):
            torch.testing.assert_close(tensor, whole[name], rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-7)


@pytest.mark.parametrize("kind", ["topk with dead", "p-annealed"])
def test_one_worker_goes_on_from_what_two_have_left(shared, kind):
    """The state of two workers, joined, is one that a run of another size goes on from as its own would."""
    parts = [{name: tensor for name, tensor in part.items() if name != "facts"} for part in shared[kind, torch.float64]]
    whole, _ = run(kind, ALONE)
    here, mine = run(kind, ALONE, STEPS + 20, joined(parts)), run(kind, ALONE, STEPS + 20, whole)
    np.testing.assert_allclose(here[1][:, 0], mine[1][:, 0], rtol=1e-5)
    again = make(kind, ALONE)
    again.load(joined(parts))
    for name, tensor in again.tensors().items():
        torch.testing.assert_close(tensor, joined(parts)[name], rtol=0, atol=0, equal_nan=True)


def test_what_cannot_be_shared_out_is_named():
    own = dict(sae_workers.first_weights(LATENTS, np.zeros(4), seed=0).named())
    with pytest.raises(ConfigError, match="97 latents cannot be shared out equally over 2"):
        Shard(share=TWO, num_latents=97)
    with pytest.raises(ConfigError, match="one worker"):
        Relu(own, PowerPenalty(weight=1), LowRank(), share=TWO)
    with pytest.raises(ConfigError, match="whole groups"):
        ConCA(own, norm="group", groups=3, share=TWO)
