"""Built-in material: the Python documentation, contrasting pairs, capitals."""

import inspect
import json
import pydoc_data.topics
import re
import string
import textwrap
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrh_ray.text import (
    FACTS,
    PAIRS,
    TAGGERS,
    CapitalsSource,
    PairsSource,
    PythonDocsSource,
    TextConfig,
    read_corpus,
    tag,
)
from lrh_ray.text.carriers import fill
from lrh_ray.text.pairs import GROUPS
from lrh_ray.text.passages import passages
from lrh_ray.text.python_library import MODULES, part_of_library
from lrh_ray.text.word_pairs import pair_member


def batched(items):
    return zip(items[::2], items[1::2], strict=True)


@pytest.fixture(scope="module")
def python_docs():
    return read_corpus(TextConfig(sources=(PythonDocsSource(),)), folder=Path())


def test_the_python_corpus_is_large_varied_and_without_repetition(python_docs):
    texts = [document.text for document in python_docs.documents]
    assert len(texts) > 500
    assert sum(len(text.split()) for text in texts) > 150_000
    assert len(set(texts)) == len(texts)
    assert min(map(len, texts)) >= 200
    assert max(map(len, texts)) <= 3000
    assert max(len(document.id) for document in python_docs.documents) < 80


def test_the_python_corpus_has_classes_of_decent_size(python_docs):
    library = Counter(document.labels.get("library") for document in python_docs.documents)
    assert set(library) - {None} == {"language", *MODULES}
    assert all(library[part] >= 40 for part in MODULES)
    assert library[None] < 0.02 * library.total()
    kinds = Counter(document.labels["kind"] for document in python_docs.documents)
    assert set(kinds) == {"topic", "module", "class"}
    assert min(kinds.values()) > 150


def test_concepts_are_neither_rare_nor_everywhere(python_docs):
    words = Counter()
    for document in python_docs.documents[::20]:
        starts = [match.start() for match in re.finditer(r"\w+|[^\w\s]", document.text)]
        words["all"] += len(starts)
        for name in TAGGERS:
            inside = {place for span in tag(document.text, [name]) for place in range(span.start, span.end)}
            words[name] += sum(start in inside for start in starts)
    assert all(0.005 < words[name] / words["all"] < 0.4 for name in TAGGERS), words


def test_the_python_corpus_says_what_the_library_says(python_docs):
    texts = {document.id: document.text for document in python_docs.documents}
    topic = inspect.cleandoc(pydoc_data.topics.topics["assert"])
    assert topic.startswith(texts["python:help(assert)"])
    assert inspect.getdoc(json.JSONDecoder) in texts["python:json.decoder.JSONDecoder"]
    assert texts["python:textwrap"].startswith(inspect.getdoc(textwrap))


def test_the_table_of_modules_names_each_once():
    listed = [module for modules in MODULES.values() for module in modules.split()]
    assert len(set(listed)) == len(listed)
    assert part_of_library("asyncio.queues") == "concurrency"
    assert part_of_library("_pydecimal") == "numeric"
    assert part_of_library("antigravity") is None


@settings(deadline=None)
@given(text=st.text(alphabet="ab \n", max_size=300), at_least=st.integers(1, 10), extra=st.integers(0, 30))
def test_passages_lose_only_white_space_at_the_cuts(text, at_least, extra):
    at_most = 2 * at_least + extra
    parts = list(passages(text, at_least=at_least, at_most=at_most))
    assert all(0 < len(part) <= at_most for part in parts)
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(part in text for part in parts)


@settings(deadline=None)
@given(size=st.integers(1, 300), at_least=st.integers(1, 10), extra=st.integers(0, 30))
def test_no_passage_is_a_crumb(size, at_least, extra):
    parts = list(passages("x" * size, at_least=at_least, at_most=2 * at_least + extra))
    assert all(len(part) >= min(at_least, size) for part in parts)


def test_passages_prefer_blank_lines():
    text = "first one\n\nsecond\nline\n\nthird paragraph"
    assert list(passages(text, at_least=5, at_most=28)) == ["first one\n\nsecond\nline", "third paragraph"]
    assert list(passages("x" * 25, at_least=5, at_most=10)) == ["x" * 10, "x" * 10, "x" * 5]


