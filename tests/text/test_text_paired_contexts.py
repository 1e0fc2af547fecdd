"""Paired contexts: the word is taken off, and what says nothing is left out."""

import json
from pathlib import Path

import pytest

from lrh_ray.errors import CorpusError
from lrh_ray.text import TextConfig, read_corpus
from lrh_ray.text.config import PairedContextsSource
from lrh_ray.text.paired_contexts import ContextMember, context_member

SHARED = Path(__file__).parents[3] / "shared/data/paired_contexts"
LINE = {
    "lang0": "en",
    "word0": "off",
    "word1": "loin",
    "contexts0": ["one falls off", "cut off"],
    "contexts1": ["plus loin"],
}


def corpus_of(folder: Path, *lines: dict, limit: int | None = None):
    (folder / "en-fr.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return read_corpus(TextConfig(sources=(PairedContextsSource(path="*.jsonl", limit=limit),)), folder=folder)


def test_a_line_is_its_contexts_without_their_words(tmp_path):
    corpus = corpus_of(tmp_path, LINE)
    assert [(document.id, document.text, dict(document.labels)) for document in corpus.documents] == [
        ("en-fr/1/first/0", "one falls", {"en-fr": "first"}),
        ("en-fr/1/first/1", "cut", {"en-fr": "first"}),
        ("en-fr/1/second/0", "plus", {"en-fr": "second"}),
    ]
    assert context_member("en-fr/1/second/0") == ContextMember(contexts="en-fr", pair="1", side="second")


def test_letters_are_taken_off_at_the_end_only(tmp_path):
    """The published code strips characters: it would leave nothing of the first context but `a b`."""
    line = {**LINE, "contexts0": ["off a b ffo off"], "contexts1": ["loin"]}
    assert [document.text for document in corpus_of(tmp_path, line).documents] == ["off a b ffo"]


def test_the_end_of_a_longer_word_and_a_lone_word_are_left_out(tmp_path):
    line = {**LINE, "contexts0": ["the playoff", "off", "(off"], "contexts1": ["bien loin"]}
    assert [document.text for document in corpus_of(tmp_path, line).documents] == ["(", "bien"]


@pytest.mark.parametrize("other", ["d1", "a/b/first", "a/1/third/0", "a//first/0", "a/1/first/0/9"])
def test_other_ids_are_no_contexts(other):
    assert context_member(other) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"word1": None}, "not a string"),
        ({"contexts0": "cut off"}, "no list"),
        ({"contexts1": ["trop tard"]}, "not in 'loin'"),
        ({"word0": ""}, "is empty"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, change, message):
    with pytest.raises(CorpusError, match=message):
        corpus_of(tmp_path, LINE, {**LINE, **change})


def test_the_first_lines_can_be_had_alone(tmp_path):
    assert len(corpus_of(tmp_path, LINE, LINE, LINE, limit=2).documents) == 6


def test_the_published_files_are_read(tmp_path):
    if not SHARED.is_dir():
        pytest.skip("the paired contexts of shared/data are not here")
    config = TextConfig(sources=(PairedContextsSource(path=f"{SHARED}/*.jsonl", limit=20),))
    documents = read_corpus(config, folder=tmp_path).documents
    assert {document.id.split("/")[0] for document in documents} >= {"en-fr", "fr-es"}
    assert all(document.text == document.text.rstrip() for document in documents)
