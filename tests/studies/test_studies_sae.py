"""Autoencoders of a store whose rows are sparse sums of known directions."""

import json
from dataclasses import replace

import numpy as np
import pytest
from planted_stores import write_store
from pretended_device import pretended
from safetensors.numpy import load_file
from studies_material import config_of

from lrh_ray.analyses.state import merge_tree
from lrh_ray.artifacts import load_result
from lrh_ray.collective import Share
from lrh_ray.errors import ClusterError, ConfigError, NotEnoughData, SiteError, StateConflict
from lrh_ray.store.reader import open_sealed, open_store
from lrh_ray.studies.reporting import write_report
from lrh_ray.studies.sae_passes import LeftOutPass
from lrh_ray.studies.sae_study import autoencoders, dealt_rows
from lrh_ray.studies.sae_training import SaeLearner, SaeTask, SiteUnit
from lrh_ray.testing.stores import make_tokens

WIDTH, FEATURES, ACTIVE, DOCUMENTS = 32, 40, 3, 300
KINDS = (
    "{kind: topk, k: 4}",
    "{kind: batchtopk, k: 4}",
    "{kind: matryoshka, k: 4, groups: [0.5, 1.0]}",
    "{kind: relu, weight: 0.05}",
    "{kind: p_anneal, weight: 0.05}",
    "{kind: structured, weight: 0.05, rank: 8}",
    "{kind: gated, weight: 0.1}",
    "{kind: jumprelu, target: 4, bandwidth: 0.2, first_threshold: 0.2}",
    "{kind: conca}",
)
SPARSE_BY_COUNT = ("topk", "batchtopk", "matryoshka", "jumprelu")
QUICK = (
    "sae.latents=64",
    "sae.steps=300",
    "sae.batch_rows=256",
    "sae.rate=0.005",
    "sae.warmup=20",
    "sae.groups=10",
    "sae.sites=[resid.1]",
    "sae.workers={workers: 1, cpus: 1}",
)


def truth():
    found = np.random.default_rng(9).standard_normal((FEATURES, WIDTH))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def planted(layer, kinds, marks, rng):
    """Noise at the first site, sparse sums of the directions at the second, both far from the origin."""
    del marks
    noise = rng.standard_normal((len(kinds), WIDTH))
    if not layer:
        return noise * 10 + 3
    active = rng.random((len(kinds), FEATURES)).argsort(1) < ACTIVE
    return 50 * (active * (0.5 + rng.random(active.shape)) @ truth()) + 0.1 * noise + 20


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("planted") / "store", 2, planted, num_documents=DOCUMENTS, width=WIDTH)


def asking(material, root, *overrides):
    return config_of(material, "name=saes", f"runs={root.parent}", f"store.location={root}", *QUICK, *overrides)


@pytest.fixture(scope="module")
def result(material, root, cluster):
    return load_result(autoencoders(asking(material, root, f"sae.kinds=[{', '.join(KINDS)}]")))


def measure(result, name, kind):
    (found,) = [m for m in result.measures if m.name == name and m.keys["autoencoder"] == kind]
    return found


@pytest.mark.parametrize("kind", [kind.split(",")[0].removeprefix("{kind: ").rstrip("}") for kind in KINDS])
def test_every_kind_explains_what_its_first_weights_do_not(result, kind):
    found = measure(result, "fvu", kind)
    assert found.value < 0.5 * found.controls["untrained"]
    assert found.low < found.value < found.high < 0.5
    if kind in SPARSE_BY_COUNT:
        assert found.value < found.controls["principal_components"]
        assert measure(result, "l0", kind).value == pytest.approx(4, abs=1.5)
        decoder = result.arrays[f"resid.1/{kind}/decoder"]
        unit = decoder / np.linalg.norm(decoder, axis=1, keepdims=True)
        assert np.abs(truth() @ unit.T).max(axis=1).mean() > 0.85


