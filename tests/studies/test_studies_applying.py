"""Derived stores hold exactly what the fitted object says of each row, once, whatever happened meanwhile."""

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from fitted_results import SITE, directions, probe_result, sae_result
from planted_stores import write_store
from studies_material import config_of

from lrh_ray.artifacts import load_result, save_result
from lrh_ray.cli import main
from lrh_ray.config import as_plain
from lrh_ray.errors import ConfigError, RunStopped, SiteError, StoreConflict, UnknownName
from lrh_ray.exchange.folders import export_result
from lrh_ray.exchange.matrix import FORMATS
from lrh_ray.exchange.saebench import benchable
from lrh_ray.records import Result
from lrh_ray.runtime.config import PoolConfig
from lrh_ray.runtime.map import map_blocks
from lrh_ray.store.commit_records import object_key
from lrh_ray.store.loader import Loader
from lrh_ray.store.reader import open_store
from lrh_ray.store.repair import repair
from lrh_ray.store.verify import verify
from lrh_ray.studies import applying
from lrh_ray.studies.applying import apply_fitted
from lrh_ray.studies.feature_study import Question, features
from lrh_ray.studies.fitted import open_fitted

DOCS = Path(__file__).parents[2] / "docs"
WIDTH, LATENTS, K = 24, 72, 4
MANY = np.random.default_rng(5).standard_normal((LATENTS, WIDTH)) / np.sqrt(WIDTH)
KINDS = ({"kind": "topk", "k": K}, {"kind": "batchtopk", "k": K}, {"kind": "relu"}, {"kind": "conca", "norm": "layer"})
POOL = PoolConfig(replicas=1, cpus=1)
MAP, CROSSED = "resid.1-to-mlp_out.1-skip", "resid.0+resid.1"


def planted(layer, kinds, marks, rng):
    """A few of the directions in each row."""
    active = rng.random((len(kinds), WIDTH)).argsort(1) < 3
    noise = 0.01 * rng.standard_normal(active.shape)
    return active * (1 + rng.random(active.shape)) @ directions(WIDTH) + noise + layer


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("planted") / "store", 2, planted, width=WIDTH)


@pytest.fixture(scope="module")
def config(material, root):
    return config_of(material, "name=applied", f"runs={root.parent}", f"store.location={root}")


@pytest.fixture(scope="module")
def result(config, root):
    return sae_result(config, open_store(root).root, MANY, KINDS, threshold=2.0)


@pytest.fixture(scope="module")
def applied(result, root, tmp_path_factory, cluster):
    """The codes of each kind as a store of their own."""
    folder = tmp_path_factory.mktemp("derived")
    return {
        kind["kind"]: apply_fitted(result, root, name=kind["kind"], target=folder / kind["kind"], pool=POOL)
        for kind in KINDS
        if kind["kind"] != "relu"
    }


def codes_of(result, name, root, block):
    rows = torch.from_numpy(open_store(root).block_rows(SITE, block).astype(np.float32))
    with torch.no_grad():
        return open_fitted(result, name=name).reader.codes(rows).numpy()


def dense(index, value, num_latents):
    found = np.zeros((len(index), num_latents), np.float32)
    np.add.at(found, (np.arange(len(index))[:, None], index), value)
    return found


@pytest.mark.parametrize("name", ["topk", "batchtopk"])
def test_codes_are_the_readers_to_the_last_bit(applied, result, root, name):
    store = open_store(applied[name]["store"])
    most = 0
    for block in range(store.plan.num_blocks):
        index, value = (store.block_rows(f"{SITE}.{name}.{part}", block) for part in ("index", "value"))
        assert (index.dtype, value.dtype) == (np.int32, np.float32)
        expected = np.maximum(codes_of(result, name, root, block), 0)
        np.testing.assert_array_equal(dense(index, value, LATENTS), expected)
        most = max(most, int((expected > 0).sum(axis=1).max()))
        for row, count in zip(index, (value > 0).sum(axis=1), strict=True):
            assert (np.diff(row[:count]) > 0).all()  # in the order of latents, then padding
            assert (row[count:] == 0).all()
    assert store.plan.sites[0].width == (K if name == "topk" else most)


def test_codes_that_are_all_there_are_stored_whole(applied, result, root):
    store = open_store(applied["conca"]["store"])
    assert store.sites == (f"{SITE}.conca.code",)
    for block in range(store.plan.num_blocks):
        np.testing.assert_array_equal(store.block_rows(store.sites[0], block), codes_of(result, "conca", root, block))


