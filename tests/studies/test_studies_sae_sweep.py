"""Widths and seeds are swept in one list of kinds: each is trained as it would be alone, on rows read once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from planted_stores import write_store
from studies_material import config_of

from lrh_ray.artifacts import load_result
from lrh_ray.collective import Share
from lrh_ray.config import parse_config
from lrh_ray.errors import ConfigError
from lrh_ray.runtime.config import TrainConfig
from lrh_ray.store.reader import open_store
from lrh_ray.studies.fitted import open_autoencoder
from lrh_ray.studies.reporting import write_report
from lrh_ray.studies.sae_config import SaeConfig
from lrh_ray.studies.sae_kind_config import BatchTopKKind, ConCAKind, GatedKind, StructuredKind, TopKKind
from lrh_ray.studies.sae_kinds import kind_names
from lrh_ray.studies.sae_map_config import SiteMap
from lrh_ray.studies.sae_planning import plan_training
from lrh_ray.studies.sae_recall_result import recall_measures
from lrh_ray.studies.sae_records import Measured
from lrh_ray.studies.sae_sharing import numbers_moved
from lrh_ray.studies.sae_study import autoencoders
from lrh_ray.studies.sae_training import SaeLearner, SaeTask, SiteUnit

WIDTH = 16
SWEEP = "{kind: topk, k: 4}, {kind: topk, k: 4, latents: 32}, {kind: topk, k: 4, seed: 1}, {kind: relu, latents: 32}"
NAMES = ("topk latents 64 seed 0", "topk latents 32 seed 0", "topk latents 64 seed 1", "relu")
WIDTHS = (64, 32, 64, 32)


def planted(_layer, kinds, _marks, rng):
    return rng.standard_normal((len(kinds), 4)) @ np.eye(4, WIDTH) * 10 + rng.standard_normal((len(kinds), WIDTH)) + 3


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("swept") / "store", 2, planted, num_documents=60, width=WIDTH)


@pytest.fixture(scope="module")
def run(material, root):
    settings = ("sae.latents=64", "sae.steps=30", "sae.batch_rows=64", "sae.groups=5", "sae.sites=[resid.1]")
    workers = "sae.workers={workers: 1, cpus: 1}"
    own = (f"runs={root.parent}", f"store.location={root}", f"sae.kinds=[{SWEEP}]", "sae.shown_latents=3")
    return config_of(material, "name=sweep", *own, *settings, workers)


@pytest.fixture(scope="module")
def folder(run, cluster):
    return autoencoders(run)


def learnt(root, config, steps=4):
    """What a learner holds after some steps, by name."""
    store = open_store(root)
    task = SaeTask(
        location=root,
        root=store.root,
        config=config,
        units={"resid.1": SiteUnit(centre=np.zeros(WIDTH), scale=10.0)},
        documents=tuple(store.document_ids),
    )
    learner: SaeLearner = task.open(Share(rank=0, world=1))
    for step in range(steps):
        learner.step(step)
    return {name: dict(training.tensors()) for (_, name), training in learner._trainings.items()}


@pytest.mark.parametrize("kind", [TopKKind(k=4), BatchTopKKind(k=4), GatedKind(), ConCAKind(), StructuredKind(rank=4)])
def test_among_others_each_is_trained_as_it_is_alone_bit_for_bit(root, run, kind):
    """Width, penalties, first weights and learning rate are its own; a seed of its own leaves the rows as they are."""
    several = replace(run.sae, kinds=(kind, replace(kind, latents=32), replace(kind, seed=5)), rate=None)
    wide, narrow, other = learnt(root, several).values()
    for found, alone in ((wide, {}), (narrow, {"latents": 32})):
        (expected,) = learnt(root, replace(several, kinds=(kind,), **alone)).values()
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=0, atol=0, equal_nan=True, msg=name)
    assert not torch.equal(other["parameter.encoder"], wide["parameter.encoder"])


def test_the_result_has_each_under_its_width_and_seed(run, folder, tmp_path):
    result = load_result(folder)
    assert kind_names(run.sae.settled) == NAMES
    assert [kind["latents"] for kind in result.resolved["kinds"]] == list(WIDTHS)
    for name, latents in zip(NAMES, WIDTHS, strict=True):
        assert result.arrays[f"resid.1/{name}/encoder"].shape == (latents, WIDTH)
        assert open_autoencoder(folder, name=name).num_latents == latents
    (table,) = [table for table in result.tables if table.name == "comparison"]
    assert [row[1] for row in table.rows] == list(NAMES)
    write_report([folder], tmp_path / "page.html", title="sweep")
    assert NAMES[1] in (tmp_path / "page.html").read_text()


def test_plans_and_traffic_add_up(run):
    plan = plan_training(run, timed=False)
    wide = run.sae.kinds[0]
    pairs = [(replace(kind, latents=None, seed=None), kind.latents or 64) for kind in run.sae.kinds]
    alone = [
        plan_training(replace(run, sae=replace(run.sae, kinds=(kind,), latents=latents)), timed=False)
        for kind, latents in pairs
    ]
    assert plan.checkpoint_bytes == sum(one.checkpoint_bytes for one in alone)
    assert plan.flops_per_step == sum(one.flops_per_step for one in alone)
    assert plan.memory.weights == sum(one.memory.weights for one in alone)
    assert plan.memory.codes == max(one.memory.codes for one in alone)
    two = replace(run.sae, workers=TrainConfig(workers=2), kinds=(wide, replace(wide, latents=32)))
    rows = ((SiteMap.of_site("resid.1"),), {"resid.1": WIDTH}, 1)
    assert numbers_moved(two, *rows) == sum(
        numbers_moved(replace(two, kinds=(wide,), latents=latents), *rows) for latents in (64, 32)
    )


def test_candidates_by_chance_are_a_share_of_a_kinds_own_latents():
    kinds = (TopKKind(k=8), TopKKind(k=8, latents=256))
    config = SaeConfig(kinds=kinds, latents=64, preselect=2)
    measured = [object.__new__(Measured) for _ in kinds]  # nothing else of them is read
    for one, kind in zip(measured, config.settled, strict=True):
        vars(one).update(site="resid.1", name=str(kind.latents), kind=kind)
    found = recall_measures({"resid.1": {"site": "resid.1"}}, measured, config, np.array([[0.5], [0.9]]))
    assert [one.controls["random_candidates"] for one in found] == [16 / 64, 16 / 256]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kinds: [{kind: topk, latents: 4096}, {kind: topk}]", "kinds are the same"),
        ("kinds: [{kind: topk, seed: 0}, {kind: topk}]", "kinds are the same"),
        ("kinds: [{kind: topk, k: 8, latents: 4}]", "k is 8: of 4 latents 1 to 4 can be chosen"),
        ("kinds: [{kind: relu, latents: 0}]", "latents of relu must be 1 or more"),
        ("kinds: [{kind: relu, seed: -1}]", "its seed 0 or more"),
        ("{kinds: [{kind: relu, latents: 9}], workers: {workers: 2}}", "latents is 9: 2 workers can share out only"),
        ("kinds: [{kind: conca, norm: group, latents: 22}]", "latents is 22: conca with norm group"),
    ],
)
def test_mistakes_are_named(text, words):
    with pytest.raises(ConfigError, match=words):
        parse_config(text, SaeConfig, source="run.yaml")
