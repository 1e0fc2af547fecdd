"""Trials in worlds: the same numbers wherever they run, and intervals that mean something."""

import numpy as np
import pytest
from scipy import stats

from lrh_ray.analyses.worlds.direct import direct_trial
from lrh_ray.analyses.worlds.learning import Recipe
from lrh_ray.analyses.worlds.masked import MaskedRecipe
from lrh_ray.studies.worlds import direct_test, masked_test, over_seeds, summarise

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
