"""Trials in worlds: the same numbers wherever they run, and intervals that mean something."""

import numpy as np
import pytest
from scipy import stats

from lrh_ray.analyses.worlds.direct import direct_trial
from lrh_ray.analyses.worlds.learning import Recipe
from lrh_ray.analyses.worlds.masked import MaskedRecipe
from lrh_ray.analyses.worlds.phase import phase_point
from lrh_ray.analyses.worlds.sphere_learning import SphereRecipe
from lrh_ray.artifacts import load_result
from lrh_ray.config import parse_config
from lrh_ray.errors import ConfigError
from lrh_ray.studies.language_world import language_world
from lrh_ray.studies.phase_world import phase_world
from lrh_ray.studies.theorem_world import theorem_world
from lrh_ray.studies.world_config import WorldConfig
from lrh_ray.studies.worlds import (
    agreement_test,
    direct_test,
    masked_test,
    over_seeds,
    phase_places,
    phase_test,
    sphere_test,
    steering_test,
    summarise,
    tabulate,
    width_test,
)
from lrh_ray.studies.worlds.readings import pick

QUICK = Recipe(steps=30, rows=4000, test_rows=2000)


@pytest.fixture(scope="module")
def trials(cluster):
    return direct_test((0.3, 0.03), seeds=2, recipe=QUICK)


def test_a_trial_is_the_same_on_a_worker(trials):
    assert [(trial.noise, trial.seed) for trial in trials] == [(0.3, 0), (0.3, 1), (0.03, 0), (0.03, 1)]
    here = direct_trial(noise=0.03, seed=1, recipe=QUICK)
    assert trials[3].population == here.population
    assert trials[3].trained.features == pytest.approx(here.trained.features, abs=1e-4)  # other numbers of threads


def test_the_summary_has_a_row_for_each_noise(trials):
    rows = summarise(trials)
    assert [row["noise"] for row in rows] == [0.3, 0.03]
    assert rows[0]["seeds"] == 2
    assert rows[0]["population"]["mean"] < rows[1]["population"]["mean"]
    assert set(rows[0]["controls"]) == {"untrained weights", "input bits", "permuted next tokens", "shuffled rows"}


def test_an_interval_over_seeds_is_students():
    values = [0.1, 0.4, 0.2, 0.35]
    found = over_seeds(values)
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert (found["low"], found["high"]) == (pytest.approx(low), pytest.approx(high))
    assert over_seeds([0.5]) == {"mean": 0.5, "low": None, "high": None}


def test_masked_trials_cover_bits_and_seeds_on_chains_and_random_graphs(cluster):
    quick = MaskedRecipe(steps=20, rows=600, hidden=32)
    trials = masked_test([4, 8], seeds=2, recipe=quick)
    assert [(trial.num_bits, trial.seed) for trial in trials] == [(4, 0), (4, 1), (8, 0), (8, 1)]
    assert trials[2].ceiling >= trials[0].ceiling
    (graph,) = masked_test([12], seeds=1, num_concepts=4, edges_per_concept=2, recipe=quick)
    assert graph.ceiling >= graph.raw - 0.05


def test_a_table_has_a_row_for_each_place_and_a_mean_for_each_number():
    trials = [("a", 1.0), ("b", 5.0), ("a", 3.0)]
    rows = tabulate(trials, lambda trial: {"place": trial[0]}, lambda trial: {"size": trial[1]})
    assert [(row["place"], row["seeds"], row["size"]["mean"]) for row in rows] == [("a", 2, 2.0), ("b", 1, 5.0)]
    assert rows[0]["size"] == over_seeds([1.0, 3.0])


def test_two_runs_and_steering_have_a_trial_for_each_noise_and_seed(cluster):
    quick = Recipe(steps=5, rows=600, test_rows=400)
    agreed = agreement_test((0.3, 0.03), seeds=2, recipe=quick)
    steered = steering_test((0.3, 0.03), seeds=2, recipe=quick)
    places = [(0.3, 0), (0.3, 1), (0.03, 0), (0.03, 1)]
    assert [(trial.noise, trial.seed) for trial in agreed] == places
    assert [(trial.noise, trial.seed) for trial in steered] == places