def stopped(*given, **how):
    raise RunStopped("the run was asked to end")


def test_codes_that_are_no_smaller_in_pairs_are_stored_whole_too(result, root, tmp_path, cluster, monkeypatch):
    monkeypatch.setattr(applying, "map_blocks", stopped)
    with pytest.raises(RunStopped):
        apply_fitted(result, root, name="relu", target=tmp_path / "codes", pool=POOL)
    (site,) = open_store(tmp_path / "codes").plan.sites
    assert (site.name, site.width, site.dtype) == (f"{SITE}.relu.code", LATENTS, "float32")


def test_other_tools_read_it_and_it_is_sound(applied):
    place = applied["topk"]["store"]
    group, store = zarr.open_group(f"{place}/data.zarr", mode="r"), open_store(place)
    for site, dtype in ((f"{SITE}.topk.index", "int32"), (f"{SITE}.topk.value", "float32")):
        array = group[f"acts/{site}"]
        assert array.dtype == dtype
        for block in range(store.plan.num_blocks):
            first = block * store.plan.rows_per_block
            rows = store.block_rows(site, block)
            np.testing.assert_array_equal(array[first : first + len(rows)], rows)
    assert verify(place, 2).ok


def test_it_says_what_it_was_made_from_and_has_the_rows_of_its_parent(applied, result, root):
    parent, store = open_store(root), open_store(applied["topk"]["store"])
    made = store.plan.identity["derived"]
    assert made["root"] == parent.root
    assert made["result"] == result.name
    assert (made["site"], made["name"]) == (SITE, "topk")
    assert store.sealed
    assert store.plan.rows_digest == parent.plan.rows_digest
    assert store.document_ids == parent.document_ids
    assert store.labels().table.equals(parent.labels().table)
    both = open_store([root, applied["topk"]["store"], applied["batchtopk"]["store"]])
    assert both.sites[:3] == ("resid.0", SITE, f"{SITE}.topk.index")
    for block in range(both.plan.num_blocks):
        np.testing.assert_array_equal(both.sink_mask(block), parent.sink_mask(block))
        assert not store.sink_mask(block).any()
    batch = next(iter(Loader(both, [SITE, f"{SITE}.topk.index"], batch_size=64, seed=0)))
    assert batch.rows[SITE].dtype == batch.rows[f"{SITE}.topk.index"].dtype == np.float32
    index = store.rows(f"{SITE}.topk.index")
    assert index.max() > 2 * WIDTH


def test_the_code_of_the_page_gives_the_codes(applied, result, root):
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "autoencoders.md").read_text(), flags=re.DOTALL)
    for theirs, ours in (
        ("runs/demo/store-codes", applied["topk"]["store"]),
        ("runs/demo/store", str(root)),
        ("resid.15", SITE),
    ):
        code = code.replace(f'"{theirs}', f'"{ours}')
    names = {}
    exec(compile(code, "autoencoders.md", "exec"), names)
    expected = np.concatenate(
        [codes_of(result, "topk", root, block) for block in range(open_store(root).plan.num_blocks)]
    )
    np.testing.assert_array_equal(names["codes"].toarray(), expected[:, : names["codes"].shape[1]])
    assert len(names["rows"]) == len(expected)


def test_the_identity_has_the_fields_of_the_page(applied):
    below = (DOCS / "store-format.md").read_text().split("### Derived stores\n", 1)[1].split("\n## ", 1)[0]
    fields = set(re.findall(r"^\| `(\w+)` \|", below, flags=re.MULTILINE))
    assert fields == {*open_store(applied["topk"]["store"]).plan.identity["derived"], "concepts", "map"}


def test_twice_is_once(applied, result, root):
    before = open_store(applied["topk"]["store"]).commits
    again = apply_fitted(result, root, name="topk", target=applied["topk"]["store"], pool=POOL)
    assert again["root"] == applied["topk"]["root"]
    assert open_store(again["store"]).commits == before


def test_a_run_that_ends_in_the_middle_goes_on(applied, result, root, tmp_path, monkeypatch):
    """With no second count of codes, and in the end the very bytes of a run that was left alone."""

    def two_blocks(blocks, *rest, **how):
        map_blocks(list(blocks)[:2], *rest, **how)
        stopped()

    place = tmp_path / "half"
    monkeypatch.setattr(applying, "map_blocks", two_blocks)
    with pytest.raises(RunStopped):
        apply_fitted(result, root, name="batchtopk", target=place, pool=POOL)
    first = open_store(place)
    assert (len(first.commits), first.sealed) == (2, False)
    monkeypatch.setattr(applying, "map_blocks", map_blocks)
    monkeypatch.setattr(applying, "reduce_blocks", None)
    found = apply_fitted(result, root, name="batchtopk", target=place, pool=POOL)
    assert found["root"] == applied["batchtopk"]["root"]
    assert first.commits.items() <= open_store(place).commits.items()


