"""The control store: the same tokens in the same rows, and nothing of the trained weights."""

import json

import numpy as np
import pytest
from studies_material import config_of

from lrh_ray.cli import main
from lrh_ray.errors import ConfigError, StoreConflict
from lrh_ray.records import Receipt
from lrh_ray.store.reader import open_store
from lrh_ray.studies.extraction import extract, plan_run
from lrh_ray.studies.twins import extract_twin, plan_twin, twin_config

SMALL = ("name=small", "text.max_documents=30", "store.min_blocks=4")


@pytest.fixture(scope="module")
def both(material, cluster):
    config = config_of(material, *SMALL)
    return extract(config, folder=material), extract_twin(config, folder=material)


def test_row_i_of_both_stores_is_the_same_token_of_another_model(both):
    original, twin = (open_store(facts["store"]) for facts in both)
    assert twin.sealed
    assert twin.plan.rows_digest == original.plan.rows_digest
    assert twin.root != original.root
    assert twin.plan.identity["twin_of"] == original.plan.digest
    assert both[1]["model"] == f"{both[0]['model']} random(0)"
    assert both[1]["parity"]["passed"]
    assert both[1]["sites"] == both[0]["sites"]
    for block in range(original.plan.num_blocks):
        np.testing.assert_array_equal(twin.block_tokens(block).token_ids, original.block_tokens(block).token_ids)
        for site in original.sites:
            assert np.abs(twin.block_rows(site, block) - original.block_rows(site, block)).mean() > 1e-3


def test_the_twin_is_found_finished_and_resumes(material, both, monkeypatch):
    config = config_of(material, *SMALL)
    assert extract_twin(config, folder=material)["root"] == both[1]["root"]

    class Stop(Exception):
        pass

    def stop(_: object, amount: Receipt) -> None:
        raise Stop

    again = config_of(material, *SMALL, f"store.location={material / 'elsewhere'}")
    monkeypatch.setattr("lrh_ray.studies.progress.Silent.advance", stop)
    with pytest.raises(Stop):
        extract_twin(again, folder=material)
    monkeypatch.undo()
    part = open_store(f"{material / 'elsewhere'}-twin")
    assert not part.sealed
    assert len(part.commits) >= 1
    assert extract_twin(again, folder=material)["root"] == both[1]["root"]


def test_the_verb_finds_the_same_store(material, both, capsys):
    overrides = [part for override in SMALL for part in ("--set", override)]
    with pytest.raises(SystemExit) as stop:
        main(["extract", str(material / "run.yaml"), "--twin", *overrides, "--json"])
    assert not stop.value.code
    assert json.loads(capsys.readouterr().out)["root"] == both[1]["root"]


def test_the_plan_of_a_twin_is_the_plan_with_other_weights(material, both):
    config = config_of(material, *SMALL)
    planned = plan_run(config, folder=material)
    twin, other = (
        plan_twin(config_of(material, *SMALL, f"twin.weights=random({seed})"), planned).plan for seed in (0, 1)
    )
    assert len({planned.plan.digest, twin.digest, other.digest}) == 3
    assert len({planned.plan.rows_digest, twin.rows_digest, other.rows_digest}) == 1
    changed = {key for key in twin.identity if twin.identity[key] != planned.plan.identity.get(key)}
    assert changed == {"model", "twin_of"}
    saved = twin_config(config)
    assert (saved.name, saved.model.weights, saved.text) == ("small-twin", "random(0)", config.text)


def test_a_run_without_a_twin_says_why(material, both):
    with pytest.raises(ConfigError, match="another seed"):
        twin_config(config_of(material, "model.weights=random(0)"))
    with pytest.raises(ConfigError, match="not supported"):
        twin_config(config_of(material, "store.base=elsewhere"))
    with pytest.raises(ConfigError, match="random\\(SEED\\)"):
        config_of(material, "twin.weights=trained")
    with pytest.raises(StoreConflict, match="other rows"):
        extract_twin(config_of(material, *SMALL, "store.seed=9"), folder=material)