def test_the_phase_diagram_is_a_grid_and_the_same_on_a_worker(cluster):
    places = phase_places("telling", (0.5, 1.0), (0.3, 0.01))
    assert [(place.sharpness, place.next_sharpness) for place in places] == [
        (0.5, 0.3),
        (0.5, 0.01),
        (1.0, 0.3),
        (1.0, 0.01),
    ]
    points = phase_test(places, seeds=2)
    assert [(point.place, point.seed) for point in points] == [(place, seed) for place in places for seed in range(2)]
    here = phase_point(places[3], 1)
    assert points[7].regime.r_squared == pytest.approx(here.regime.r_squared, abs=1e-12)
    assert points[7].marginal == pytest.approx(here.marginal, abs=1e-12)


def test_widths_and_concentrations_have_their_trials(cluster):
    widths = width_test((2, 7), noise=0.03, seeds=1, recipe=QUICK)
    assert [(trial.features, trial.seed) for trial in widths] == [(2, 0), (7, 0)]
    assert widths[0].ceiling < widths[1].ceiling
    quick = SphereRecipe(hidden=16, layers=1, batch=64, steps=20)
    spheres = sphere_test((10.0, 50.0), seeds=2, dim=3, num_classes=20, recipe=quick)
    assert [(trial.concentration, trial.seed) for trial in spheres] == [(10.0, 0), (10.0, 1), (50.0, 0), (50.0, 1)]


def test_the_theorem_as_a_study(tmp_path, cluster):
    text = f"name: small\nruns: {tmp_path}\nworld: {{kind: theorem, noises: [0.3, 0.05], seeds: 2, steps: 300}}\n"
    config = parse_config(text, WorldConfig, source="small.yaml")
    path = theorem_world(config)
    assert theorem_world(config) == path
    result = load_result(path)
    (features,) = pick(result.measures, "posterior_from_the_features", noise=0.05, reader="trained model")
    assert set(features.controls) == {"untrained weights", "input bits", "permuted next tokens", "shuffled rows"}
    assert features.value > max(features.controls.values())
    assert features.low < features.value < features.high
    (logits,) = pick(result.measures, "logits_from_the_posterior", noise=0.05)
    assert logits.controls["ceiling"] > 0.9
    worlds = next(table for table in result.tables if table.name == "worlds")
    assert all(row[worlds.columns.index("identity error")] < 1e-9 for row in worlds.rows)
    assert all(row[worlds.columns.index("rank")] == row[worlds.columns.index("most")] for row in worlds.rows)
    assert "best control" in " ".join(result.summary)
    with pytest.raises(ConfigError, match="language"):
        language_world(config)


def test_the_phase_diagram_is_a_result_whose_numbers_are_the_worlds(cluster, tmp_path):
    text = f"name: plane\nruns: {tmp_path}\nworld: {{kind: phase, sharpness: [0.5, 2], noises: [0.3, 0.01], seeds: 3}}"
    folder = phase_world(parse_config(text, WorldConfig, source="x"))
    result = load_result(folder)
    assert len(result.measures) == 2 * 2 * 4
    for noise in (0.3, 0.01):
        keys = {"model": f"noise {noise:g}", "site": "sharpness 2"}
        (found,) = [m for m in result.measures if m.name == "linear_in_the_joint_posterior" and m.keys == keys]
        own = [
            phase_point(place, seed).regime.r_squared
            for place in phase_places("telling", [2.0], [noise])
            for seed in range(3)
        ]
        assert found.value == pytest.approx(np.mean(own), abs=1e-9)
        assert found.low <= found.value <= found.high
    assert phase_world(parse_config(text, WorldConfig, source="x")) == folder
    with pytest.raises(ConfigError, match="different numbers"):
        parse_config(text.replace("[0.5, 2]", "[2, 2]"), WorldConfig, source="x")
