"""The pair test as a study: from word pairs in a store to a result and its page."""

from dataclasses import replace

import numpy as np
import pytest
from studies_material import config_of

from lrh_ray.analyses.pair_metrics import gram_of
from lrh_ray.analyses.pair_test import replica
from lrh_ray.artifacts import load_result
from lrh_ray.errors import NotEnoughData, SiteError
from lrh_ray.report import render_report
from lrh_ray.store.reader import open_store
from lrh_ray.studies.extraction import extract
from lrh_ray.studies.pair_study import pair_test, word_pairs, word_rows
from lrh_ray.studies.twins import extract_twin

NUMBERS = [
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
]


@pytest.fixture(scope="module")
def words(material, cluster):
    """A run on word pairs: `case` changes the letters, `noise` nothing in common, `few` has too few pairs."""
    (material / "pairs").mkdir(exist_ok=True)
    lines = {
        "case": [f"{word}\t{word.upper()}" for word in NUMBERS],
        "noise": [f"{word}{word}\t{word[::-1]}x" for word in NUMBERS],
        "few": ["left\tright", "north\tsouth"],
    }
    for name, pairs in lines.items():
        (material / "pairs" / f"[{name}].txt").write_text("\n".join(pairs))
    config = config_of(
        material,
        "name=words",
        "text.sources=[{kind: word-pairs, path: pairs/*.txt}]",
        "text.concepts=[]",
        "store.rows=last",
        "store.min_blocks=3",
        "pairs.draws=100",
        "pairs.repeats=4",
    )
    extract(config, folder=material)
    extract_twin(config, folder=material)
    return config


@pytest.fixture(scope="module")
def result(words):
    return load_result(pair_test(words))


def test_rows_of_words_are_their_last_tokens(words):
    store = open_store(words.store_location)
    pairs = word_pairs(store)
    assert pairs.widowed == 0
    assert ("left", "right") in pairs.words
    rows = word_rows(store, "final_norm", pairs)
    ids = list(store.document_ids)
    for number in (0, 7, 20):
        sequence = ids.index(f"{pairs.concepts[number]}/{pair_number(pairs, number)}/first")
        own = [store.block_rows("final_norm", b)[store.keys(b).doc == sequence] for b in range(store.plan.num_blocks)]
        np.testing.assert_array_equal(rows[number], np.concatenate(own)[-1])


def pair_number(pairs, number):
    """Pairs stand in the order of their files' lines, sorted as text."""
    own = [index for index, name in enumerate(pairs.concepts) if name == pairs.concepts[number]]
    return sorted(str(line) for line in range(1, len(own) + 1))[own.index(number)]


def test_every_concept_has_both_modes_an_interval_a_null_and_controls(result):
    at_end = [m for m in result.measures if m.keys["site"] == "final_norm" and m.keys["concept"] == "case"]
    assert {m.keys["setting"] for m in at_end} == {
        f"{metric}, C = {c}" for metric in ("raw", "whitened", "causal") for c in ("0.0001", "0.01", "1")
    }
    for measure in at_end:
        assert measure.low <= measure.value + 0.2
        assert {"as_published", "noise", "noise_as_published", "null_low", "null_high", "p"} <= measure.controls.keys()
        assert ("untrained" in measure.controls) == ("causal" not in measure.keys["setting"])
    few = next(m for m in result.measures if m.keys["concept"] == "few")
    assert np.isnan(few.value)
    assert "not judged" in few.flags[0]


def test_the_published_number_is_the_plain_procedure(words, result):
    store = open_store(words.store_location)
    pairs = word_pairs(store)
    expected = replica(gram_of(word_rows(store, "resid.2", pairs)), pairs.table, inverse_penalty=1e-2)
    np.testing.assert_allclose(result.arrays["resid.2/raw/0.01/published"], expected, atol=1e-12)


def test_the_summary_says_in_words_what_survives(result):
    text = " ".join(result.summary)
    assert "That is no evidence" in text
    assert "of 2 concepts survive" in text
    assert "Not judged" in text
    assert "few" in text


def test_the_same_question_is_answered_from_disk_and_another_one_is_another_result(words, result):
    assert pair_test(words) == pair_test(words)
    other = replace(words, pairs=replace(words.pairs, repeats=5, sites=("resid.0",), metrics=("raw",)))
    assert pair_test(other) != pair_test(words)


def test_the_page_shows_it(result):
    page = render_report([result], title="pairs")
    assert "Pair test of words" in page
    assert "from different words" in page


def test_a_store_without_pairs_and_an_unknown_site_are_refused(words, material, cluster):
    plain = config_of(material, "name=plain-text", "store.min_blocks=3", "text.max_documents=20")
    extract(plain, folder=material)
    with pytest.raises(NotEnoughData, match="holds no word pairs"):
        pair_test(plain)
    with pytest.raises(SiteError, match=r"resid\.9"):
        pair_test(replace(words, pairs=replace(words.pairs, sites=("resid.9",))))
