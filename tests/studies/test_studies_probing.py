"""The probing study on a real store: what can be read is read, shuffled labels are not, and the solver is exact."""

import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from studies_material import config_of

from lrh_ray.analyses.logistic import LogisticProblem, run_in_memory
from lrh_ray.analyses.moments import LabelledMoments, absolute_penalties
from lrh_ray.artifacts import load_result
from lrh_ray.errors import NotEnoughData, ResultMissing, StoreIncomplete, UnknownName
from lrh_ray.runtime.reduce import reduce_blocks
from lrh_ray.store.objects import absolute
from lrh_ray.store.reader import open_store
from lrh_ray.studies.extraction import extract
from lrh_ray.studies.probe_config import ProbeConfig
from lrh_ray.studies.probe_design import HELD_OUT, TRAIN, VALIDATION, block_labels, make_design
from lrh_ray.studies.probe_passes import MomentsPass, Rowset, training_rows
from lrh_ray.studies.probing import finished, probe
from lrh_ray.studies.reporting import write_report

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def config(material, cluster):
    config = config_of(material, "name=probed")
    extract(config, folder=material)
    return config


@pytest.fixture(scope="module")
def result(config):
    return load_result(probe(config))


@pytest.fixture(scope="module")
def store(config):
    return open_store(config.store_location)


def auc(result, site, concept, kind="logistic"):
    keys = {"site": site, "concept": concept, "probe": kind}
    (found,) = [m for m in result.measures if m.name == "auc" and keys.items() <= m.keys.items()]
    return found


def test_a_document_never_stands_in_two_parts_and_parts_are_even(store):
    design = make_design(store, store.labels(), ProbeConfig())
    by_document = {document: set(design.parts[design.document == document]) for document in np.unique(design.document)}
    assert all(len(parts) == 1 for parts in by_document.values())
    share = {part: np.mean(design.parts == part) for part in (TRAIN, VALIDATION, HELD_OUT)}
    assert abs(share[HELD_OUT] - 0.3) < 0.05
    assert abs(share[VALIDATION] - 0.15) < 0.05
    upper = design.codes[0] == 0
    assert abs(np.mean(upper[design.parts == HELD_OUT]) - 0.5) < 0.05


def test_shuffled_twins_keep_rates_within_each_part(store):
    design = make_design(store, store.labels(), ProbeConfig())
    num = len(design.columns)
    for block in range(store.plan.num_blocks):
        here = block_labels(design, store, store.labels(), block)
        token = [c for c, column in enumerate(design.columns) if column.level == "token"]
        for part in (TRAIN, VALIDATION, HELD_OUT):
            inside = (here.parts == part) & here.members[:, 0]
            true, twin = here.labels[inside][:, token], here.labels[inside][:, [num + c for c in token]]
            np.testing.assert_array_equal(true.sum(0), twin.sum(0))
    for part in (TRAIN, VALIDATION, HELD_OUT):
        own = design.parts == part
        np.testing.assert_array_equal(np.sort(design.codes[0][own]), np.sort(design.shuffled_codes[0][own]))
    assert (design.codes != design.shuffled_codes).any()


def test_what_the_tokens_show_is_read_and_shuffled_labels_are_not(result):
    for concept in ("number", "topic=lower"):
        best = auc(result, "resid.2", concept)
        assert best.value > 0.9
        assert best.low <= best.value <= best.high
        assert best.low > best.controls["null_high"]
        assert best.controls["null_low"] <= best.controls["shuffled"] <= best.controls["null_high"]
    outside = next(m for m in result.measures if m.name == "shuffled_outside_band")
    largest = next(m for m in result.measures if m.name == "largest_null_deviation")
    assert (outside.value == 0) == (largest.value <= largest.controls["critical"])


