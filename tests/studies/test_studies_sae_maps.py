"""Transcoders and crosscoders of a store whose sites are sparse sums of known directions, some of them shared."""

import numpy as np
import pytest
import torch
from planted_stores import write_store
from studies_material import config_of

from lrh_ray.analyses.sae.reader import TopKReader
from lrh_ray.analyses.sae.site_norms import SHARED, sites_of_latents
from lrh_ray.artifacts import load_result
from lrh_ray.collective import Share
from lrh_ray.errors import ConfigError, SiteError
from lrh_ray.exchange.folders import export_result, import_folder
from lrh_ray.store.reader import open_store
from lrh_ray.studies.reporting import write_report
from lrh_ray.studies.sae_map_config import MapConfig, SiteMap, site_maps
from lrh_ray.studies.sae_maps import MapUnit, SiteUnit
from lrh_ray.studies.sae_study import autoencoders
from lrh_ray.studies.sae_training import SaeLearner, SaeTask

WIDTH, FEATURES, DOCUMENTS = 24, 16, 300
SKIP, CROSS, JOINED = "resid.0-to-resid.2-skip", "resid.0+resid.1", "resid.0+resid.1-to-resid.2"
MAPS = (
    "{reads: resid.0, writes: resid.2, skip: true}",
    "{reads: [resid.0, resid.1]}",
    "{reads: [resid.0, resid.1], writes: resid.2}",
)
KINDS = ("{kind: topk, k: 4}", "{kind: batchtopk, k: 4}", "{kind: relu, weight: 0.1}")
QUICK = (
    *("sae.latents=96", "sae.steps=400", "sae.batch_rows=256", "sae.rate=0.005", "sae.warmup=20", "sae.groups=10"),
    f"sae.maps=[{', '.join(MAPS)}]",
    f"sae.kinds=[{', '.join(KINDS)}]",
    "sae.workers={workers: 1, cpus: 1}",
)


def truth(layer):
    """Directions of features that only the first site has, that the first two have, that only the second has."""
    found = np.random.default_rng(layer).standard_normal((3 * FEATURES, WIDTH))
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    absent = {0: slice(2 * FEATURES, None), 1: slice(0, FEATURES), 2: slice(2 * FEATURES, None)}
    found[absent[layer]] = 0
    return found


def planted(layer, kinds, marks, rng):
    """All sites have the same codes; the third is the first one's features again, in other directions and rectified."""
    del marks
    block, _ = rng.bit_generator.seed_seq.entropy
    shared = np.random.default_rng(block)
    active = shared.random((len(kinds), 3 * FEATURES)).argsort(1) < 4
    codes = active * (0.5 + shared.random(active.shape))
    scale, shift = ((50, 20), (2, -1), (7, 3))[layer]
    noise = 0.005 * rng.standard_normal((len(kinds), WIDTH))
    return scale * (codes @ truth(layer) + noise) + shift


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("planted") / "store", 3, planted, num_documents=DOCUMENTS, width=WIDTH)


def asking(material, root, *overrides):
    return config_of(material, "name=maps", f"runs={root.parent}", f"store.location={root}", *QUICK, *overrides)


@pytest.fixture(scope="module")
def folder(material, root, cluster):
    return autoencoders(asking(material, root))


@pytest.fixture(scope="module")
def result(folder):
    return load_result(folder)


def measure(result, name, kind, **keys):
    wanted = {"autoencoder": kind, **keys}
    (found,) = [m for m in result.measures if m.name == name and wanted.items() <= m.keys.items()]
    return found


