"""Autoencoders of a store of known directions, put to use: each test finds what was planted, and not what was not."""

from dataclasses import replace

import numpy as np
import pytest
from planted_stores import write_store, write_words
from studies_material import config_of

from lrh_ray.analyses.sae.published_test import published_test
from lrh_ray.analyses.sae.reading import sparse_codes
from lrh_ray.artifacts import load_result, save_result
from lrh_ray.errors import ConfigError, NotEnoughData, ResultMissing, SiteError, UnknownName
from lrh_ray.store.reader import open_sealed
from lrh_ray.studies.first_letters import whole_word
from lrh_ray.studies.labelled_rows import rows_of, rows_of_pairs
from lrh_ray.studies.pair_words import word_pairs
from lrh_ray.studies.reporting import write_report
from lrh_ray.studies.sae_bound_study import autoencoder_bound
from lrh_ray.studies.sae_bound_task import ProbeTask
from lrh_ray.studies.sae_evaluation_study import evaluate_autoencoders
from lrh_ray.studies.sae_saved import saved_autoencoders
from lrh_ray.studies.sae_study import autoencoders

WIDTH, FEATURES, DOCUMENTS = 32, 24, 200
MARK, KINDS, LETTERS, WORDS = 0, slice(1, 4), slice(4, 7), slice(7, 9)
"""Directions of the marks of tokens, the kinds of documents, first letters, and the two concepts of word pairs."""
QUICK = (
    "sae.latents=48",
    "sae.steps=500",
    "sae.batch_rows=256",
    "sae.rate=0.005",
    "sae.warmup=20",
    "sae.groups=8",
    "sae.sites=[resid.1]",
    "sae.workers={workers: 1, cpus: 1}",
    "sae.kinds=[{kind: topk, k: 5}, {kind: conca}]",
    "sae_bound.draws=100",
    "sae_bound.repeats=4",
    "sae_evaluation.draws=100",
    "sae_evaluation.rows=200",
    "sae_evaluation.sizes=[1, 3]",
    "sae_evaluation.words=400",
)


def truth():
    found = np.random.default_rng(9).standard_normal((FEATURES, WIDTH))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def rows_from(active, rng):
    """Sums of directions of about equal strength, far from the origin, with a little noise."""
    strengths = active * (0.5 + rng.random(active.shape))
    return 50 * strengths @ truth() + 0.1 * rng.standard_normal((len(active), WIDTH)) + 20


def others(num, rng, first=4, active=3):
    """A few of the directions from `first` on."""
    found = np.zeros((num, FEATURES))
    found[:, first:] = rng.random((num, FEATURES - first)).argsort(1) < active
    return found


def planted(layer, kinds, marks, rng):
    """Noise at the first site; marks, kinds and others at the second."""
    if not layer:
        return rng.standard_normal((len(kinds), WIDTH)) * 10
    active = others(len(kinds), rng)
    active[:, MARK] = marks
    active[np.arange(len(kinds)), KINDS.start + kinds] = 1
    return rows_from(active, rng)


def asking(material, root, *overrides, name="saes"):
    return config_of(material, f"name={name}", f"runs={root.parent}", f"store.location={root}", *QUICK, *overrides)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    return write_store(folder / "store", 2, planted, num_documents=DOCUMENTS, width=WIDTH)


@pytest.fixture(scope="module")
def trained(material, root, cluster):
    return autoencoders(asking(material, root))