def test_every_number_has_its_interval_and_controls(result):
    metrics = {"auc": {"shuffled", "null_low", "null_high", "chance"}, "accuracy": {"shuffled", "majority"}}
    metrics["log_loss"] = {"shuffled", "base_rate"}
    judged = [m for m in result.measures if m.name in metrics]
    concepts, sites, probes = 3, 3, {"auc": 3, "accuracy": 3, "log_loss": 2}
    assert len(judged) == concepts * sites * sum(probes.values())
    for measure in judged:
        assert metrics[measure.name] <= set(measure.controls)
        assert measure.flags or (measure.low is not None and measure.low <= measure.high)


def test_null_bands_of_areas_stay_within_zero_and_one(result):
    bands = [m.controls for m in result.measures if m.name == "auc"]
    assert all(0 <= band["null_low"] <= band["null_high"] <= 1 for band in bands)


def test_examples_come_from_the_strongest_concept_on(result):
    (examples,) = [table for table in result.tables if table.name == "examples"]
    shown = list(dict.fromkeys((row[0], row[1]) for row in examples.rows))
    best = [auc(result, site, concept).value for concept, site in shown]
    assert len(shown) == 3
    assert best == sorted(best, reverse=True)


def test_the_same_question_has_one_answer_on_disk(config, result):
    place = probe(config)
    again = load_result(place)
    assert again.measures == result.measures
    other = probe(config_of(config.store_location.parents[2], "name=probed", "probe.seed=1"))
    assert other != place


def test_stored_weights_reproduce_the_numbers(result, store, config):
    design = make_design(store, store.labels(), config.probe)
    weights = result.arrays["resid.2/logistic/weights"]
    intercepts = result.arrays["resid.2/logistic/intercepts"]
    column = next(c for c, column in enumerate(design.columns) if column.name == "number")
    scores, labels = [], []
    for block in range(store.plan.num_blocks):
        here = block_labels(design, store, store.labels(), block)
        keep = (here.parts == HELD_OUT) & here.members[:, 0]
        rows = store.block_rows("resid.2", block)[keep].astype(np.float64)
        scores.append(rows @ weights[column] + intercepts[column])
        labels.append(here.labels[keep, column])
    scores, labels = np.concatenate(scores), np.concatenate(labels)
    positive, negative = scores[labels > 0.5], scores[labels < 0.5]
    expected = (positive[:, None] > negative).mean() + 0.5 * (positive[:, None] == negative).mean()
    assert auc(result, "resid.2", "number").value == pytest.approx(expected, abs=1e-12)


def test_moments_and_solvers_equal_scikit_learn_on_stored_rows(store, config):
    """The distributed pass feeds the solver what scikit-learn sees in memory."""
    design = make_design(store, store.labels(), config.probe)
    rowset = Rowset(location=absolute(store.location), labels="corpus", design=design, digest="test")
    shift = np.zeros(store.plan.site("resid.2").width)
    moments = reduce_blocks(
        range(store.plan.num_blocks), MomentsPass(rowset=rowset, site="resid.2", shift=shift)
    ).finalize()
    penalties = absolute_penalties(moments, [0.1])
    parts = [training_rows(rowset, "resid.2", block) for block in range(store.plan.num_blocks)]
    fit = run_in_memory(LogisticProblem(moments=moments, penalties=penalties), [(p[0], p[2]) for p in parts])
    rows = np.concatenate([part[0] for part in parts]).astype(np.float64)
    labels, members = (np.concatenate([part[k] for part in parts]) for k in (1, 2))
    for c, column in enumerate(design.columns):
        own = members[:, column.population]
        x, y = rows[own], labels[own, c]
        oracle = LogisticRegression(C=1 / (penalties[c, 0] * len(x)), solver="newton-cholesky", tol=1e-10, max_iter=200)
        oracle.fit(x, y)
        ours = fit.readout.scores(x)[:, c]
        np.testing.assert_allclose(1 / (1 + np.exp(-ours)), oracle.predict_proba(x)[:, 1], atol=1e-6)


