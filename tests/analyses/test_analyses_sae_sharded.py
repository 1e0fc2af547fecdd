"""Workers that share latents and rows out make the steps of one: the same choices, the same weights up to rounding."""

import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import sae_workers
import torch
from sae_workers import CASES, FEW_CASES, GRIDS, LATENTS, STEPS, file_name, make, recall_of_threes, run
from safetensors.torch import load_file

from lrh_ray.analyses.sae.architectures.conca import ConCA
from lrh_ray.analyses.sae.architectures.relu import LowRank, Relu
from lrh_ray.analyses.sae.mesh import ALONE, Mesh, make_mesh
from lrh_ray.analyses.sae.sharding import Shard
from lrh_ray.analyses.sae.sparsity import PowerPenalty
from lrh_ray.analyses.sae.training import joined
from lrh_ray.collective import Share
from lrh_ray.errors import ConfigError

pytestmark = pytest.mark.timeout(600)  # the workers' runs: four minutes where two files of tests share two cores
TWO_PARTS = Mesh(latents=Share(rank=0, world=2))
TWO_OF_ROWS = Mesh(rows=Share(rank=0, world=2))
RUNS = (
    *((case, 2, 2) for case in CASES),
    *((case, 2, 1) for case in CASES),
    *((case, 4, 2) for case in FEW_CASES),
)


def told(run_of):
    (kind, dtype), world, parts = run_of
    return f"{kind} in {dtype}, {world} workers, {parts} parts"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("workers")
    for world in GRIDS:
        (place / str(world)).mkdir()
        command = [sys.executable, str(Path(sae_workers.__file__))]
        workers = [
            subprocess.Popen([*command, str(rank), str(place / str(world)), str(world)]) for rank in range(world)
        ]
        assert [worker.wait(timeout=560) for worker in workers] == [0] * world
    return place


def parts_of(folder, case, world, parts):
    names = [file_name(*case, world, parts, place) for place in range(world)]
    return [load_file(folder / str(world) / name) for name in names]


@pytest.fixture(scope="module")
def alone():
    return cache(lambda kind, dtype: run(kind, ALONE, dtype=dtype))


@pytest.mark.parametrize("run_of", RUNS, ids=told)
def test_a_hundred_steps_of_several_workers_are_those_of_one(folder, alone, run_of):
    """In float32 rounding decides the sign of what is nearly 0, and Adam makes a step of it; TopK stands even that."""
    (kind, dtype), world, _ = run_of
    parts = parts_of(folder, *run_of)
    told = [part.pop("facts").numpy() for part in parts]
    whole, facts = alone(kind, dtype)
    for others in told[1:]:
        np.testing.assert_array_equal(told[0], others)  # all workers are told the same
    np.testing.assert_allclose(told[0], facts, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(told[0][:, 2:], facts[:, 2:])  # the same choices, the same dead
    if "dead" in kind or kind.startswith("jumprelu"):
        assert facts[:, 3].any()
    for part in parts:
        for name in {"parameter.decoder_bias", "parameter.skip"} & part.keys():
            assert torch.equal(part[name], parts[0][name])
        assert len(part["parameter.decoder"]) == LATENTS // world
    within = 1e-10 if kind.startswith("device") else 1e-5 if dtype == torch.float32 else 1e-7
    for name, tensor in joined(parts).items():
        if name.startswith("parameter."):
            torch.testing.assert_close(tensor, whole[name], rtol=0, atol=within)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("kind", ["topk with dead", "p-annealed", "device topk with dead"])
def test_one_worker_goes_on_from_what_two_have_left(folder, alone, kind, parts):
    """The state of two workers, joined, is one that a run of another size goes on from as its own would."""
    files = parts_of(folder, (kind, torch.float64), 2, parts)
    states = [{name: tensor for name, tensor in part.items() if name != "facts"} for part in files]
    whole, _ = alone(kind, torch.float64)
    here, mine = run(kind, ALONE, STEPS + 20, joined(states)), run(kind, ALONE, STEPS + 20, whole)
    np.testing.assert_allclose(here[1][:, 0], mine[1][:, 0], rtol=1e-5)
    again = make(kind, ALONE)
    again.load(joined(states))
    for name, tensor in again.tensors().items():
        torch.testing.assert_close(tensor, joined(states)[name], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("world", GRIDS)
@pytest.mark.parametrize("engine", ["", "device "])
def test_workers_measure_the_recall_of_all_of_them(folder, engine, world):
    """Latents in threes that bfloat16 cannot tell apart: whoever has some of the rows counts the codes of all."""
    for parts in GRIDS[world]:
        names = [f"recall-{engine}{world}-{parts}-{place}.safetensors" for place in range(world)]
        found = [load_file(folder / str(world) / name)["recall"].item() for name in names]
        assert len(set(found)) == 1
        if parts == 1:
            assert found[0] == pytest.approx(recall_of_threes(engine, ALONE), abs=0.01)
        assert 0.7 < found[0] < 1


def test_every_latent_is_held_once_and_computed_by_all_that_share_its_rows():
    for parts, columns in ((1, 4), (2, 2), (4, 1)):
        shards = [
            Shard(mesh=Mesh(latents=Share(rank=part, world=parts), rows=Share(rank=row, world=columns)), num_latents=24)
            for part in range(parts)
            for row in range(columns)
        ]
        held = [latent for shard in shards for latent in range(24)[shard.held]]
        assert held == list(range(24))
        for shard in shards:
            assert range(24)[shard.part][shard.held_of_part] == range(24)[shard.held]


def test_what_cannot_be_shared_out_is_named():
    own = dict(sae_workers.first_weights(LATENTS, np.zeros(4), seed=0).named())
    for mesh in (TWO_PARTS, TWO_OF_ROWS):
        with pytest.raises(ConfigError, match="97 latents cannot be shared out equally over 2"):
            Shard(mesh=mesh, num_latents=97)
        with pytest.raises(ConfigError, match="one worker"):
            Relu(own, PowerPenalty(weight=1), LowRank(), mesh=mesh)
    with pytest.raises(ConfigError, match="whole groups"):
        ConCA(own, norm="group", groups=3, mesh=TWO_PARTS)
    with pytest.raises(ConfigError, match="3 workers cannot hold 2 parts"):
        make_mesh(Share(rank=0, world=3), parts=2)