def some_words(num, rng):
    """Different words of five letters that begin with s, t or u."""
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    found = dict.fromkeys("stu"[i % 3] + "".join(rng.choice(letters, 4)) for i in range(num))
    assert len(found) == num
    return list(found)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """Single words, each with the direction of its letter and of two others."""
    rng = np.random.default_rng(2)
    texts = some_words(330, rng)
    active = others(len(texts), rng, first=9, active=2)
    active[np.arange(len(texts)), LETTERS.start + np.array(["stu".index(word[0]) for word in texts])] = 1
    folder = tmp_path_factory.mktemp("words")
    ids = [f"word-{i}" for i in range(len(texts))]
    return write_words(folder / "store", 2, texts, ids, rows_from(active, rng), width=WIDTH)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Pairs of two concepts, whose first words have a direction, of one that has none, and of one with too few."""
    rng = np.random.default_rng(3)
    sizes = {"one": 14, "two": 16, "nothing": 15, "few": 2}
    ids = [
        f"{name}/{pair}/{side}" for name, num in sizes.items() for pair in range(num) for side in ("first", "second")
    ]
    active = others(len(ids), rng, first=9, active=2)
    for number, name in enumerate(("one", "two")):
        active[
            [i for i, own in enumerate(ids) if own.startswith(name) and own.endswith("first")], WORDS.start + number
        ] = 1
    folder = tmp_path_factory.mktemp("pairs")
    return write_words(folder / "store", 2, some_words(len(ids), rng), ids, rows_from(active, rng), width=WIDTH)


def measures(result, name, **keys):
    return [one for one in result.measures if one.name == name and keys.items() <= dict(one.keys).items()]


@pytest.fixture(scope="module")
def evaluated(material, root, trained):
    """Of the store that the autoencoders were trained on: the tests that need labels, and lengths."""
    tests = "sae_evaluation.tests=[sparse_probing, perturbation, description_length]"
    return load_result(evaluate_autoencoders(asking(material, root, tests)))


def test_one_latent_reads_what_has_a_direction(evaluated):
    found = measures(evaluated, "accuracy", autoencoder="topk", latents=1)
    assert {one.keys["concept"] for one in found} == {"mark", "kind=a", "kind=b", "kind=c"}
    for one in found:
        assert one.value > 0.9
        assert one.low <= one.value <= one.high
        assert one.controls["ceiling"] > 0.95
        assert one.controls["random_latents"] < 0.75
        assert one.controls["random_autoencoder"] < one.value - 0.1
    rows = {row[0]: row[1:] for table in evaluated.tables if table.name == "samples" for row in table.rows}
    assert rows["mark"][:3] == (400, 200, 400)


def test_latents_taken_out_take_their_concept_and_no_other(evaluated):
    for base in ("rows", "reconstructions"):
        (one,) = measures(evaluated, "selective_drop", autoencoder="topk", of=base)
        assert one.value > 0.25
        assert one.low <= one.value <= one.high
        assert abs(one.controls["random_latents"]) < 0.15
    drops = evaluated.arrays["resid.1/topk/drops_of_rows"]
    assert drops.shape == (4, 4)
    (rows,) = measures(evaluated, "selective_drop", autoencoder="topk", of="rows")
    assert np.diagonal(drops).mean() - (drops.sum() - np.trace(drops)) / 12 == pytest.approx(rows.value)
    assert rows.controls["ceiling"] > 0.3


def test_lengths_say_that_sparse_rows_are_short(evaluated):
    bits = measures(evaluated, "description_length", autoencoder="topk")
    assert [one.keys["step"] for one in bits] == [0.02, 0.05, 0.1, 0.2]
    values = [one.value for one in bits]
    assert values == sorted(values, reverse=True)  # coarser steps are shorter
    fvus = [one.controls["fvu"] for one in bits]
    assert fvus[0] < fvus[-1]
    for one, ratio in zip(bits, measures(evaluated, "length_over_gaussian", autoencoder="topk"), strict=True):
        assert ratio.value == pytest.approx(one.value / one.controls["gaussian"])  # of one step
        assert ratio.value < ratio.controls["random_autoencoder"]
        assert ratio.low < ratio.value < ratio.high


def test_the_same_question_has_the_same_answer(material, root, trained, evaluated, tmp_path):
    config = replace(asking(material, root, "sae_evaluation.tests=[sparse_probing]"), runs=str(tmp_path))
    asked = replace(config, sae_evaluation=replace(config.sae_evaluation, result=str(trained)))
    again = load_result(evaluate_autoencoders(asked))
    for one in again.measures:
        (before,) = measures(evaluated, "accuracy", **one.keys)
        assert (one.value, one.low, one.controls) == (before.value, before.low, before.controls)
    np.testing.assert_array_equal(
        again.arrays["resid.1/topk/mark/latents"], evaluated.arrays["resid.1/topk/mark/latents"]
    )


def test_letters_with_a_direction_are_hardly_absorbed(material, words, trained):
    result = load_result(
        evaluate_autoencoders(
            asking(material, words, "sae_evaluation.tests=[absorption]", f"sae_evaluation.result={trained}")
        )
    )
    (one,) = result.measures
    assert one.keys["autoencoder"] == "topk"
    assert one.value <= one.high < 0.2
    assert one.value <= one.controls["ceiling"]
    rows = [row for table in result.tables if table.name == "absorption" for row in table.rows]
    assert [row[2] for row in rows] == ["s", "t", "u"]
    assert sum(row[4] for row in rows) > 60  # of 99 judged words
    assert "conca: none of its latents is ever silent" in " ".join(result.summary)


@pytest.fixture(scope="module")
def bound(material, pairs, trained):
    return load_result(autoencoder_bound(asking(material, pairs, f"sae_bound.result={trained}", name="pairs")))


def test_latents_match_concepts_that_have_a_direction_and_no_others(bound):
    for codes in ("exp", "linear"):
        found = {one.keys["concept"]: one for one in measures(bound, "correlation", autoencoder="topk", codes=codes)}
        assert set(found) == {"one", "two", "nothing"}
        assert found["nothing"].controls["p"] > 0.05
        assert found["nothing"].low < 0.3
    linear = {one.keys["concept"]: one for one in measures(bound, "correlation", autoencoder="topk", codes="linear")}
    for name in ("one", "two"):
        assert linear[name].value > 0.7
        assert linear[name].controls["p"] < 0.05
        assert linear[name].value > linear[name].controls["random_autoencoder"]
    assert "few" in " ".join(bound.summary)


def test_the_published_number_is_larger_and_stands_beside_its_chance(bound):
    for one in measures(bound, "mean_correlation"):
        assert one.controls["as_published"] > one.value
        assert 0 < one.controls["chance_as_published"] < 1
        assert one.controls["null_low"] < 0 < one.controls["null_high"]
        assert one.low < one.value < one.high
        assert one.controls["ceiling"] <= 1
    nothing = bound.arrays["resid.1/topk/linear/published"][[one == "nothing" for one in ("nothing", "one", "two")]]
    assert nothing > 0.2  # of 48 latents one matches anything
    (table,) = [table for table in bound.tables if table.name == "comparison"]
    assert len(table.rows) == 4
    assert all(len(row) == len(table.columns) for row in table.rows)


def test_chance_as_published_turns_the_log_odds_that_the_published_bound_is_of(material, pairs, trained, bound):
    store = open_sealed(pairs)
    config = asking(material, pairs, f"sae_bound.result={trained}", name="pairs")
    concepts, _ = rows_of_pairs(store, word_pairs(store))
    probes = ProbeTask(location=pairs, concepts=concepts, config=config.sae_bound)("resid.1")
    saved = saved_autoencoders(config, str(trained), store, asked=(), setting="sae_bound")
    (topk,) = [one for one in saved.autoencoders if one.name == "topk"]
    again = published_test(
        [one.published for one in probes],
        [sparse_codes(topk.reader(), rows).toarray() for rows in rows_of(store, "resid.1", concepts)],
        [one.groups for one in concepts],
        draws=100,
        seed=0,
    )
    (found,) = measures(bound, "mean_correlation", autoencoder="topk", codes="exp")
    assert found.controls["as_published"] == pytest.approx(again.bound.mean)
    assert found.controls["chance_as_published"] == pytest.approx(again.chance)


def test_bounds_are_counted_from_their_chance(bound):
    for mode, before, chance in (
        ("as published", "as_published", "chance_as_published"),
        ("held out", None, None),
    ):
        for one in measures(bound, "corrected_correlation", mode=mode):
            keys = {name: value for name, value in one.keys.items() if name != "mode"}
            (whole,) = measures(bound, "mean_correlation", **keys)
            assert one.controls["uncorrected"] == (whole.controls[before] if before else whole.value)
            if chance:
                assert one.controls["turned_signs"] == whole.controls[chance]
            above = (one.controls["uncorrected"] - one.controls["turned_signs"]) / (1 - one.controls["turned_signs"])
            assert one.value == pytest.approx(above)
            assert one.low < one.value < one.high
            assert one.controls["null_low"] < 0 < one.controls["null_high"]
    for one in measures(bound, "coverage"):
        assert 0 <= one.controls["null_low"] <= one.controls["null_high"] <= 1
        assert 0 < one.controls["ceiling"] <= 1
        assert 0 < one.controls["p"] <= 1


def test_a_labelled_store_is_asked_by_its_labels(material, root, trained):
    result = load_result(
        autoencoder_bound(
            asking(material, root, "sae_bound.rows=40", "sae_bound.codes=[linear]", "sae_bound.concepts=[mark]")
        )
    )
    (one,) = measures(result, "correlation", autoencoder="topk")
    assert one.value > 0.7
    assert one.controls["p"] < 0.05
    assert "labels" in result.inputs


def test_pages_are_there(evaluated, bound, root, material, tmp_path, pairs):
    places = [save_result(one, tmp_path) for one in (evaluated, bound)]
    write_report(places, tmp_path / "page.html", title="SAE")
    page = (tmp_path / "page.html").read_text()
    for words_of_the_page in ("sparse probes", "description lengths", "as they are", "turned signs"):
        assert words_of_the_page in page


@pytest.mark.parametrize(
    ("study", "overrides", "error", "told"),
    [
        (evaluate_autoencoders, ["name=other", "runs={empty}"], ResultMissing, "lrh sae CONFIG"),
        (autoencoder_bound, ["sae_bound.sites=[resid.0]"], SiteError, "the autoencoders are of resid.1"),
        (evaluate_autoencoders, ["sae_evaluation.concepts=[verb]"], UnknownName, "kind, mark"),
        (evaluate_autoencoders, ["sae_evaluation.tests=[absorption]"], NotEnoughData, "sae_evaluation.tests"),
        (evaluate_autoencoders, ["sae_evaluation.tests=[]"], ConfigError, "at least one"),
        (evaluate_autoencoders, ["sae_evaluation.sizes=[5, 1]"], ConfigError, "ascend"),
        (autoencoder_bound, ["sae_bound.codes=[log]"], ConfigError, "linear"),
        (autoencoder_bound, ["sae_bound.draws=10"], ConfigError, "at least 100"),
    ],
)
def test_mistakes_are_named(material, root, trained, tmp_path, study, overrides, error, told):
    with pytest.raises(error, match=told):
        study(asking(material, root, *(one.format(empty=tmp_path) for one in overrides)))


def test_autoencoders_of_another_study_or_model_are_refused(material, root, trained, evaluated, tmp_path):
    other = save_result(evaluated, tmp_path)
    with pytest.raises(ConfigError, match="kind 'sae-evaluation'; name one of `lrh sae`"):
        autoencoder_bound(asking(material, root, f"sae_bound.result={other}"))
    result = load_result(trained)
    model = {**result.provenance["store"]["model"], "digest": "another"}
    store = {**result.provenance["store"], "model": model}
    strange = save_result(replace(result, provenance={**result.provenance, "store": store}), tmp_path)
    with pytest.raises(ConfigError, match="of the same weights"):
        evaluate_autoencoders(asking(material, root, f"sae_evaluation.result={strange}"))


@pytest.mark.parametrize(
    ("text", "start", "end", "word"),
    [
        ("the short word", 3, 9, "short"),
        ("the short word", 4, 9, "short"),
        ("Short", 0, 5, "short"),
        ("shorter", 0, 5, ""),
        ("unshort", 2, 7, ""),
        ("a_short", 2, 7, ""),
        ("(short)", 1, 6, "short"),
        ("is", 0, 2, ""),
        ("größe", 0, 5, ""),
        ("h2so4", 0, 5, ""),
        ("  ", 0, 2, ""),
    ],
)
def test_a_token_is_a_word_or_a_piece_of_one(text, start, end, word):
    assert whole_word(text, start, end) == word
