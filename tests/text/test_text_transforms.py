"""Shuffled n-grams keep every word and every label of a document, and nothing that an order carried."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrh_ray.config import parse_config
from lrh_ray.errors import ConfigError
from lrh_ray.records import Document, Span
from lrh_ray.text.config import TextConfig
from lrh_ray.text.corpus import read_corpus
from lrh_ray.text.transforms import ShuffleNgrams, ngrams, parse_transform, transformed

WORDS = st.lists(st.text(alphabet="ab\u00e9\u2603", min_size=1, max_size=3), min_size=0, max_size=12)
SPACES = st.sampled_from([" ", "  ", "\n", "\u2003\n "])
TEXTS = st.builds(
    lambda words, gaps: "".join(part for pair in zip(words, gaps, strict=False) for part in pair),
    WORDS,
    st.lists(SPACES, min_size=12, max_size=12),
)


def runs_of(text, n):
    return [text[start:end] for start, end in ngrams(text, n)]


def pieces(text, n):
    """N-grams with the white space inside them, cut by length where the last run is shorter."""
    return Counter(runs_of(text, n)) if len(text.split()) % n == 0 else Counter(text.split())


@given(text=TEXTS, n=st.integers(1, 14), seed=st.integers(0, 5), name=st.text(min_size=1))
def test_every_ngram_and_every_character_is_kept(text, n, seed, name):
    shuffled = transformed(Document(id=name, text=text), ShuffleNgrams(n=n, seed=seed)).text
    assert pieces(shuffled, n) == pieces(text, n)
    assert Counter(shuffled) == Counter(text)
    if len(text.split()) <= n:
        assert shuffled == text


def test_a_shorter_last_run_moves_as_a_whole():
    text = " ".join("abcdefghijk")
    shuffled = {transformed(Document(id=str(one), text=text), ShuffleNgrams(n=3, seed=0)).text for one in range(40)}
    assert len(shuffled) > 15  # of 24 orders
    for order in shuffled:
        assert all(run in order for run in ("a b c", "d e f", "g h i", "j k"))


def test_one_word_runs_are_shuffled_evenly():
    """The null of the law: an identity would keep all words too."""
    where = Counter(
        transformed(Document(id=str(one), text="a b c d"), ShuffleNgrams(n=1, seed=3)).text.index("a")
        for one in range(2000)
    )
    assert all(count == pytest.approx(500, abs=100) for count in where.values())
    assert len(where) == 4


def test_the_order_depends_on_seed_and_id_alone():
    text = " ".join("abcdefghijklmnop")
    shuffle = ShuffleNgrams(n=1, seed=0)
    one = transformed(Document(id="a", text=text), shuffle).text
    assert one == transformed(Document(id="a", text=text), shuffle).text
    assert one != transformed(Document(id="b", text=text), shuffle).text
    assert one != transformed(Document(id="a", text=text), ShuffleNgrams(n=1, seed=1)).text


def test_labels_stay_and_spans_go():
    document = Document(
        id="a", text="Paris is big", labels={"topic": "x"}, spans=(Span(concept="city", value="yes", start=0, end=5),)
    )
    shuffled = transformed(document, ShuffleNgrams(n=1, seed=0))
    assert (shuffled.labels, shuffled.spans) == ({"topic": "x"}, ())
    assert transformed(document, None) == document


def corpus_of(folder, names, transform="none"):
    lines = [
        {
            "id": name,
            "text": f"the {name} has 12 and 7 apples",
            "labels": {"topic": name[0]},
            "spans": [{"concept": "word", "value": "yes", "start": 0, "end": 3}],
        }
        for name in names
    ]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = f"sources: [{{kind: jsonl, path: corpus.jsonl}}]\nconcepts: [number]\ntransform: {transform}\n"
    return read_corpus(parse_config(settings, TextConfig, source="text.yaml"), folder=folder)


def test_the_order_of_documents_does_not_matter(tmp_path):
    forward = corpus_of(tmp_path, ["a1", "b1", "a2"], '"shuffle_ngrams(1, 0)"')
    backward = corpus_of(tmp_path, ["a2", "b1", "a1"], '"shuffle_ngrams(1, 0)"')
    assert forward.documents == backward.documents[::-1]


def test_the_transform_enters_the_digest_and_concepts_are_those_of_the_new_text(tmp_path):
    names = ["a1", "b1", "a2", "b2"]
    plain = corpus_of(tmp_path, names)
    shuffled = corpus_of(tmp_path, names, '"shuffle_ngrams(1, 0)"')
    whole = corpus_of(tmp_path, names, '"shuffle_ngrams(100, 0)"')
    assert len({plain.digest, shuffled.digest, whole.digest}) == 3
    assert [one.text for one in whole.documents] == [one.text for one in plain.documents]
    assert [concept.name for concept in plain.concepts] == ["topic", "number", "word"]
    assert [concept.name for concept in shuffled.concepts] == ["topic", "number"]
    for document in shuffled.documents:
        assert {document.text[span.start : span.end] for span in document.spans} == {"12", "7"}


@pytest.mark.parametrize("word", ["shuffle", "shuffle_ngrams(0, 1)", "shuffle_ngrams(1)", "shuffle_ngrams(1, -1)"])
def test_other_words_are_refused(word):
    with pytest.raises(ConfigError, match="shuffle_ngrams\\(N, SEED\\)"):
        parse_transform(word)
    with pytest.raises(ConfigError, match=r"text\.yaml:1: .*transform is"):
        parse_config(f'sources: [{{kind: python-docs}}]\ntransform: "{word}"\n', TextConfig, source="text.yaml")
