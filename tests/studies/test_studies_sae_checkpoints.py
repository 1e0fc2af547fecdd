"""A checkpoint that a kill has cut short, and that fewer workers wrote again, is theirs alone."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from planted_stores import WIDTH, write_store
from studies_material import config_of

from lrh_ray.artifacts import load_result
from lrh_ray.collective import Share
from lrh_ray.errors import StateConflict
from lrh_ray.store.reader import open_store
from lrh_ray.studies.sae_maps import SiteUnit
from lrh_ray.studies.sae_study import autoencoders
from lrh_ray.studies.sae_training import SaeTask, load_training

LATENTS, STEPS = 32, 6
QUICK = (
    *(f"sae.latents={LATENTS}", f"sae.steps={STEPS}", "sae.batch_rows=64", "sae.groups=5", "sae.checkpoints=1"),
    *("sae.sites=[resid.0]", "sae.kinds=[{kind: topk, k: 4}, {kind: relu}]", "sae.shown_latents=0"),
    "sae.workers={workers: 1, cpus: 1}",
)
KINDS = ("topk", "relu")


def noise(_layer, kinds, _marks, rng):
    return rng.standard_normal((len(kinds), WIDTH))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("killed") / "store", 1, noise)


def asking(material, root, *overrides):
    return config_of(material, "name=killed", f"runs={root.parent}", f"store.location={root}", *QUICK, *overrides)


def write_shares(material, root, folder, world, ranks, seed=0):
    """What the workers of these ranks leave in a checkpoint of `world` workers that share the latents out."""
    config = asking(material, root, f"sae.seed={seed}").sae
    units = {"resid.0": SiteUnit(centre=np.zeros(WIDTH), scale=1.0)}
    task = SaeTask(
        location=root,
        root=open_store(root).root,
        config=config,
        units=units,
        documents=tuple(open_store(root).document_ids),
        parts=world,
    )
    folder.mkdir(parents=True, exist_ok=True)
    for rank in ranks:
        learner = task.open(Share(rank=rank, world=world))
        learner.save_share(folder)
        if rank == 0:
            learner.save(folder)
    return task


def test_shares_of_other_workers_are_not_read(material, root, tmp_path):
    """Four were killed while they wrote; two wrote the same checkpoint again, from weights of their own."""
    write_shares(material, root, tmp_path / "both", 4, (1, 2, 3), seed=1)
    task = write_shares(material, root, tmp_path / "both", 2, (0, 1))
    write_shares(material, root, tmp_path / "two", 2, (0, 1))
    for name in KINDS:
        found, expected = (load_training(tmp_path / place, "resid.0", name, LATENTS) for place in ("both", "two"))
        assert len(found["parameter.encoder"]) == LATENTS
        for key, tensor in expected.items():
            np.testing.assert_array_equal(found[key], tensor, err_msg=key)
    task = replace(task, parts=1)
    again = task.open(Share(rank=0, world=1))
    again.load(tmp_path / "both")


def test_a_share_that_is_missing_is_named(material, root, tmp_path):
    """However many others there are: of four workers, where two wrote the rest."""
    write_shares(material, root, tmp_path, 4, range(4))
    write_shares(material, root, tmp_path, 2, (0,))
    for name in KINDS:
        with pytest.raises(StateConflict, match=r"share 1 of 2"):
            load_training(tmp_path, "resid.0", name, LATENTS)


def test_a_checkpoint_of_other_latents_is_refused_by_whoever_reads_it(material, root, tmp_path):
    write_shares(material, root, tmp_path, 1, (0,))
    with pytest.raises(StateConflict, match=r"parameter.encoder is \(32, 24\), and would be \(64, 24\)"):
        load_training(tmp_path, "resid.0", "topk", 2 * LATENTS)


def test_the_last_checkpoint_is_measured_by_its_own_shares(material, root, tmp_path, cluster):
    """A run of four is killed while it writes the last checkpoint; one worker finishes and measures it."""
    config = asking(material, root)
    whole = load_result(autoencoders(replace(config, runs=str(tmp_path / "whole"))))
    (run,) = (tmp_path / "whole" / config.name / "training").glob("sae-*")
    for step in (0, STEPS):
        folder = tmp_path / "killed" / config.name / "training" / run.name / f"step-{step:08d}"
        write_shares(material, root, folder, 4, (1, 2, 3), seed=1)
        assert {path.name for path in folder.iterdir()} - {path.name for path in (run / folder.name).iterdir()}
    found = load_result(autoencoders(replace(config, runs=str(tmp_path / "killed"))))
    for name, array in whole.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array, err_msg=name)
    shutil.rmtree(tmp_path / "killed")
