"""Networks beside the linear probes of a study: same rows, same judgement, and a gap with its own interval."""

from dataclasses import replace

import numpy as np
import pytest
from pretended_device import pretended
from studies_material import config_of

from lrh_ray.artifacts import load_result
from lrh_ray.collective import Share
from lrh_ray.digests import digest_json
from lrh_ray.runtime.config import TrainConfig
from lrh_ray.runtime.reduce import reduce_blocks
from lrh_ray.store.objects import absolute
from lrh_ray.store.reader import open_store
from lrh_ray.studies.extraction import extract
from lrh_ray.studies.mlp_config import MlpConfig
from lrh_ray.studies.mlp_probes import MlpTask, SiteScale, labels_of
from lrh_ray.studies.probe_config import ProbeConfig
from lrh_ray.studies.probe_design import HELD_OUT, TRAIN, VALIDATION, make_design
from lrh_ray.studies.probe_passes import CountPass, MomentsPass, Rowset, training_rows
from lrh_ray.studies.probing import finished, probe
from lrh_ray.studies.reporting import write_report

pytestmark = pytest.mark.usefixtures("cluster")
MLP = MlpConfig(hidden=(16,), steps=120, batch_rows=128, rate=1e-2, candidates=3, workers=TrainConfig(workers=2))


@pytest.fixture(scope="module")
def config(material, cluster):
    config = config_of(material, "name=networks")
    extract(config, folder=material)
    return replace(config, probe=replace(config.probe, mlp=MLP, control_tasks=True))


@pytest.fixture(scope="module")
def rowset(config):
    store = open_store(config.store_location)
    design = make_design(store, store.labels(), ProbeConfig())
    return Rowset(location=absolute(store.location), labels="corpus", design=design, digest=digest_json("mlp"))


@pytest.fixture(scope="module")
def task(rowset):
    scales = {}
    for site in ("resid.2", "final_norm"):
        width = rowset.store.plan.site(site).width
        state = reduce_blocks(
            range(rowset.store.plan.num_blocks), MomentsPass(rowset=rowset, site=site, shift=np.zeros(width))
        )
        scales[site] = SiteScale.of(finished(site, state, rowset.design))
    return MlpTask(rowset=rowset, config=MLP, scales=scales)


def test_labels_of_rows_in_any_order_are_those_of_their_blocks(rowset):
    index = np.concatenate([rowset.block(block).index for block in range(rowset.store.plan.num_blocks)])
    shuffled = np.random.default_rng(0).permutation(index)
    labels, members = labels_of(rowset, shuffled)
    order = np.argsort(shuffled)
    blocks = [rowset.block(block) for block in range(rowset.store.plan.num_blocks)]
    np.testing.assert_array_equal(labels[order], np.concatenate([here.labels for here in blocks]))
    expected = np.concatenate([here.members[:, rowset.design.populations] for here in blocks])
    np.testing.assert_array_equal(members[order], expected)


def test_networks_see_training_documents_only(task):
    learner = task.open(Share(rank=0, world=1))
    seen = np.concatenate([next(learner._batches).index for _ in range(12)])
    training = np.concatenate(
        [
            task.rowset.block(block).index[task.rowset.block(block).parts == TRAIN]
            for block in range(task.rowset.store.plan.num_blocks)
        ]
    )
    assert set(seen.tolist()) <= set(training.tolist())
    rows = sum(
        len(training_rows(task.rowset, "resid.2", block)[0]) for block in range(task.rowset.store.plan.num_blocks)
    )
    assert len(training) == rows


def test_a_learner_goes_on_from_its_place_to_the_same_bits(task, tmp_path):
    undisturbed, stopped = (task.open(Share(rank=0, world=1)) for _ in range(2))
    for step in range(30):
        expected = undisturbed.step(step)
        if step < 17:
            stopped.step(step)
    stopped.save(tmp_path)
    resumed = task.open(Share(rank=0, world=1))
    resumed.load(tmp_path)
    for step in range(17, 30):
        found = resumed.step(step)
    assert found == expected