@pytest.mark.parametrize("kind", ["topk", "batchtopk"])
def test_a_transcoder_explains_what_no_linear_map_of_as_many_components_does(result, kind):
    for name in (SKIP, JOINED):
        found = measure(result, "fvu", kind, site=name)
        assert found.low < found.value < found.high < 0.5 * found.controls["untrained"]
        assert found.value < found.controls["linear_components"]
        assert 0 < found.controls["linear"] < found.controls["linear_components"]
        assert measure(result, "l0", kind, site=name).value == pytest.approx(4, abs=1)
    assert result.arrays[f"{SKIP}/{kind}/skip"].shape == (WIDTH, WIDTH)
    assert f"{JOINED}/{kind}/skip" not in result.arrays
    assert result.arrays[f"{JOINED}/{kind}/encoder"].shape == (96, 2 * WIDTH)
    assert result.arrays[f"{JOINED}/{kind}/decoder"].shape == (96, WIDTH)


@pytest.mark.parametrize("kind", ["topk", "batchtopk"])
def test_a_crosscoder_tells_shared_latents_from_those_of_one_site(result, kind):
    whole = measure(result, "fvu", kind, site=CROSS)
    assert whole.value < whole.controls["principal_components"]
    left = [measure(result, "fvu_of_site", kind, map=CROSS, site=site) for site in ("resid.0", "resid.1")]
    assert [m.keys["layer"] for m in left] == [0, 1]
    assert whole.value == pytest.approx(np.mean([m.value for m in left]), rel=0.05)  # each site has a variance of 1
    assert all(m.low < m.value < m.high < m.controls["untrained"] for m in left)
    shared = measure(result, "shared", kind, site=CROSS)
    assert 0.15 < shared.value < 0.6 < shared.controls["untrained"]
    assert shared.low <= shared.value <= shared.high
    norms, fires = result.arrays[f"{CROSS}/{kind}/site_norms"], result.arrays[f"{CROSS}/{kind}/density"] > 0
    np.testing.assert_allclose((norms**2).sum(axis=1), 1, rtol=1e-4)
    at = sites_of_latents(norms)[fires]
    assert min((at == place).sum() for place in (0, 1, SHARED)) >= FEATURES // 2
    assert (at == SHARED).mean() == pytest.approx(shared.value)


def test_arrays_read_and_write_rows_as_they_stand_in_the_store(result, root):
    store = open_store(root)
    ends = {site: torch.from_numpy(store.rows(site).astype(np.float32)) for site in store.sites}
    joined = torch.cat([ends["resid.0"], ends["resid.1"]], dim=1)
    for name, read, written in ((SKIP, ends["resid.0"], ends["resid.2"]), (CROSS, joined, joined)):
        prefix = f"{name}/topk/"
        arrays = {key.removeprefix(prefix): torch.from_numpy(a) for key, a in result.arrays.items() if prefix in key}
        reader = TopKReader(parameters=arrays, k=4)
        error = (reader.decode(reader.codes(read), read) - written) / written.std(dim=0)
        left = error.pow(2).mean().item()
        assert left == pytest.approx(measure(result, "fvu", "topk", site=name).value, rel=0.15)


def test_summary_tables_and_page_are_there(result, folder, tmp_path):
    assert any("a linear map of as many components leaves" in line for line in result.summary)
    assert any("specific are" in line for line in result.summary)
    assert {"transcoders", "sites of latents"} <= {table.name for table in result.tables}
    assert result.resolved["sites"] == []
    assert [one["name"] for one in result.resolved["maps"]] == [SKIP, CROSS, JOINED]
    write_report([folder], tmp_path / "page.html", title="Maps")
    assert SKIP in (tmp_path / "page.html").read_text()


