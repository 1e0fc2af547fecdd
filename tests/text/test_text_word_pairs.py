"""Files of word pairs."""

from pathlib import Path

import pytest

from lrh_ray.errors import CorpusError
from lrh_ray.text import TextConfig, read_corpus
from lrh_ray.text.config import WordPairsSource
from lrh_ray.text.word_pairs import PairMember, concept_of, pair_member

SHARED = Path(__file__).parents[3] / "shared/data/word_pairs"


def corpus_of(folder: Path, **files: str):
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text)
    return read_corpus(TextConfig(sources=(WordPairsSource(path="*.txt"),)), folder=folder)


def test_a_line_is_two_documents_that_name_pair_and_side(tmp_path):
    corpus = corpus_of(tmp_path, male="king\tqueen\n\nman\twoman\n", size="small\tbig\r\n")
    assert [(document.id, document.text, dict(document.labels)) for document in corpus.documents] == [
        ("male/1/first", "king", {"male": "first"}),
        ("male/1/second", "queen", {"male": "second"}),
        ("male/3/first", "man", {"male": "first"}),
        ("male/3/second", "woman", {"male": "second"}),
        ("size/1/first", "small", {"size": "first"}),
        ("size/1/second", "big", {"size": "second"}),
    ]
    assert pair_member("male/3/second") == PairMember(concept="male", pair="3", side="second")


@pytest.mark.parametrize("other", ["d1", "a/b", "a/b/third", "a//first", "docs:12"])
def test_other_ids_are_no_members(other):
    assert pair_member(other) is None


def test_brackets_of_published_lists_are_no_part_of_the_name():
    assert concept_of("[male - female].txt") == "male - female"
    assert concept_of("folder/[adj - adj + ly].txt") == "adj - adj + ly"


def test_a_pair_that_repeats_or_does_not_differ_says_nothing(tmp_path):
    assert len(corpus_of(tmp_path, a="one\ttwo\none\ttwo\nsix\tsix\ntwo\tone\n").documents) == 4


@pytest.mark.parametrize(
    ("line", "message"),
    [("one two", "not two words"), ("a\tb\tc", "not two words"), ("a\t", "not two words")],
)
def test_a_malformed_line_is_named(tmp_path, line, message):
    with pytest.raises(CorpusError, match=f"{message}.*|a.txt:2"):
        corpus_of(tmp_path, a=f"one\ttwo\n{line}\n")


def test_a_file_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9\tbar\n")
    with pytest.raises(CorpusError, match="not UTF-8"):
        read_corpus(TextConfig(sources=(WordPairsSource(path="a.txt"),)), folder=tmp_path)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the published word pairs are not at {SHARED}")
def test_the_published_lists_are_read_whole():
    corpus = read_corpus(TextConfig(sources=(WordPairsSource(path=f"{SHARED}/*.txt"),)), folder=Path())
    assert len(corpus.concepts) == 20
    sizes = {
        concept.name: sum(concept.name in doc.labels for doc in corpus.documents) / 2 for concept in corpus.concepts
    }
    assert sizes["country - capital"] == 153  # of 158 lines; Luxembourg and four others are their own capitals
    assert sizes["male - female"] == 52
    assert sizes["pronoun - possessive"] == 4
