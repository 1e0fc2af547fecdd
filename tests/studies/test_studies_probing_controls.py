"""What a probe is read against: the untrained twin, discovery rates, calibration, codelengths; and what it costs."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import false_discovery_control
from studies_material import config_of

from lrh_ray.analyses.codelength import CodeState, codelength
from lrh_ray.analyses.multinomial import MultinomialProblem, run_in_memory
from lrh_ray.analyses.portions import PortionMoments
from lrh_ray.artifacts import load_result
from lrh_ray.errors import NotEnoughData, TooLarge
from lrh_ray.runtime.reduce import reduce_blocks
from lrh_ray.store.objects import absolute
from lrh_ray.store.reader import open_store
from lrh_ray.studies import passes
from lrh_ray.studies.extraction import extract
from lrh_ray.studies.probe_classes import class_places
from lrh_ray.studies.probe_code import GROUPS, CodePass, GroupedCode, LinearCode, PortionPass, Sender, portions_of
from lrh_ray.studies.probe_config import SHRINKAGES, ProbeConfig
from lrh_ray.studies.probe_design import TRAIN, make_design
from lrh_ray.studies.probe_passes import MomentsPass, Rowset, training_rows
from lrh_ray.studies.probing import finished, probe
from lrh_ray.studies.twins import extract_twin

pytestmark = pytest.mark.usefixtures("cluster")
CASES = {"upper": str.upper, "lower": str.lower, "title": str.title}


@pytest.fixture(scope="module")
def config(material, cluster):
    """Documents of three kinds, and a twin beside the store."""
    rng, words = np.random.default_rng(1), (material / "corpus.jsonl").read_text().split()
    plain = [word for word in words if word.isalpha()][:400]
    with (material / "cases.jsonl").open("w") as file:
        for i in range(120):
            case = list(CASES)[i % 3]
            text = CASES[case](" ".join(rng.choice([*plain, *["12", "345"] * 30], size=rng.integers(8, 20))))
            file.write(json.dumps({"id": f"d{i}", "text": text, "labels": {"case": case}}) + "\n")
    source = f"text.sources=[{{kind: jsonl, path: {material / 'cases.jsonl'}}}]"
    config = config_of(
        material, "name=cases", source, "text.concepts=[number]", "probe.codelength=true", "probe.multinomial=true"
    )
    extract(config, folder=material)
    extract_twin(config, folder=material)
    return config


@pytest.fixture(scope="module")
def result(config):
    return load_result(probe(config))


@pytest.fixture(scope="module")
def store(config):
    return open_store(config.store_location)


@pytest.fixture(scope="module")
def rowset(store, config):
    design = make_design(store, store.labels(), config.probe)
    return Rowset(location=absolute(store.location), labels="corpus", design=design, digest="controls")


def of_name(result, name, **keys):
    return [m for m in result.measures if m.name == name and keys.items() <= m.keys.items()]


def test_what_training_adds_is_the_area_less_that_of_the_twin(result, store, config):
    gains = of_name(result, "auc_over_untrained")
    assert len(gains) == 3 * 3 * 4  # kinds of probe, sites, columns
    for gain in gains:
        (own,) = of_name(result, "auc", **gain.keys)
        assert gain.value == pytest.approx(own.value - gain.controls["untrained"], abs=1e-12)
        assert own.controls["untrained"] == gain.controls["untrained"]
        assert gain.flags or gain.low <= gain.value <= gain.high
    twin = open_store(f"{config.folder}-twin")
    assert result.inputs == {"store": store.root, "labels": store.labels().digest, "untrained": twin.root}


def test_without_a_twin_the_page_says_so_and_the_question_is_another(config, result):
    alone = load_result(probe(replace(config, twin=replace(config.twin, weights="random(5)"))))
    assert not of_name(alone, "auc_over_untrained")
    assert any("No untrained twin" in line for line in alone.summary)
    assert any("What training adds" in line for line in result.summary)


def test_discovery_rates_are_those_of_all_areas_together(result):
    found = of_name(result, "auc")
    rates = np.array([measure.controls["fdr"] for measure in found])
    assert ((rates > 0) & (rates <= 1)).all()
    best = max(found, key=lambda measure: measure.value)
    assert best.controls["fdr"] == rates.min() <= 0.05
    assert false_discovery_control(rates).max() <= 1  # they are p values still
    (line,) = [line for line in result.summary if "false discovery rate of 5 %" in line]
    logistic = [measure.controls["fdr"] <= 0.05 for measure in of_name(result, "auc", probe="logistic")]
    assert f"reads {sum(logistic)} of {len(logistic)} pairs" in line


def test_calibration_errors_stand_beside_what_a_calibrated_probe_would_have(result):
    found = of_name(result, "calibration_error")
    assert {measure.keys["probe"] for measure in found} == {"logistic", "lda"}
    for measure in found:
        controls = measure.controls
        assert 0 <= controls["calibrated"] <= controls["calibrated_95"] <= 1
        assert {"after_platt", "reliability", "resolution"} <= set(controls)
        assert (controls["fdr"] <= 0.05) <= (measure.value > controls["calibrated"])
    lda = [measure.value for measure in found if measure.keys["probe"] == "lda"]
    logistic = [measure.value for measure in found if measure.keys["probe"] == "logistic"]
    assert np.mean(logistic) < np.mean(lda) + 0.05  # logistic regression is fitted to probabilities


def test_labels_that_rows_tell_take_fewer_bits_and_shuffled_ones_do_not(result):
    for site in ("resid.2", "final_norm"):
        (number,) = of_name(result, "compression", site=site, concept="number")
        assert number.value > number.controls["base_rate"]
        assert number.low <= number.value <= number.high
        assert number.controls["shuffled"] < number.controls["base_rate"] * 1.02
        (upper,) = of_name(result, "compression", site=site, concept="case=upper")
        assert upper.value > upper.controls["base_rate"]
        assert upper.value > upper.controls["shuffled"]


def test_the_code_of_all_groups_is_that_of_the_library_in_one_piece(rowset, store):
    design, blocks = rowset.design, range(store.plan.num_blocks)
    portion, num = portions_of(design)
    sender = Sender(rowset=rowset, site="resid.2", portion=portion, num_portions=num)
    shift = np.zeros(store.plan.site("resid.2").width)
    moments = reduce_blocks(blocks, PortionPass(sender=sender, shift=shift))
    readouts = moments.readouts(LinearCode(shrinkages=SHRINKAGES))
    grouped = reduce_blocks(blocks, CodePass(sender=sender, readouts=readouts))
    rows, labels, members, portions = (
        np.concatenate([sender.rows(block)[part] for block in blocks]) for part in range(4)
    )
    whole = PortionMoments.of(rows, shift, labels, members, design.populations, portions, num)
    code = CodeState.of(rows, labels, members, design.populations, portions, readouts)
    expected, actual = codelength(whole, code), grouped.of(np.arange(GROUPS))
    np.testing.assert_allclose(actual.mixture, expected.mixture, rtol=1e-9)
    np.testing.assert_allclose(actual.uniform, expected.uniform, rtol=1e-12)
    half = GroupedCode(columns=grouped.columns, bits=grouped.bits / 2, counts=grouped.counts / 2)
    np.testing.assert_allclose(half.merge(half).bits, grouped.bits)
    assert (portion[design.document[design.parts != TRAIN]] == 0).all()


def test_too_few_documents_for_a_code_are_told_with_the_remedy(rowset):
    few = np.where(np.arange(len(rowset.design.parts)) < 2, TRAIN, 2).astype(np.int8)
    with pytest.raises(NotEnoughData, match=r"2 training documents .* probe.codelength"):
        portions_of(replace(rowset.design, parts=few))


def test_concepts_of_several_classes_are_solved_in_the_same_passes(rowset, store, result):
    design = rowset.design
    true, shuffled = class_places(design)
    assert (true.concept, shuffled.shuffled, len(true.columns)) == ("case", True, 3)
    shift, blocks = np.zeros(store.plan.site("resid.2").width), range(store.plan.num_blocks)
    moments = finished(
        "resid.2", reduce_blocks(blocks, MomentsPass(rowset=rowset, site="resid.2", shift=shift)), design
    )
    penalties = 0.1 * np.trace(moments.covariance[design.populations[true.columns[0]]]) / len(shift)
    problem = MultinomialProblem(
        moments=moments, columns=np.array(true.columns), penalties=np.array([penalties]), name="case"
    )
    fit = run_in_memory(problem, [training_rows(rowset, "resid.2", block)[::2] for block in blocks], tolerance=1e-8)
    assert fit.converged.all()
    for kind in ("multinomial", "lda, all classes"):
        (found,) = of_name(result, "accuracy", site="resid.2", probe=kind)
        assert found.low > found.controls["majority"]
        assert found.controls["shuffled"] < found.value
    (table,) = [table for table in result.tables if table.name == "passes"]
    taken = {row[0]: row[2] for row in table.rows}
    assert taken["logistic regression"] < 150  # of both models, binary and multinomial together


def test_passes_are_planned_before_a_row_is_read_and_the_plan_is_right(result):
    (table,) = [table for table in result.tables if table.name == "passes"]
    for name, most, taken, gigabytes, gigaflops, planned, found, seconds in table.rows:
        assert 0 < taken <= most, name
        assert planned == pytest.approx(found, rel=1e-9), name
        assert gigabytes > 0, name
        assert gigaflops > 0, name
        assert seconds > 0, name
    moments = table.rows[0]
    assert (moments[0], moments[1], moments[2]) == ("moments", 6, 6)


def test_sums_that_no_worker_can_hold_are_refused_before_a_row_is_read(config, monkeypatch):
    monkeypatch.setattr(passes, "total_memory", lambda: 1000)
    with pytest.raises(TooLarge, match=r"this machine has 0.0 GB. To need less, probe fewer concepts"):
        probe(replace(config, probe=ProbeConfig(seed=7)))
