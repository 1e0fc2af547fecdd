"""The pair test as a study: from word pairs in a store to a result and its page."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from studies_material import config_of
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from lrh_ray.analyses.causal_directions import InnerProduct, TokenPairs, concept_directions
from lrh_ray.analyses.direction_tests import leave_one_out
from lrh_ray.analyses.pair_cosines import within_cosines
from lrh_ray.analyses.pair_metrics import gram_of
from lrh_ray.analyses.pair_test import replica
from lrh_ray.artifacts import load_result
from lrh_ray.errors import NotEnoughData, SiteError
from lrh_ray.models.tiny import make_tiny
from lrh_ray.models.word_tokens import word_tokens
from lrh_ray.report import render_report
from lrh_ray.store.reader import open_store
from lrh_ray.studies.direction_study import UnembeddingTask
from lrh_ray.studies.extraction import extract
from lrh_ray.studies.pair_grams import WordGrams, unembedding_rows
from lrh_ray.studies.pair_study import pair_test
from lrh_ray.studies.pair_words import last_rows, paired_contexts, word_pairs, word_rows
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


SINGLE = [*NUMBERS[:-1], *(word.upper() for word in NUMBERS), "left", "right"]
"""Words that are one token: of `case` all pairs but one, of `few` one pair, of `noise` none."""


def word_tokenizer():
    """A tokenizer of letters, and of the words in `SINGLE` after a space."""
    letters = sorted({"Ġ", *map(chr, range(97, 123)), *map(chr, range(65, 91))})
    prefixes = sorted({f"Ġ{word[:length]}" for word in SINGLE for length in range(1, len(word) + 1)}, key=len)
    tokens = [*letters, *prefixes]
    tokens += [f"<{number}>" for number in range(256 - len(tokens))]
    merges = [(prefix[:-1], prefix[-1]) for prefix in prefixes]
    tokenizer = Tokenizer(BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<s>", "</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="module")
def words(material, cluster):
    """A run on word pairs: `case` changes the letters, `noise` nothing in common, `few` has too few pairs."""
    (material / "pairs").mkdir(exist_ok=True)
    with (material / "pairs" / "number.jsonl").open("w") as file:
        for place, word in enumerate(NUMBERS):
            contexts = {
                f"contexts{side}": [f"of {count} is {own}" for count in NUMBERS[: place % 3 + 1]]
                for side, own in enumerate((word, word.upper()))
            }
            file.write(json.dumps({"word0": word, "word1": word.upper(), **contexts}) + "\n")
    make_tiny("llama", material / "worded")
    word_tokenizer().save_pretrained(material / "worded")
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
        f"model.name={material / 'worded'}",
        "text.sources=[{kind: word-pairs, path: pairs/*.txt}, {kind: paired-contexts, path: pairs/*.jsonl}]",
        "text.concepts=[]",
        "store.rows=last",
        "store.min_blocks=3",
        "pairs.draws=100",
        "pairs.repeats=4",
        "pairs.random_pairs=2000",
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
    agreements = [m for m in result.measures if m.name == "agreement"]
    at_end = [m for m in agreements if m.keys["site"] == "final_norm" and m.keys["concept"] == "case"]
    assert {m.keys["setting"] for m in at_end} == {
        f"{metric}, C = {c}" for metric in ("raw", "whitened", "causal") for c in ("0.0001", "0.01", "1")
    }
    for measure in at_end:
        assert measure.low <= measure.value + 0.2
        assert {"as_published", "noise", "noise_as_published", "null_low", "null_high", "p"} <= measure.controls.keys()
        assert ("untrained" in measure.controls) == ("causal" not in measure.keys["setting"])
    few = next(m for m in agreements if m.keys["concept"] == "few")
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


def test_words_of_one_token_are_those_that_the_vocabulary_holds_after_a_space():
    tokenizer = word_tokenizer()
    first, second, third = word_tokens(tokenizer, ["one", "thirteen", "ones"])
    assert tokenizer.convert_ids_to_tokens(first) == "Ġone"
    assert (second, third) == (None, None)
    assert word_tokens(tokenizer, []) == []


def test_only_pairs_of_single_tokens_enter_the_tests_of_the_unembedding(result):
    table = next(table for table in result.tables if table.name == "directions in the unembedding")
    rows = {row[0]: row for row in table.rows}
    assert {name: row[1:3] for name, row in rows.items()} == {"case": (13, 12), "few": (2, 1), "noise": (13, 0)}
    assert rows["case"][3] is not None
    assert rows["few"][3] is rows["noise"][3] is None
    few = next(m for m in result.measures if m.name == "direction_shift" and m.keys["concept"] == "few")
    assert np.isnan(few.value)
    assert "not judged" in few.flags[0]
    assert "13 of 28 pairs are two single tokens, and 1 concepts have enough of them" in " ".join(result.summary)


def single_tokens(config):
    """The pairs of single tokens of the run's store, by another way."""
    ids = {word: word_tokens(word_tokenizer(), [word])[0] for word in SINGLE}
    stored = word_pairs(open_store(config.store_location))
    pairs = [(name, pair) for name, pair in zip(stored.concepts, stored.words, strict=True) if set(pair) <= ids.keys()]
    return TokenPairs.of([name for name, _ in pairs], [(ids[first], ids[second]) for _, (first, second) in pairs])