@pytest.mark.parametrize("kind", SPARSE_BY_COUNT)
def test_dead_latents_have_an_interval_and_their_null_beside_them(result, kind):
    found = measure(result, "dead", kind)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.value == pytest.approx((result.arrays[f"resid.1/{kind}/density"] == 0).mean())
    untrained = (result.arrays[f"resid.1/{kind}/density_untrained"] == 0).mean()
    assert found.controls["untrained"] == pytest.approx(untrained)
    assert found.controls["unfiltered"] == found.value  # the store has no sinks
    assert ("prior" in found.controls) == (kind != "jumprelu")  # the others choose a number of codes
    assert found.controls.get("prior", untrained) == pytest.approx(untrained, abs=0.1)
    assert measure(result, "l0", kind).controls["unfiltered"] == measure(result, "l0", kind).value


def test_rows_that_are_in_no_number_are_counted(material, tmp_path, cluster):
    """Sinks at a site that is not trained on are left out too; a BOS stands for no text."""
    tokens = make_tokens([20] * 60)
    first = tokens.starts[:-1]
    tokens.char_end[first] = tokens.char_start[first]

    def rows_of(layer, kinds, marks, rng):
        rows = planted(1, kinds, marks, rng)
        if not layer:
            rows[[4, 5]] *= 1000  # of a block, whatever its documents
        return rows

    place = write_store(tmp_path / "store", 2, rows_of, num_documents=60, width=WIDTH, tokens=tokens)
    told = ("sae.kinds=[{kind: topk, k: 4}]", "sae.steps=4", "sae.batch_rows=64", "sae.groups=4", "sae.shown_latents=0")
    (table,) = [one for one in load_result(autoencoders(asking(material, place, *told))).tables if one.name == "rows"]
    found = dict(zip(table.columns, table.rows[0], strict=True))
    store = open_sealed(place)
    blocks = [(store.sink_mask(block), store.keys(block)) for block in range(store.plan.num_blocks)]
    num = sum(int((sinks & (keys.char_end > keys.char_start)).sum()) for sinks, keys in blocks)
    assert found["training sinks"] + found["held-out sinks"] == num > 0
    assert found["no text"] == 60
    parts = ("training rows", "held-out rows", "training sinks", "held-out sinks", "no text")
    assert sum(found[part] for part in parts) == store.plan.num_valid_rows
    keeping = dealt_rows(asking(material, place, *told, "sae.sinks=keep").sae, store)
    kept = merge_tree([LeftOutPass(rows=keeping)(block) for block in range(store.plan.num_blocks)])
    assert kept.counts["sinks"].sum() == 0
    assert kept.counts["without text"].sum() == 60


def test_a_threshold_gives_as_many_codes_as_asked_for(result):
    assert result.arrays["resid.1/batchtopk/threshold"][0] > 0
    assert measure(result, "l0", "batchtopk").value == pytest.approx(4, rel=0.1)


def test_curves_and_a_page_are_there(result, material, root, tmp_path):
    curves, (table,) = result.arrays["training"], [one for one in result.tables if one.name == "training"]
    assert np.isfinite(curves[:, :, :2]).all()
    counted = ["conca" not in str(name) for name in dict.fromkeys((row[0], row[1]) for row in table.rows)]
    assert 0 < sum(counted) < len(counted)
    for number, counts in enumerate(counted):  # what has no zeros has neither codes nor dead latents
        assert (np.isfinite(curves[number, :, 2:]) == counts).all()
    assert (curves[:, -1, 0] < curves[:, 0, 0]).all()
    write_report(
        [autoencoders(asking(material, root, f"sae.kinds=[{', '.join(KINDS)}]"))], tmp_path / "page.html", title="SAE"
    )
    page = (tmp_path / "page.html").read_text()
    assert "principal components" in page
    assert "matryoshka" in page


def task_of(material, root, *overrides):
    config = asking(
        material, root, f"sae.kinds=[{', '.join(KINDS)}]", "sae.dead_after=300", *overrides
    )  # the last of a name
    units = {site: SiteUnit(centre=np.zeros(WIDTH), scale=100.0) for site in ("resid.0", "resid.1")}
    store = open_store(root)
    return SaeTask(location=root, root=store.root, config=config.sae, units=units, documents=tuple(store.document_ids))


