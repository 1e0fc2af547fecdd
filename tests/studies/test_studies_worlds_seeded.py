"""Kinds of worlds over seeds: one course for all, controls beside every number, and words that the numbers bear out."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from lrh_ray.artifacts import load_result
from lrh_ray.config import parse_config
from lrh_ray.errors import ConfigError
from lrh_ray.records import Measure
from lrh_ray.report.page import render_report
from lrh_ray.studies.agreement_world import agreement_world
from lrh_ray.studies.bound_world import bound_world
from lrh_ray.studies.masked_world import masked_world
from lrh_ray.studies.spheres_world import spheres_world
from lrh_ray.studies.steering_world import steering_world
from lrh_ray.studies.world_config import WorldConfig
from lrh_ray.studies.worlds import over_seeds
from lrh_ray.studies.worlds.readings import LEAD, Reading, above, is_control, lead, measured, pick, shown

WORLDS = {
    "masked": "{kind: masked, bits: [4, 8], edges: [null, 0.5], seeds: 2, steps: 20, hidden: 32, rows: 2000}",
    "spheres": "{kind: spheres, concentrations: [5, 20], dim: 3, classes: 20, label_vectors: unit, seeds: 2, steps: 9}",
    "agreement": "{kind: agreement, noises: [0.3, 0.03], seeds: 2, steps: 20, contexts: 200}",
    "steering": "{kind: steering, noises: [0.3, 0.03], seeds: 2, steps: 20, contexts: 400}",
    "bound": "{kind: bound, noises: [0.3, 0.03], seeds: 2, steps: 20, contexts: 1200}",
}
STUDIES = {
    "masked": masked_world,
    "spheres": spheres_world,
    "agreement": agreement_world,
    "steering": steering_world,
    "bound": bound_world,
}
PRIMARY = {
    # the number a kind is about: who is read, what it must be held against, and at how many places
    "masked": ("accuracy", {"ceiling", "majority", "untrained weights", "input bits"}, 2 * 2),
    "spheres": ("points_from_the_features", {"permuted classes", "untrained weights", "input"}, 2 * 2),
    "agreement": ("agreement", {"untrained weights", "another world", "shuffled rows"}, 2 * 4),
    "steering": ("slope", {"perfect model", "chance, 95 % point", "null_low", "null_high"}, 2 * 4),
    "bound": ("probe_and_truth", {"ceiling", "untrained weights", "input bits", "shuffled labels"}, 2 * 4),
}
LEADS = {"spheres": 2 * 2, "agreement": 2 * 4, "steering": 2 * 4, "bound": 2 * 4}


def config_of(kind, folder):
    return parse_config(f"name: {kind}\nruns: {folder}\nworld: {WORLDS[kind]}\n", WorldConfig, source="x.yaml")


@pytest.fixture(scope="module")
def answers(cluster, tmp_path_factory):
    """A tiny result of every kind, made once: (configuration, folder, result) by kind."""
    found = {}
    for kind, study in STUDIES.items():
        config = config_of(kind, tmp_path_factory.mktemp(kind))
        folder = study(config)
        found[kind] = config, folder, load_result(folder)
    return found


@pytest.mark.parametrize("kind", STUDIES)
def test_a_question_that_was_answered_is_not_asked_again(kind, answers, monkeypatch):
    config, folder, _ = answers[kind]
    monkeypatch.setattr("lrh_ray.studies.worlds.trials._at_every", None)  # whoever begins a trial fails
    assert STUDIES[kind](config) == folder


@pytest.mark.parametrize("kind", STUDIES)
def test_every_number_has_an_interval_and_the_first_its_controls(kind, answers):
    _, _, result = answers[kind]
    for measure in result.measures:
        assert measure.low <= measure.value <= measure.high, measure
        assert measure.flags == () or "ICA" in measure.flags[0]
    name, controls, places = PRIMARY[kind]
    own = [one for one in pick(result.measures, name) if not is_control(one)]
    assert result.measures[0] in own
    assert len(own) == places
    assert all(controls <= one.controls.keys() for one in own)
    for one in own:  # a control's own measure says the same as the number beside
        here = {key: value for key, value in one.keys.items() if key != "reader"}
        for rival in pick(result.measures, name, **here):
            if is_control(rival):
                assert one.controls[rival.keys["control"]] == rival.value


@pytest.mark.parametrize("kind", LEADS)
def test_a_lead_is_over_the_best_control_within_a_seed(kind, answers):
    """So its mean is at most the difference of means: the best of several controls is another one in each seed."""
    _, _, result = answers[kind]
    leads = pick(result.measures, LEAD)
    assert len(leads) == LEADS[kind]
    for one in leads:
        (own,) = [other for other in pick(result.measures, PRIMARY[kind][0], **one.keys) if not is_control(other)]
        rivals = {name for name in own.controls if name not in {"perfect model", "ceiling", "null_low", "null_high"}}
        assert one.value <= own.value - max(own.controls[name] for name in rivals) + 1e-12


@pytest.mark.parametrize("kind", STUDIES)
def test_the_page_draws_a_curve_with_controls(kind, answers):
    _, _, result = answers[kind]
    page = render_report([result], title="x")
    assert page.count('class="panel"') >= 2
    assert 'class="band c0"' in page
    assert "control" in page
    assert all(line for line in result.summary)


@pytest.mark.parametrize("kind", STUDIES)
def test_a_study_refuses_the_world_of_another(kind, tmp_path):
    other = next(name for name in STUDIES if name != kind)
    with pytest.raises(ConfigError, match=f"world.kind is '{other}'; this study wants '{kind}'"):
        STUDIES[kind](config_of(other, tmp_path))


@pytest.mark.parametrize(
    ("world", "told"),
    [
        ("{kind: masked, bits: [4, 25]}", "from 2 to 24, which 3 concepts have"),
        ("{kind: masked, bits: [4, 4]}", "bits must be different"),
        ("{kind: masked, edges: [null, 2]}", "from 0 to 1, at which 3 concepts are all connected"),
        ("{kind: masked, edges: [ring]}", "valid number"),
        ("{kind: spheres, labels: [permuted]}", "name class or instance"),
        ("{kind: spheres, concentrations: [0]}", "concentrations must be different numbers above 0"),
        ("{kind: spheres, concentrations: [.inf]}", "concentrations must be different numbers above 0"),
        ("{kind: spheres, dim: 1}", "dim and classes must be 2 or more"),
        ("{kind: agreement, noises: [0.3, 1]}", "noises must be different and lie between 0 and 1"),
        ("{kind: steering, noises: []}", "noises must be different and lie between 0 and 1"),
        ("{kind: steering, contexts: 50}", "contexts must be 200 or more"),
        ("{kind: masked, rows: 10}", "rows must be 1000 or more"),
        ("{kind: steering, seeds: 0}", "seeds and steps must be 1 or more"),
        ("{kind: agreement, sed: 1}", "did you mean 'seeds'"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_message(world, told):
    with pytest.raises(ConfigError, match=told) as refused:
        parse_config(f"name: x\nworld: {world}\n", WorldConfig, source="x.yaml")
    assert len(str(refused.value).splitlines()) == 1


def test_worlds_of_fewer_seeds_are_among_those_of_more(cluster, tmp_path, answers):
    """What a seed gives does not depend on which others are asked for."""
    _, _, both = answers["masked"]
    config = config_of("masked", tmp_path)
    alone = load_result(masked_world(replace(config, world=replace(config.world, seeds=1))))
    rows = [row for row in both.tables[0].rows if row[2] == 0]
    assert list(alone.tables[0].rows) == rows
    assert all(measure.low is None and "one seed: no interval" in measure.flags for measure in alone.measures)
    assert "It is not shown" in " ".join(alone.summary)


def test_accuracies_keep_to_what_is_possible(answers):
    """The ceiling is exact, so a probe surpasses it by no more than the mean of 1,000 rows is off by chance."""
    _, _, result = answers["masked"]
    for row in result.tables[0].rows:
        _, _, _, features, ceiling, untrained, bits, majority = row
        assert max(features, untrained, bits) <= ceiling + 0.05
        assert majority <= ceiling
    rises = pick(result.measures, "rise")
    assert {measure.keys["bits"] for measure in rises} == {8}
    assert all(measure.controls["ceiling"] >= 0 for measure in rises)


def test_a_dose_asks_in_its_own_direction(answers):
    _, _, result = answers["steering"]
    for asked in pick(result.measures, "change_of_log_odds", control="edited world"):
        assert np.sign(asked.value) == np.sign(asked.keys["dose"])
    slopes = [one for one in pick(result.measures, "slope") if not is_control(one)]
    for slope in slopes:
        assert slope.controls["null_high"] == slope.controls["chance, 95 % point"]


@dataclass(frozen=True)
class Toy:
    place: str
    seed: int
    size: float
    rival: float


TOYS = [Toy("a", 0, 1.0, 0.5), Toy("a", 1, 3.0, 0.7), Toy("b", 0, 5.0, 4.0), Toy("a", 2, 2.0, 0.9)]
READINGS = [
    Reading(name="size", value=lambda toy: toy.size, keys={"reader": "own"}, beside={"ceiling": lambda toy: 9.0}),
    Reading(name="size", value=lambda toy: toy.rival, keys={"control": "rival"}),
    Reading(name="gain", value=lambda toy: toy.size - toy.rival),
]


def test_a_measure_is_a_mean_over_seeds_with_its_controls_beside():
    found = measured(TOYS, lambda toy: {"place": toy.place}, READINGS)
    assert [(one.name, one.keys["place"]) for one in found] == [
        ("size", "a"),
        ("size", "b"),
        ("size", "a"),
        ("size", "b"),
        ("gain", "a"),
        ("gain", "b"),
    ]
    own, rival, gain = found[0], found[2], found[4]
    assert {"mean": own.value, "low": own.low, "high": own.high} == over_seeds([1.0, 3.0, 2.0])
    assert own.controls == {"ceiling": 9.0, "rival": rival.value}
    assert rival.controls == {}
    assert gain.controls == {}
    assert (found[1].low, found[1].flags) == (None, ("one seed: no interval",))
    assert above(own, rival) is (own.low > rival.high)
    assert not above(found[1], rival)


def test_a_lead_is_what_is_left_above_the_best_rival():
    other = replace(READINGS[1], value=lambda toy: 2.0)
    (found, _) = measured(TOYS, lambda toy: {"place": toy.place}, [lead(READINGS[0], [READINGS[1], other])])
    assert found.value == pytest.approx(np.mean([1.0 - 2.0, 3.0 - 2.0, 2.0 - 2.0]))


@pytest.mark.parametrize("order", [(3, 1, 0, 2), (1, 0, 3, 2)])
def test_the_order_of_seeds_does_not_matter(order):
    def place(toy):
        return {"place": toy.place}

    for one, other in zip(
        measured(TOYS, place, READINGS), measured([TOYS[i] for i in order], place, READINGS), strict=True
    ):
        assert one.keys == other.keys
        assert other.value == pytest.approx(one.value, abs=1e-12)
        assert other.low == pytest.approx(one.low, abs=1e-12)
        assert other.controls == pytest.approx(one.controls)


def test_a_claim_is_made_only_where_it_holds():
    assert shown("it works", {"here": True, "there": True}) == "It works: here; there."
    assert shown("it works", {"here": True, "there": False}) == "It works: here. It is not shown that it works: there."
    assert shown("it works", {"here": False}) == "It is not shown that it works: here."


def test_a_number_without_an_interval_is_above_nothing():
    one = Measure(name="x", value=1.0, unit="", keys={})
    other = replace(one, value=0.0, low=-0.1, high=0.1)
    assert not above(one, other)
    assert not above(replace(other, low=5.0), one)
    assert above(replace(one, low=0.5, high=1.5), other)
