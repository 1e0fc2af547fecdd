"""World (c) from seed to result, small: a Llama that learns a language of hidden concepts on two workers."""

import numpy as np
import pytest

from lrh_ray.artifacts import load_result
from lrh_ray.cli import main
from lrh_ray.config import parse_config
from lrh_ray.report.page import render_report
from lrh_ray.store.reader import open_store
from lrh_ray.studies.language_reading import latest_tokens
from lrh_ray.studies.language_world import language_world, moments_of, reading_tokens
from lrh_ray.studies.world_config import WorldConfig

SMALL = """\
name: small
runs: {runs}
world:
  kind: language
  markov: {{values: [2, 2], vocabulary: 8, sharpness: 1.5, length: 24}}
  model: {{layers: 2, hidden: 32, heads: 2}}
  training: {{tokens: 200000, batch_tokens: 1536, checkpoints: 2, rate: 0.01}}
  documents: 96
  sites: [embed, resid.1, final_norm]
workers: {{workers: 2}}
pool: {{replicas: 1, cpus: 1}}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return parse_config(SMALL.format(runs=tmp_path_factory.mktemp("worlds")), WorldConfig, source="small.yaml")


@pytest.fixture(scope="module")
def path(config, cluster):
    return language_world(config)


@pytest.fixture(scope="module")
def result(path):
    return load_result(path)


def belief(result, model, site):
    named = [measure for measure in result.measures if measure.name == "belief"]
    return next(measure for measure in named if (measure.keys["model"], measure.keys["site"]) == (model, site))


def without_a_model(result, name):
    named = [measure for measure in result.measures if measure.name == "belief_without_a_model"]
    return next(measure for measure in named if measure.keys["from"] == name)


def test_the_trained_model_holds_more_than_its_controls(result):
    steps = max(int(step) for step in result.arrays["steps"])
    final = belief(result, f"after {steps} steps", "final_norm")
    for control in (belief(result, "untrained", "final_norm"), without_a_model(result, "last token")):
        assert final.low > control.high
    assert final.value > 0.7
    assert final.controls["shuffled"] < 0.02  # far below 0 with so few documents: 32 features fit noise


def test_training_brings_it_closer_to_the_ideal_reader(result):
    divergences = [measure.value for measure in result.measures if measure.name == "divergence"]
    assert divergences == sorted(divergences, reverse=True)
    assert divergences[-1] < 0.1 < divergences[0]


def test_stores_are_ordinary_ones(config, result, path):
    stores = sorted(config.folder.glob("*/step-*/store"))
    assert len(stores) == 3
    store = open_store(stores[0])
    assert store.sealed
    assert store.texts[0].isalpha()
    assert sorted(store.document_ids)[0] == "t000000"
    assert len(store.document_ids) == 96


def test_asking_again_answers_at_once(config, path, cluster):
    assert language_world(config) == path


def test_the_report_shows_the_curve_over_sites_and_moments(result):
    page = render_report([result], title="world")
    for words in ("untrained", "final_norm", "last token", "ideal model"):
        assert words in page


def test_documents_are_never_those_of_training(config):
    tokens = reading_tokens(config.world)
    assert tokens.shape == (96, 24)
    assert np.array_equal(tokens, reading_tokens(config.world))


def test_moments_end_with_the_last_step():
    assert moments_of(488, 5) == (0, 2, 8, 31, 122, 488)
    assert moments_of(3, 5)[-1] == 3
    assert moments_of(1, 1) == (0, 1)


def test_latest_tokens_are_one_hot():
    rows = latest_tokens(np.array([[2, 0, 1]]), vocabulary=3, window=2)
    assert rows.shape == (1, 3, 6)
    assert rows[0, 0].tolist() == [0, 0, 1, 0, 0, 0]
    assert rows[0, 2].tolist() == [0, 1, 0, 1, 0, 0]


def test_a_wrong_setting_is_named(tmp_path, capsys):
    path = tmp_path / "world.yaml"
    path.write_text(SMALL.format(runs=tmp_path).replace("vocabulary: 8", "vocabulary: 80"))
    with pytest.raises(SystemExit) as stop:
        main(["world", str(path)])
    assert stop.value.code == 2
    assert "vocabulary must lie between 2 and 64" in capsys.readouterr().err