@pytest.mark.parametrize("metric", ["causal", "euclidean"])
def test_directions_are_those_of_the_analyses(words, result, metric):
    unembedding = unembedding_rows(words.model)
    tokens = single_tokens(words)
    inner = InnerProduct.causal(unembedding) if metric == "causal" else InnerProduct.euclidean(64)
    expected = leave_one_out(unembedding, tokens, inner, random_pairs=2000, draws=100, seed=0)
    (measure,) = [
        m
        for m in result.measures
        if m.name == "direction_shift" and (m.keys["metric"], m.keys["concept"]) == (metric, "case")
    ]
    assert measure.value == pytest.approx(expected.shift[0], abs=1e-9)
    assert measure.controls["auc"] == pytest.approx(expected.auc[0], abs=1e-9)
    assert measure.low < measure.value < measure.high
    np.testing.assert_allclose(result.arrays[f"unembedding/{metric}/projections"], expected.projections, atol=1e-9)


def test_cosines_within_concepts_stand_at_every_site_and_in_the_unembedding_with_their_nulls(words, result):
    found = {
        (m.keys["site"], m.keys["metric"]): m
        for m in result.measures
        if m.name == "within_cosine" and m.keys["concept"] == "case"
    }
    assert found.keys() == {
        *((site, metric) for site in ("resid.0", "resid.2", "final_norm") for metric in ("raw", "whitened")),
        *(("final_norm", "causal"), ("unembedding", "causal"), ("unembedding", "euclidean")),
    }
    for (site, metric), measure in found.items():
        assert {"null_low", "null_high", "p", "shuffled_partners"} <= measure.controls.keys()
        assert ("untrained" in measure.controls) == (site != "unembedding" and metric != "causal")
        assert measure.low < measure.value < measure.high
    store = open_store(words.store_location)
    pairs = word_pairs(store)
    expected = within_cosines(gram_of(word_rows(store, "resid.2", pairs)), pairs.table, draws=100, seed=0)
    assert found["resid.2", "raw"].value == pytest.approx(expected.cosine[0], abs=1e-9)


def test_rows_are_compared_with_the_unembedding_from_other_words(result):
    aligned = [m for m in result.measures if m.name == "alignment" and m.keys["concept"] == "case"]
    assert [m.keys["metric"] for m in aligned] == ["causal", "euclidean"]
    for measure in aligned:
        assert {"same_words", "null_low", "p"} <= measure.controls.keys()
        assert measure.low <= measure.value <= measure.high


def test_directions_are_tried_on_paired_contexts(words, result):
    store = open_store(words.store_location)
    (contexts,) = paired_contexts(store)
    assert (contexts.name, len(contexts.first), len(np.unique(contexts.lines[1]))) == ("number", 25, 13)
    rows = np.concatenate([last_rows(store, "final_norm", side) for side in (contexts.first, contexts.second)])
    tokens = single_tokens(words)
    unembedding = unembedding_rows(words.model)
    scores = rows @ concept_directions(unembedding, tokens, InnerProduct.causal(unembedding)).words.T
    found = {m.keys["concept"]: m for m in result.measures if m.name == "measurement"}
    assert list(found) == ["case", "few"]
    for k, measure in enumerate(found.values()):
        assert measure.keys["contexts"] == "number"
        assert measure.value == pytest.approx(roc_auc_score(np.repeat([0, 1], 25), scores[:, k]), abs=1e-9)
        assert {"sign", "cosine", "chance"} == measure.controls.keys()
    assert "measurement on paired contexts" in {table.name for table in result.tables}
    assert any("Of 50 contexts of number" in line for line in result.summary)


def test_a_vocabulary_without_words_leaves_the_unembedding_untested_and_says_why(words, material):
    location = str(words.store_location)
    bytes_only = replace(words.model, name=str(material / "model"))
    pairs = word_pairs(open_store(location))
    grams = WordGrams(location=location, twin=None, pairs=pairs, seed=0, model=bytes_only)
    answer = UnembeddingTask(grams=grams, config=words.pairs)(True)
    assert answer.tests is None
    assert answer.single == {"case": 0, "few": 0, "noise": 0}
    assert "no word pairs" in answer.reason


def test_the_tests_of_directions_can_be_left_out(words):
    config = replace(words, pairs=replace(words.pairs, random_pairs=0, sites=("resid.0",), metrics=("raw",)))
    assert {measure.name for measure in load_result(pair_test(config)).measures} == {"agreement"}


def test_the_same_question_is_answered_from_disk_and_another_one_is_another_result(words, result):
    assert pair_test(words) == pair_test(words)
    other = replace(words, pairs=replace(words.pairs, repeats=5, sites=("resid.0",), metrics=("raw",)))
    assert pair_test(other) != pair_test(words)


def test_the_page_shows_it(result):
    page = render_report([result], title="pairs")
    assert "Pair test of words" in page
    assert "from different words" in page
    assert "irections in the unembedding" in page
    assert "ausal inner product" in page


def test_a_store_without_pairs_and_an_unknown_site_are_refused(words, material, cluster):
    plain = config_of(material, "name=plain-text", "store.min_blocks=3", "text.max_documents=20")
    extract(plain, folder=material)
    with pytest.raises(NotEnoughData, match="holds no word pairs"):
        pair_test(plain)
    with pytest.raises(SiteError, match=r"resid\.9"):
        pair_test(replace(words, pairs=replace(words.pairs, sites=("resid.9",))))