def named_command(told, result, root):
    """The words of the command that a message names, with the places of what it names by digest."""
    (command,) = re.findall("`lrh (.*?)`", told)
    assert f"(RESULT with digest {result.name}, STORE with root {open_store(root).root})" in told
    places = {"RESULT": str(result), "STORE": str(root)}
    return [places.get(word, word) for word in shlex.split(command)]


def test_the_status_of_an_unfinished_one_names_the_command_that_finishes_it(
    applied, result, root, tmp_path, cluster, monkeypatch, capsys
):
    place = tmp_path / "of the second"
    monkeypatch.setattr(applying, "map_blocks", stopped)
    with pytest.raises(RunStopped):
        apply_fitted(result, root, name="topk", target=place, pool=POOL)
    monkeypatch.setattr(applying, "map_blocks", map_blocks)
    with pytest.raises(SystemExit):
        main(["status", str(place), "--json"])
    with pytest.raises(SystemExit):
        main([*named_command(json.loads(capsys.readouterr().out)["next"], result, root), "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert (facts["store"], facts["root"]) == (str(place), applied["topk"]["root"])


def test_blocks_that_a_repair_took_out_are_computed_again(applied, result, root, tmp_path, cluster):
    place = tmp_path / "codes"
    shutil.copytree(applied["topk"]["store"], place)
    shard = place / object_key(f"{SITE}.topk.index", 1)
    whole = shard.read_bytes()
    shard.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    repaired = repair(place)
    assert repaired.dropped == (1,)
    assert named_command(repaired.next_step, result, root)[0] == "apply"
    assert open_store(place).missing_blocks == (1,)
    again = apply_fitted(result, root, name="topk", target=place, pool=POOL)
    assert again["root"] == applied["topk"]["root"]
    assert open_store(place).missing_blocks == ()
    assert verify(place, 2).ok


def test_probes_say_of_each_row_what_they_were_fitted_to(config, root, tmp_path, cluster):
    rng = np.random.default_rng(1)
    weights, intercepts = rng.standard_normal((3, WIDTH)), rng.standard_normal(3)
    result = probe_result(config, open_store(root).root, weights, intercepts, ["a", "b", "c"])
    store = open_store(apply_fitted(result, root, target=tmp_path / "scores", pool=POOL)["store"])
    assert store.plan.identity["derived"]["concepts"] == ["a", "b", "c"]
    rows = open_store(root).block_rows(SITE, 1).astype(np.float64)
    expected = (rows @ weights.T + intercepts).astype(np.float32)
    np.testing.assert_allclose(store.block_rows(f"{SITE}.logistic.score", 1), expected, rtol=1e-6)
    with pytest.raises(UnknownName, match=r"has no linear probe 'mlp'\. Name one of 'logistic'"):
        open_fitted(result, name="mlp")


def test_an_autoencoder_of_another_tool_is_applied_too_and_stands_beside_its_parent(applied, result, root, tmp_path):
    folder = export_result(result, SITE, "topk", "sparsify", tmp_path / "sparsify")
    found = apply_fitted(folder, root, site=SITE, pool=POOL)
    assert found["store"].startswith(f"{root}-{SITE}.topk-")
    ours, theirs = open_store(applied["topk"]["store"]), open_store(found["store"])
    for part in ("index", "value"):
        np.testing.assert_array_equal(ours.rows(f"{SITE}.topk.{part}"), theirs.rows(f"{SITE}.topk.{part}"))


@pytest.fixture(scope="module")
def wired(config, root):
    """A result of a skip transcoder, a crosscoder and a transcoder to several sites, and no autoencoder."""
    rng = np.random.default_rng(8)
    shapes = {"encoder": (LATENTS, WIDTH), "encoder_bias": (LATENTS,), "decoder": (LATENTS, 7), "decoder_bias": (7,)}
    shapes |= {"input_offset": (WIDTH,), "skip": (7, WIDTH)}
    ends = {"reads": [SITE], "writes": ["mlp_out.1"], "skip": True}
    both = ["resid.0", SITE]
    wide = {"encoder": (LATENTS, 2 * WIDTH), "decoder": (LATENTS, 2 * WIDTH), "decoder_bias": (2 * WIDTH,)}
    crossed = {"name": CROSSED, "reads": both, "writes": both, "skip": False}
    arrays = {f"{MAP}/topk/{name}": rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    for name, shape in {**wide, "encoder_bias": (LATENTS,)}.items():
        arrays[f"{CROSSED}/topk/{name}"] = rng.standard_normal(shape, np.float32)
    return save_result(
        Result(
            kind="sae",
            title="Maps of a test",
            summary=(),
            asked=as_plain(config),
            resolved={"kinds": [KINDS[0]], "sites": [], "maps": [{"name": MAP, **ends}, crossed], "sinks": "keep"},
            inputs={"store": open_store(root).root},
            measures=(),
            arrays=arrays,
        ),
        config.results_path,
    )


def test_a_transcoder_is_applied_to_what_it_reads_under_the_name_of_its_map(wired, root, tmp_path, cluster):
    fitted = open_fitted(wired, site=MAP)
    assert (fitted.site, fitted.map_name, fitted.lineage["map"]) == (SITE, MAP, MAP)
    store = open_store(apply_fitted(wired, root, site=MAP, target=tmp_path / "codes", pool=POOL)["store"])
    assert store.sites == (f"{MAP}.topk.index", f"{MAP}.topk.value")
    rows = open_store(root).block_rows(SITE, 0).astype(np.float32)
    with torch.no_grad():
        codes = np.maximum(fitted.reader.codes(torch.from_numpy(rows)).numpy(), 0)
    index, value = (store.block_rows(site, 0) for site in store.sites)
    np.testing.assert_array_equal(dense(index, value, LATENTS), codes)
    found = load_result(features(wired, Question(latent=3, site=MAP), location=root))
    assert (found.resolved["site"], found.measures[0].keys["site"]) == (MAP, MAP)
    assert MAP in found.title
    with pytest.raises(UnknownName, match=f"Name one of '{MAP}', 'resid"):
        open_fitted(wired, site=SITE)


def test_a_crosscoder_is_applied_to_its_sites_side_by_side_and_written_in_no_format(wired, root, tmp_path, cluster):
    fitted = open_fitted(wired, site=CROSSED)
    assert (fitted.reads, fitted.width, "map" in fitted.lineage) == (("resid.0", SITE), 2 * WIDTH, False)
    store = open_store(apply_fitted(wired, root, site=CROSSED, target=tmp_path / "codes", pool=POOL)["store"])
    rows = np.concatenate([open_store(root).block_rows(site, 0) for site in fitted.reads], axis=1).astype(np.float32)
    with torch.no_grad():
        codes = np.maximum(fitted.reader.codes(torch.from_numpy(rows)).numpy(), 0)
    index, value = (store.block_rows(site, 0) for site in store.sites)
    np.testing.assert_array_equal(dense(index, value, LATENTS), codes)
    found = load_result(features(wired, Question(latent=3, site=CROSSED), location=root))
    assert found.measures[0].keys["site"] == CROSSED
    for form in FORMATS:
        with pytest.raises(ConfigError, match="one site at each end"):
            export_result(wired, CROSSED, "topk", form, tmp_path / form)
    with pytest.raises(ConfigError, match=f"SAEBench evaluates at one place, and resid.0 has {SITE} beside it"):
        benchable(fitted.exchanged, "pythia-70m")


def test_mistakes_are_named(config, applied, result, root, tmp_path, cluster):
    narrow = sae_result(config, "narrow", directions(8), KINDS[:1])
    other = save_result(
        Result(kind="geometry", title="G", summary=(), asked={}, resolved={}, inputs={}, measures=()), tmp_path
    )
    for asked, error, words in (
        ({"source": result}, UnknownName, "has 4 autoencoders"),
        ({"source": result, "name": "gated"}, UnknownName, "Name one of 'topk', 'batchtopk', 'relu', 'conca'"),
        (
            {"source": result, "name": "topk", "site": "resid.9"},
            UnknownName,
            "no site 'resid.9'. Name one of 'resid.1'",
        ),
        ({"source": narrow}, SiteError, "24 features and 'topk' reads 8"),
        ({"source": other}, ConfigError, "kind 'geometry'"),
        ({"source": result, "name": "relu", "target": applied["topk"]["store"]}, StoreConflict, "another store"),
        ({"source": result, "name": "topk", "target": root}, StoreConflict, "another store"),
    ):
        with pytest.raises(error, match=words):
            apply_fitted(asked.pop("source"), root, **asked, pool=POOL)