MAPS = "{reads: resid.0, writes: resid.1, skip: true}, {reads: [resid.0, resid.1]}"


@pytest.mark.parametrize("preselect", ["null", "2"])
def test_a_resumed_run_is_the_run_bit_for_bit(material, root, tmp_path, preselect):
    """Weights, moments, dead counters, annealing, curves and place in the data; past the end of an epoch."""
    few = [] if preselect == "null" else [f"sae.kinds=[{', '.join(KINDS[:4])}]"]
    settings = ("sae.steps=40", "sae.batch_rows=512", f"sae.maps=[{MAPS}]", f"sae.preselect={preselect}")
    task = task_of(material, root, *settings, *few)

    def fresh() -> SaeLearner:
        return task.open(Share(rank=0, world=1))

    whole, first, second = fresh(), fresh(), fresh()
    for step in range(30):
        whole.step(step)
    for step in range(17):
        first.step(step)
    for name, learner in (("first", first), ("whole", whole), ("second", second)):
        if name == "second":
            learner.load(tmp_path / "first")
            for step in range(17, 30):
                learner.step(step)
        (tmp_path / name).mkdir()
        learner.save(tmp_path / name)
        learner.save_share(tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert len(files) == 3 * len(task.config.kinds) + 2
    for name in files:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name


def test_a_run_goes_from_cpus_to_a_device_and_back(material, root, tmp_path):
    """All kinds of a site and of maps, by their files; nothing of the CPU gets among the tensors of the device."""
    task = task_of(material, root, "sae.steps=40", f"sae.maps=[{MAPS}]")

    def run_on(device, start, steps, name) -> None:
        learner = task.open(Share(rank=0, world=1), device)
        if start:
            learner.load(tmp_path / start)
        for step in steps:
            learner.step(step)
        (tmp_path / name).mkdir()
        learner.save(tmp_path / name)
        learner.save_share(tmp_path / name)

    run_on("cpu", "", range(6), "begun")
    run_on("cpu", "begun", range(6, 18), "whole")
    with pretended() as device:
        run_on(device, "begun", range(6, 12), "there")
    run_on("cpu", "there", range(12, 18), "back")
    for place in (tmp_path / "whole").glob("*.safetensors"):
        expected, found = load_file(place), load_file(tmp_path / "back" / place.name)
        assert expected.keys() == found.keys()
        for name in expected:
            if name.startswith("parameter."):
                np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=2e-3, err_msg=f"{place} {name}")
    assert (tmp_path / "back" / "place.json").read_bytes() == (tmp_path / "whole" / "place.json").read_bytes()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("sae.latents=32", r"parameter.encoder is \(64, 32\), and would be \(32, 32\)"),
        ("sae.kinds=[{kind: topk, k: 3}, {kind: topk, k: 5}]", "has no topk k 3 of resid.1"),
    ],
)
def test_a_checkpoint_of_another_configuration_is_refused(material, root, tmp_path, setting, words):
    learner = task_of(material, root).open(Share(rank=0, world=1))
    learner.save(tmp_path)
    learner.save_share(tmp_path)
    other = task_of(material, root, setting).open(Share(rank=0, world=1))
    with pytest.raises(StateConflict, match=words):
        other.load(tmp_path)


def test_the_same_question_has_the_same_answer(material, root, tmp_path, cluster):
    config = replace(asking(material, root, "sae.steps=60"), runs=str(tmp_path / "one"))
    whole = load_result(autoencoders(config))
    again = load_result(autoencoders(replace(config, runs=str(tmp_path / "two"))))
    for name, array in whole.arrays.items():
        np.testing.assert_array_equal(again.arrays[name], array, err_msg=name)
    assert json.dumps([m.value for m in whole.measures]) == json.dumps([m.value for m in again.measures])