def test_a_learner_makes_the_same_steps_on_a_device(task, tmp_path):
    """Nothing of the CPU gets among its tensors, and its files are those of a CPU."""
    here = task.open(Share(rank=0, world=1))
    expected = [here.step(step) for step in range(6)]
    with pretended() as device:
        there = task.open(Share(rank=0, world=1), device)
        assert [there.step(step) for step in range(3)] == expected[:3]
        there.save(tmp_path)
        resumed = task.open(Share(rank=0, world=1), device)
        resumed.load(tmp_path)
        assert [resumed.step(step) for step in range(3, 6)] == expected[3:]
    back = task.open(Share(rank=0, world=1))
    back.load(tmp_path)
    assert [back.step(step) for step in range(3, 6)] == expected[3:]


def test_networks_are_judged_as_the_linear_probes_are(config, tmp_path):
    folder = probe(config)
    result = load_result(folder)
    auc = {
        (m.keys["site"], m.keys["concept"], m.keys["probe"]): m
        for m in result.measures
        if m.name == "auc" and m.keys["probe"] in ("mlp", "logistic")
    }
    gains = {(m.keys["site"], m.keys["concept"]): m for m in result.measures if m.name == "auc_gain"}
    assert len(gains) == len(auc) / 2
    for (site, concept), gain in gains.items():
        network, linear = auc[site, concept, "mlp"], auc[site, concept, "logistic"]
        assert gain.value == pytest.approx(network.value - linear.value)
        if gain.low is None:  # both are perfect in every draw
            assert gain.flags
            continue
        assert gain.low <= gain.value <= gain.high
        assert abs(network.controls["shuffled"] - 0.5) < 0.25
        assert {"shuffled", "control_task", "simultaneous_low"} <= gain.controls.keys()
    selective = [m for m in result.measures if m.name == "selectivity"]
    assert {m.keys["probe"] for m in selective} == {"logistic", "lda", "ridge", "mlp"}
    accuracy = {tuple(m.keys.values()): m.value for m in result.measures if m.name == "accuracy"}
    for measure in selective:
        told = accuracy[tuple(measure.keys.values())] - measure.controls["control_accuracy"]
        assert measure.value == pytest.approx(told)
    assert any(gain.low is not None for gain in gains.values())
    assert auc["resid.2", "topic=lower", "mlp"].value > 0.9
    assert result.arrays["resid.2/mlp/weights.0"].shape[-1] == 16
    assert any("Linearly or not" in line for line in result.summary)
    write_report([folder], tmp_path / "page.html", title="networks")
    assert "AUC gain" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_control_task_gives_every_token_type_one_class_and_both_occur_everywhere(rowset):
    """Also for a concept that is rarer than any token type."""
    num, blocks = len(rowset.design.columns), range(rowset.store.plan.num_blocks)
    counted = reduce_blocks(blocks, CountPass(rowset=rowset))
    rare = replace(counted, positives=np.zeros_like(counted.positives))
    for rates in (counted.rates, rare.rates):
        design = replace(rowset.design, rates=rates)
        tasked = replace(rowset, design=design, digest=digest_json(rates.tolist()))
        here = [tasked.block(block) for block in blocks]
        labels, members, parts = (
            np.concatenate([getattr(one, name) for one in here]) for name in ("labels", "members", "parts")
        )
        tokens = np.concatenate([rowset.store.keys(block).token_id for block in blocks])
        assert labels.shape[1] == len(design.names) == 3 * num
        for c, column in enumerate(design.columns):
            own = members[:, column.population]
            classes = {
                (int(token), int(label)) for token, label in zip(tokens[own], labels[own, 2 * num + c], strict=True)
            }
            assert len(classes) == len({token for token, _ in classes})
            for part in (TRAIN, VALIDATION, HELD_OUT):
                assert len(np.unique(labels[own & (parts == part), 2 * num + c])) == 2