def test_mistakes_are_named(config, material):
    with pytest.raises(UnknownName, match="Known: in_parentheses, number, topic"):
        probe(config_of(material, "name=probed", "probe.concepts=[colour]"))
    with pytest.raises(NotEnoughData, match="documents"):
        probe(config_of(material, "name=probed", "probe.concepts=[topic]", "probe.min_documents=500"))
    with pytest.raises(ResultMissing, match="lrh fit"):
        write_report([material / "runs" / "nothing"], material / "r.html", title="x")


def test_an_unsealed_store_is_refused(config, material):
    (config.store_location / "manifest.json").rename(material / "manifest.json")
    try:
        with pytest.raises(StoreIncomplete, match="not sealed"):
            probe(config)
    finally:
        (material / "manifest.json").rename(config.store_location / "manifest.json")


def test_the_report_of_a_real_result_stands_alone(result, config, tmp_path):
    size = write_report([config.folder], tmp_path / "report.html", title="Tiny")
    page = (tmp_path / "report.html").read_text()
    assert size < 5_000_000
    assert "http://" not in page.replace("http://www.w3.org", "")
    for word in ("topic=lower", "in_parentheses", "parity", result.inputs["store"]):
        assert word in page
    body = json.loads((probe(config) / "result.json").read_text())
    assert body["result"]["inputs"]["store"] == result.inputs["store"]


def test_rows_that_spoil_a_concept_are_named_with_site_and_concept(store):
    """No store takes them; a caller of the library may have them all the same."""
    design = make_design(store, store.labels(), ProbeConfig())
    here = block_labels(design, store, store.labels(), 0)
    rows = store.block_rows("resid.2", 0).astype(np.float64)
    rows[np.flatnonzero(here.members[:, 1])[0], 0] = np.inf
    shift, labels = np.zeros(rows.shape[1]), here.labels.astype(np.float64)
    with np.errstate(invalid="ignore"):
        spoiled = LabelledMoments.of(rows, shift, labels, here.members, design.populations)
        only = here.members & np.array([False] + [True] * (here.members.shape[1] - 1))
        topic = LabelledMoments.of(rows, shift, labels, only, design.populations)
    with pytest.raises(NotEnoughData, match=r"Site .resid.2.: Population .all rows. holds rows that are not finite"):
        finished("resid.2", spoiled, design)
    with pytest.raises(NotEnoughData, match=r"Site .resid.2.: Population .all rows. has 0 rows"):
        finished("resid.2", topic, design)


def test_what_needs_no_direction_stands_beside_every_area(result, store, config):
    """The token alone is judged on the same held-out rows as the probes."""
    design = make_design(store, store.labels(), config.probe)
    column = next(c for c, column in enumerate(design.columns) if column.name == "number")
    parts = {part: ([], []) for part in (TRAIN, HELD_OUT)}
    for block in range(store.plan.num_blocks):
        here = block_labels(design, store, store.labels(), block)
        for part, (tokens, labels) in parts.items():
            keep = (here.parts == part) & here.members[:, 0]
            tokens.append(here.token_id[keep])
            labels.append(here.labels[keep, column])
    (tokens, labels), (held_tokens, held_labels) = (
        (np.concatenate(tokens), np.concatenate(labels)) for tokens, labels in parts.values()
    )
    rate = labels.mean()
    share = {t: (labels[tokens == t].sum() + rate) / ((tokens == t).sum() + 1) for t in np.unique(tokens)}
    scores = np.array([share.get(token, rate) for token in held_tokens])
    positive, negative = scores[held_labels > 0.5], scores[held_labels < 0.5]
    expected = (positive[:, None] > negative).mean() + 0.5 * (positive[:, None] == negative).mean()
    for site in store.sites:
        controls = auc(result, site, "number").controls
        assert controls["token_only"] == pytest.approx(expected, abs=1e-3)
        assert 0 <= controls["norm_only"] <= 1
        assert 0 <= controls["without_first"] <= 1
    assert "without_first" not in auc(result, "resid.2", "number", kind="ridge").controls
