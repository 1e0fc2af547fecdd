"""Level 3: rows that pass every checksum and are not the model's are found by computing them again."""

import json

import numpy as np
import pytest
from studies_material import config_of

from lrh_ray.cli import main
from lrh_ray.errors import StoreConflict
from lrh_ray.models.tiny import make_tiny
from lrh_ray.store.commits import drop_block, read_commit
from lrh_ray.store.objects import open_objects
from lrh_ray.store.reader import open_store
from lrh_ray.store.verify import verify
from lrh_ray.store.writer import BlockWriter
from lrh_ray.studies.extraction import extract
from lrh_ray.studies.reextraction import reextract

CHECKED = ("name=checked", "store.min_blocks=8")


@pytest.fixture(scope="module")
def config(material, cluster):
    config = config_of(material, *CHECKED)
    extract(config, folder=material)
    return config


def rewrite(config, block: int, change, software: dict[str, str] | None = None) -> None:
    """Commit a block again with other rows: every checksum of it is right."""
    store = open_store(config.store_location)
    objects = open_objects(config.store_location)
    rows = {site: store.block_rows(site, block) for site in store.sites}
    before = read_commit(objects, block)
    drop_block(objects, block)
    with BlockWriter(
        config.store_location,
        store.plan,
        block=block,
        attempt="f0",
        worker="forger",
        software=before.software if software is None else software,
    ) as writer:
        for site, values in change(rows).items():
            writer.write(site, 0, values)
        assert writer.commit().committed


def test_a_sound_store_is_byte_for_byte_what_its_model_gives(config):
    found = reextract(config, config.store_location, sample=3, seed=1)
    assert found.verdict.ok
    assert found.verdict.level == 3
    assert len(found.blocks) == 3
    sites = [site for block in found.blocks for site in block.sites]
    assert all(site.same_bytes and site.needs_same_bytes and site.max_abs == 0 for site in sites)
    assert {site.site for site in sites} == {"resid.0", "resid.2", "final_norm"}


def test_another_model_is_refused_by_name(config, material):
    make_tiny("qwen2", material / "other-model")
    other = config_of(material, *CHECKED, f"model.name={material / 'other-model'}")
    with pytest.raises(StoreConflict, match="digest"):
        reextract(other, config.store_location, sample=1, seed=0)


def test_rows_of_another_layer_pass_checksums_and_fail_here(config, material, capsys):
    num_blocks = open_store(config.store_location).plan.num_blocks
    rewrite(config, 3, lambda rows: {**rows, "resid.2": rows["final_norm"], "final_norm": rows["resid.2"]})
    rewrite(config, 5, lambda rows: {**rows, "resid.0": np.roll(rows["resid.0"], 1, axis=0)})
    # Within the tolerance, and by other software, of which the same bytes are not expected.
    other = {"engine": "another"}
    rewrite(config, 7, lambda rows: {**rows, "resid.2": rows["resid.2"] * np.float32(1 + 1e-6)}, software=other)
    assert not [one for one in verify(config.store_location, 2).findings if one.part == "block"]
    config_path = material / "checked.yaml"
    config_path.write_text((material / "run.yaml").read_text().replace("name: run", "name: checked"))
    arguments = ["verify", str(config.store_location), "--level", "3", "--sample", str(num_blocks), "--json"]
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--config", str(config_path), "--repair"])
    assert stop.value.code == 0
    answer = json.loads(capsys.readouterr().out)
    values = [finding for finding in answer["findings"] if finding["kind"] == "values"]
    found = {(finding["block"], finding["site"]) for finding in values}
    assert found == {(3, "resid.2"), (3, "final_norm"), (5, "resid.0")}
    assert all("cosine" in finding["message"] and finding["rows"] for finding in values)
    (seventh,) = [block for block in answer["compared"] if block["block"] == 7]
    assert [site["same_bytes"] for site in seventh["sites"]].count(False) == 1
    assert set(answer["repair"]["dropped_blocks"]) == {3, 5}
    assert len(answer["compared"]) == num_blocks
