"""The geometry study on a real store: numbers that NumPy gives too, paired with the untrained model, over a family."""

from dataclasses import replace

import numpy as np
import pytest
from studies_material import config_of

from lrh_ray.artifacts import load_result
from lrh_ray.errors import ConfigError, NotEnoughData, SiteError, UnknownName
from lrh_ray.models.tiny import make_tiny
from lrh_ray.store.reader import open_store
from lrh_ray.studies.extraction import extract
from lrh_ray.studies.geometry_study import family_geometry, geometry
from lrh_ray.studies.twins import extract_twin

pytestmark = pytest.mark.usefixtures("cluster")
SITES = ["resid.0", "resid.2", "final_norm"]


@pytest.fixture(scope="module")
def config(material, cluster):
    config = config_of(material, "name=shape", "geometry.by=topic", "geometry.gain_documents=12", "geometry.selected=3")
    extract(config, folder=material)
    extract_twin(config, folder=material)
    return config


@pytest.fixture(scope="module")
def result(config):
    return load_result(geometry(config))


def measures(result, name, **keys):
    return [m for m in result.measures if m.name == name and keys.items() <= m.keys.items()]


def rows_of(config, site, topic=None):
    """Rows that stand for text, without sinks at any site, of the documents of a topic."""
    store = open_store(config.store_location)
    values = np.array(store.labels().document_values("topic"))
    found = []
    for block in range(store.plan.num_blocks):
        keys = store.keys(block)
        kept = (keys.char_end > keys.char_start) & ~store.sink_mask(block)
        if topic is not None:
            kept &= values[keys.doc] == topic
        found.append(store.block_rows(site, block)[kept].astype(np.float64))
    return np.concatenate(found)


def rank_of(rows, mean):
    directions = (rows - mean) / np.linalg.norm(rows - mean, axis=1)[:, None]
    values = np.linalg.eigvalsh(directions.T @ directions)
    shares = values[values > 1e-15] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


@pytest.mark.parametrize("site", SITES)
def test_effective_ranks_are_those_of_the_rows_in_numpy(result, config, site):
    every = rows_of(config, site)
    for documents, topic in (("all", None), ("topic=upper", "upper"), ("topic=lower", "lower")):
        (found,) = measures(result, "effective_rank", site=site, model="trained", documents=documents)
        assert found.value == pytest.approx(rank_of(rows_of(config, site, topic), every.mean(axis=0)), rel=1e-9)
        assert found.low < found.value < found.high
        assert found.value < found.controls["isotropic"]


def test_what_training_took_away_is_a_difference_of_ranks(result):
    for found in measures(result, "diff_erank"):
        keys = {key: found.keys[key] for key in ("site", "documents")}
        (trained,) = measures(result, "effective_rank", model="trained", **keys)
        (untrained,) = measures(result, "effective_rank", model="untrained", **keys)
        assert found.value == pytest.approx(untrained.value - trained.value)
    assert len(measures(result, "diff_erank")) == 3 * len(SITES)
    (rows,) = [table for table in result.tables if table.name == "rows"]
    counted = {model: [row[3] for row in rows.rows if row[0] == model] for model in ("trained", "untrained")}
    assert counted["trained"] == counted["untrained"]


def test_own_context_tells_more_than_that_of_another_document(result):
    for found in measures(result, "information_gain", model="trained", context="4 to 15 tokens"):
        assert found.value > 0
        assert found.value < found.controls["other_document"]
    shares = measures(result, "unexplained_by_lasso", model="trained", site="resid.2")
    assert [m.value for m in shares] == sorted((m.value for m in shares), reverse=True)


def test_entropy_is_set_against_size_over_a_family(material, config):
    names = [str(make_tiny("llama", material / f"wide{width}", hidden=width)) for width in (32, 64)]
    family = replace(config, geometry=replace(config.geometry, family=tuple(names), by=None, gain_documents=0))
    found = load_result(family_geometry(family, folder=material))
    (sizes,) = [table for table in found.tables if table.name == "sizes"]
    assert [row[0] for row in sizes.rows] == names
    assert all(row[1] > 0 and row[4] < row[3] < row[5] for row in sizes.rows)
    assert {m.keys["parameters"] for m in found.measures} == {row[1] for row in sizes.rows}
    with pytest.raises(ConfigError, match="several sizes"):
        family_geometry(replace(family, geometry=replace(family.geometry, family=(names[0],) * 2)), folder=material)
    with pytest.raises(ConfigError, match="two models or more"):
        family_geometry(replace(family, geometry=replace(family.geometry, family=(names[0],))), folder=material)


def test_mistakes_are_named(material, config):
    for setting, error, words in (
        ("geometry.sites=[resid.9]", SiteError, "resid.0"),
        ("geometry.by=colour", UnknownName, "topic"),
        ("geometry.groups=5000", NotEnoughData, "geometry.groups"),
    ):
        with pytest.raises(error, match=words):
            geometry(config_of(material, "name=shape", setting))