def test_a_skip_transcoder_is_exported_and_a_crosscoder_is_refused_with_the_reason(folder, result, root, tmp_path):
    export_result(folder, SKIP, "topk", "sparsify", tmp_path / "sparsify")
    export_result(folder, SKIP, "relu", "saelens", tmp_path / "saelens")
    again = import_folder(tmp_path / "saelens")
    assert (again.site, again.writes) == ("resid.0", "resid.2")
    read = torch.from_numpy(open_store(root).rows("resid.0")[:200].astype(np.float32))
    arrays = {name: torch.from_numpy(result.arrays[f"{SKIP}/topk/{name}"]) for name in again.tensors}
    ours, theirs = TopKReader(parameters=arrays, k=4), import_folder(tmp_path / "sparsify").reader()
    back = ours.decode(ours.codes(read), read)
    assert (theirs.decode(theirs.codes(read), read) - back).abs().max() < 1e-4 * back.abs().max()
    with pytest.raises(ConfigError, match="several side by side are read only here"):
        export_result(folder, CROSS, "topk", "saelens", tmp_path / "no")
    with pytest.raises(ConfigError, match=r"topk transcoder cannot be written as saelens.* sparsify"):
        export_result(folder, SKIP, "topk", "saelens", tmp_path / "no")


def units():
    return {f"resid.{layer}": SiteUnit(centre=np.zeros(WIDTH), scale=50.0) for layer in range(3)}


def trained(material, root, folder, *overrides):
    """Files of all autoencoders after a few steps."""
    config = asking(material, root, *overrides)
    store = open_store(root)
    task = SaeTask(
        location=root, root=store.root, config=config.sae, units=units(), documents=tuple(store.document_ids)
    )
    learner: SaeLearner = task.open(Share(rank=0, world=1))
    for step in range(5):
        learner.step(step)
    folder.mkdir()
    learner.save_share(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_beside_maps_an_autoencoder_is_the_same_bit_for_bit(material, root, tmp_path):
    alone = trained(material, root, tmp_path / "alone", "sae.maps=[]", "sae.sites=[resid.1]")
    beside = trained(material, root, tmp_path / "beside", "sae.sites=[resid.1]")
    assert len(alone) == len(KINDS)
    assert len(beside) == len(KINDS) * (1 + len(MAPS))
    assert all(beside[name] == content for name, content in alone.items())


def test_a_crosscoder_of_one_site_is_an_autoencoder():
    one = SiteMap(reads=("resid.1",), writes=("resid.1",))
    assert one == SiteMap.of_site("resid.1")
    assert one.name == "resid.1"
    unit = MapUnit.of(one, units())
    assert (unit.read_centre, unit.widths, unit.starts, unit.scales.codes) == (None, (), (), 50.0)
    several = MapUnit.of(SiteMap.of(MapConfig(reads=("resid.1", "resid.2"))), units())
    assert (several.read_centre, several.widths, several.starts) == (None, (WIDTH, WIDTH), (0, WIDTH))


def test_sites_are_all_those_of_the_store_unless_sites_or_maps_are_named():
    cross = MapConfig(reads=("a", "b"))
    assert [one.name for one in site_maps((), (), ("a", "b"))] == ["a", "b"]
    assert [one.name for one in site_maps((), (cross,), ("a", "b"))] == ["a+b"]
    assert [one.name for one in site_maps(("b",), (cross,), ("a", "b"))] == ["b", "a+b"]


@pytest.mark.parametrize(
    ("maps", "error", "words"),
    [
        ("{reads: [resid.0]}", ConfigError, "name resid.0 in sae.sites"),
        ("{reads: [resid.0, resid.0]}", ConfigError, "each once"),
        ("{reads: resid.0, writes: resid.0}", ConfigError, "leave writes out"),
        ("{reads: [resid.0, resid.1], skip: true}", ConfigError, "would copy"),
        ("{reads: [resid.0, resid.1], writes: resid.1, skip: true}", ConfigError, "would copy"),
        ("{reads: [resid.0, resid.1]}, {reads: [resid.0, resid.1]}", ConfigError, "name each once"),
        ("{reads: resid.0, writes: mlp_out.1}", SiteError, "sae.maps names 'mlp_out.1'; the store has resid.0"),
    ],
)
def test_mistakes_are_named(material, root, maps, error, words):
    with pytest.raises(error, match=words):
        autoencoders(asking(material, root, f"sae.maps=[{maps}]"))