def test_filled_words_are_where_they_are_said_to_be():
    filled = fill("The capital of {country} is {capital}.", country="France", capital="Paris")
    assert filled.text == "The capital of France is Paris."
    assert {gap: filled.text[start:end] for gap, (start, end) in filled.places.items()} == {
        "country": "France",
        "capital": "Paris",
    }


@pytest.mark.parametrize("carriers", ["one", "all"])
def test_nothing_but_the_word_tells_the_classes_of_a_pair_apart(carriers):
    corpus = read_corpus(TextConfig(sources=(PairsSource(carriers=carriers),)), folder=Path())
    for group in GROUPS:
        around = {value: Counter() for value in group.classes}
        for document in corpus.documents:
            if value := document.labels.get(f"pair_{group.name}"):
                (span,) = document.spans
                assert span.value == value
                around[value][document.text[: span.start] + "_" + document.text[span.end :]] += 1
        first, second = around.values()
        assert first == second
        assert first.total() == len(group.pairs) * (1 if carriers == "one" else len(group.carriers))


def test_without_carriers_a_document_is_a_word_and_its_id_names_its_partner():
    corpus = read_corpus(TextConfig(sources=(PairsSource(carriers="none"),)), folder=Path())
    assert len(corpus.documents) == 2 * len(PAIRS)
    members = [pair_member(document.id) for document in corpus.documents]
    words = [document.text for document in corpus.documents]
    assert list(zip(words[::2], words[1::2], strict=True)) == [(pair.first, pair.second) for pair in PAIRS]
    assert [member.concept for member in members[::2]] == [pair.group for pair in PAIRS]
    assert {
        (one.concept == two.concept, one.pair == two.pair, one.side, two.side) for one, two in batched(members)
    } == {(True, True, "first", "second")}
    number = next(concept for concept in corpus.concepts if concept.name == "pair_number")
    assert number.values == ("plural", "singular")


def test_pairs_are_many_distinct_and_fit_their_carriers():
    for group in GROUPS:
        words = [word for pair in group.pairs for word in (pair.first, pair.second)]
        assert len(group.pairs) >= 24
        assert len(set(words)) == len(words)
        assert all(word.isalpha() and word.islower() for word in words)
        assert all([gap for _, gap, _, _ in string.Formatter().parse(one) if gap] == ["word"] for one in group.carriers)
        assert not any(re.search(r"\ban? \{", carrier) for carrier in group.carriers)  # `a` agrees with one word only
    assert len(PAIRS) == sum(len(group.pairs) for group in GROUPS)


def test_the_first_word_of_a_pair_is_of_the_first_class():
    corpus = read_corpus(TextConfig(sources=(PairsSource(carriers="all"),)), folder=Path())
    words = {
        (document.text[span.start : span.end], span.value) for document in corpus.documents for span in document.spans
    }
    assert {
        ("cat", "singular"),
        ("cats", "plural"),
        ("sang", "past"),
        ("taller", "comparative"),
        ("queen", "female"),
    } <= words
    for group in GROUPS:
        assert {(pair.first, group.classes[0]) for pair in group.pairs} <= words


def test_one_group_can_be_read_alone():
    corpus = read_corpus(TextConfig(sources=(PairsSource(groups=("tense",)),)), folder=Path())
    assert [concept.name for concept in corpus.concepts] == ["pair_tense", "pair_word"]


@pytest.mark.parametrize("carriers", ["one", "all"])
def test_neither_name_nor_carrier_gives_a_false_capital_away(carriers):
    truth = {fact.country: fact.capital for fact in FACTS}
    corpus = read_corpus(TextConfig(sources=(CapitalsSource(carriers=carriers),)), folder=Path())
    seen = {"true": Counter(), "false": Counter()}
    for document in corpus.documents:
        words = {span.concept: document.text[span.start : span.end] for span in document.spans}
        country, capital = words["fact_subject"], words["fact_object"]
        value = document.labels["capital_fact"]
        assert (truth[country] == capital) == (value == "true")
        carrier = document.text.replace(country, "C").replace(capital, "K")
        seen[value].update([country, capital, (country, carrier), (capital, carrier)])
    assert seen["true"] == seen["false"]


def test_capitals_are_many_and_distinct():
    assert len(FACTS) >= 60
    names = [name for fact in FACTS for name in (fact.country, fact.capital)]
    assert len(set(names)) == len(names)
    assert not any(fact.country in fact.capital or fact.capital in fact.country for fact in FACTS)