@pytest.mark.parametrize("parts", [1, 2])
def test_two_workers_share_the_work_and_agree_with_one(material, root, tmp_path, cluster, parts):
    """Through Ray Train, with a checkpoint of two parts that is read as one."""
    found = []
    for workers, cut in ((1, 1), (2, parts)):
        config = asking(
            material,
            root,
            "sae.steps=40",
            "sae.checkpoints=2",
            f"sae.workers={{workers: {workers}, cpus: 1}}",
            f"sae.latent_parts={cut}",
        )
        found.append(load_result(autoencoders(replace(config, runs=str(tmp_path / str(workers))))))
    one, two = found
    assert one.resolved == two.resolved  # who trains is no part of the question
    np.testing.assert_allclose(two.arrays["training"], one.arrays["training"], rtol=1e-4)
    for name in ("encoder", "decoder", "encoder_bias", "decoder_bias"):
        np.testing.assert_allclose(
            two.arrays[f"resid.1/topk/{name}"], one.arrays[f"resid.1/topk/{name}"], rtol=0, atol=2e-3
        )
    assert measure(two, "fvu", "topk").value == pytest.approx(measure(one, "fvu", "topk").value, rel=1e-4)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_preselection_learns_and_its_recall_stands_beside_it(material, root, tmp_path, cluster, workers):
    """Of one worker, and of two that share the rows."""
    config = asking(
        material,
        root,
        "sae.preselect=2",
        "sae.checkpoints=3",
        f"sae.kinds=[{', '.join(KINDS[:4])}]",
        f"sae.workers={{workers: {workers}, cpus: 1}}",
        "sae.latent_parts=1",
    )
    folder = autoencoders(replace(config, runs=str(tmp_path)))
    result = load_result(folder)
    for kind in ("topk", "batchtopk", "matryoshka"):
        found = measure(result, "recall", kind)
        assert 0.97 < found.value <= 1
        assert found.unit == "of the exact choice"
        assert found.low < found.value <= found.high <= 1
        assert found.controls["random_candidates"] == 8 / 64
        assert measure(result, "fvu", kind).value < 0.5 * measure(result, "fvu", kind).controls["untrained"]
    assert not [one for one in result.measures if one.name == "recall" and one.keys["autoencoder"] == "relu"]
    (table,) = [one for one in result.tables if one.name == "preselection"]
    assert [row[1:3] for row in table.rows if row[1] == "topk"] == [("topk", step) for step in (99, 199, 299)]
    write_report([folder], tmp_path / "page.html", title="SAE")
    assert "Recall of the exact choice" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("setting", "error", "words"),
    [
        ("sae.kinds=[{kind: topk, k: 65}]", ConfigError, "k is 65"),
        ("sae.kinds=[{kind: structured, gamma: 0}]", ConfigError, "densely"),
        ("sae.kinds=[{kind: sparse}]", ConfigError, "topk"),
        ("sae.kinds=[]", ConfigError, "at least one"),
        ("sae.sites=[resid.7]", SiteError, "resid.0, resid.1"),
        ("sae.batch_rows=100000", NotEnoughData, "sae.batch_rows"),
        ("sae.groups=40", NotEnoughData, "sae.groups"),
        ("sae.workers={workers: 3}", ConfigError, "only a multiple"),
        ("sae.workers={workers: 1, gpus: 2}", ConfigError, "one whole GPU"),
        ("sae.workers={workers: 2, gpus: 0.5}", ConfigError, "one whole GPU"),
        ("sae.workers={workers: 2, gpus: 1}", ClusterError, "2 training workers of 1 CPUs and 1 GPUs need more"),
        ("sae.preselect=0", ConfigError, "preselect is 0: it must be 1 or more"),
        ("sae.preselect=2; sae.kinds=[{kind: relu}]", ConfigError, "whose codes are chosen"),
        ("sae.workers={workers: 2}; sae.latent_parts=3", ConfigError, "latent_parts is 3"),
        ("sae.workers={workers: 2}; sae.latent_parts=1; sae.batch_rows=63", ConfigError, "batch_rows is 63"),
        ("sae.workers={workers: 2}; sae.kinds=[{kind: structured}]", ConfigError, "needs one worker"),
    ],
)
def test_mistakes_are_named(material, root, cluster, setting, error, words):
    with pytest.raises(error, match=words):
        autoencoders(asking(material, root, *setting.split("; ")))
