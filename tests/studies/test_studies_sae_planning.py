"""A plan of training counts what training then holds, and says how workers share it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from planted_stores import write_store
from studies_material import config_of
from typer.testing import CliRunner

from lrh_ray.analyses.sae import preselection, tile_memory
from lrh_ray.analyses.sae.sparse_step import SparseTraining
from lrh_ray.cli import app
from lrh_ray.collective import Share
from lrh_ray.errors import NotEnoughData, SiteError, TooLarge
from lrh_ray.runtime.config import TrainConfig
from lrh_ray.store.reader import open_store
from lrh_ray.studies import sae_planning
from lrh_ray.studies.sae_kind_config import (
    BatchTopKKind,
    GatedKind,
    JumpReluKind,
    ReluKind,
    StructuredKind,
    TopKKind,
)
from lrh_ray.studies.sae_kinds import make_training
from lrh_ray.studies.sae_maps import SiteUnit
from lrh_ray.studies.sae_planning import plan_training
from lrh_ray.studies.sae_training import SaeTask

WIDTH, LATENTS = 32, 512


def noise(_layer, kinds, _marks, rng):
    return rng.standard_normal((len(kinds), WIDTH))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("planned") / "store", 2, noise, num_documents=60, width=WIDTH)


@pytest.fixture
def run(material, root):
    settings = ("name=plan", f"runs={root.parent}", f"store.location={root}", "sae.sites=[resid.1]", "sae.groups=5")
    return config_of(material, *settings)


def of(run, *kinds, workers=1, parts=None, rows=512):
    shared = TrainConfig(workers=workers, cpus=1)
    sae = replace(run.sae, kinds=kinds, latents=LATENTS, workers=shared, latent_parts=parts, batch_rows=rows)
    return replace(run, sae=sae)


@pytest.mark.parametrize("kind", [TopKKind(), ReluKind(), StructuredKind(), GatedKind(), JumpReluKind()])
def test_a_checkpoint_is_as_large_as_planned(run, kind):
    config = of(run, kind)
    training = make_training(kind, config.sae, np.zeros(WIDTH, np.float32), seed=0)
    training.step(np.random.default_rng(0).standard_normal((64, WIDTH), dtype=np.float32), rate=1e-3)
    held = sum(tensor.nbytes for tensor in training.tensors().values())
    assert plan_training(config, timed=False).checkpoint_bytes == pytest.approx(held, rel=0.06)  # counters apart


def test_more_kinds_and_sites_add_up(run):
    one, other = (plan_training(of(run, kind), timed=False) for kind in (TopKKind(), ReluKind()))
    both = plan_training(of(run, TopKKind(), ReluKind()), timed=False)
    assert both.autoencoders == 2
    assert both.flops_per_step == one.flops_per_step + other.flops_per_step
    assert both.memory.weights == one.memory.weights + other.memory.weights
    assert both.memory.moments == one.memory.moments + other.memory.moments


@pytest.mark.parametrize("kind", [TopKKind(), ReluKind()])
def test_parts_of_the_latents_divide_what_a_worker_holds(run, kind):
    alone, four = (plan_training(of(run, kind, workers=n, parts=n), timed=False).memory for n in (1, 4))
    assert four.weights == pytest.approx(alone.weights / 4, rel=0.02)
    assert four.moments == pytest.approx(alone.moments / 4, rel=0.02)
    assert four.codes == alone.codes / 4


@pytest.mark.parametrize("preselect", [None, 2])
def test_trainings_of_a_worker_share_the_memory_that_is_planned_for_tiles(run, preselect, monkeypatch):
    """However many there are; a step, and the recall before it, whose tiles are a quarter of the batch each."""
    monkeypatch.setattr(tile_memory, "TILE_BYTES", 128 * LATENTS * 4)
    for module in (preselection, sae_planning):
        monkeypatch.setattr(module, "ROUGH_TILE_BYTES", 64 * LATENTS * 4)
    several = of(run, TopKKind(k=4), BatchTopKKind(k=4), TopKKind(k=5), ReluKind())
    several = replace(several, sae=replace(several.sae, preselect=preselect, sites=(), steps=1, checkpoints=1))
    plan, one = (plan_training(each, timed=False).memory for each in (several, of(run, TopKKind(k=4))))
    store = open_store(run.store_location)
    units = {site: SiteUnit(centre=np.zeros(WIDTH), scale=1.0) for site in store.sites}
    documents = tuple(store.document_ids)
    task = SaeTask(location=store.location, root=store.root, config=several.sae, units=units, documents=documents)
    learner = task.open(Share(rank=0, world=1))
    learner.step(0)
    assert learner.tiles.nbytes == plan.tiles
    assert one.tiles == 128 * LATENTS * 4
    assert plan.tiles == one.tiles + (0 if preselect is None else 2 * 64 * LATENTS)
    chosen = [each for each in learner._trainings.values() if isinstance(each, SparseTraining)]
    assert len(chosen) == 6
    assert all(each.tiles is learner.tiles for each in chosen)


def test_a_plan_counts_what_a_preselection_copies(run):
    """The encoder of every TopK kind, in 16 bits; a GPU keeps none."""
    kinds, gpus = (TopKKind(k=4), TopKKind(k=5), ReluKind()), TrainConfig(workers=1, gpus=1)

    def weights(preselect, workers):
        changed = replace(of(run, *kinds).sae, preselect=preselect, workers=workers)
        return plan_training(replace(run, sae=changed), timed=False).memory.weights

    alone = TrainConfig(workers=1, cpus=1)
    assert weights(2, alone) - weights(None, alone) == 2 * (2 * LATENTS * WIDTH)
    assert weights(2, gpus) == weights(None, gpus)


def test_the_parts_are_those_that_move_least(run):
    plan = plan_training(of(run, TopKKind(), workers=4), timed=False)
    assert plan.bytes_moved.keys() == {1, 2, 4}
    assert plan.bytes_moved[plan.parts] == min(plan.bytes_moved.values())
    assert plan_training(of(run, TopKKind()), timed=False).bytes_moved == {1: 0.0}


def test_what_does_not_fit_is_refused_before_anything_is_trained(run, monkeypatch):
    monkeypatch.setattr(sae_planning, "total_memory", lambda: 10**6)
    with pytest.raises(TooLarge, match=r"sae\.latents"):
        plan_training(of(run, TopKKind()))


def test_a_site_that_is_not_there_is_named(run):
    with pytest.raises(SiteError, match=r"resid\.7"):
        plan_training(replace(run, sae=replace(run.sae, sites=("resid.7",))))


def test_the_command_tells_the_plan_and_trains_nothing(material, root):
    path = material / "run.yaml"
    arguments = [
        "sae",
        str(path),
        "--plan",
        *(f"--set={one}" for one in (f"runs={root.parent}", "name=plan", "sae.groups=5")),
    ]
    arguments += [
        f"--set=store.location={root}",
        "--set=sae.workers={workers: 2, cpus: 1}",
        "--set=sae.latents=512",
        "--set=sae.groups=5",
    ]
    told = CliRunner().invoke(app, [*arguments, "--json"])
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert found["seconds"] > 0
    assert found["memory"]["total"] > found["memory"]["weights"] > 0
    shown = CliRunner().invoke(app, arguments)
    assert "would send" in shown.stdout
    assert not (root.parent / "plan").exists()


def test_documents_too_few_to_hold_out_are_refused_as_the_run_refuses_them(run):
    with pytest.raises(NotEnoughData, match="Of 60 documents 6 are held out, for 7 groups"):
        plan_training(replace(run, sae=replace(run.sae, groups=7)), timed=False)
