"""Which tokens become rows, and how a sink picks and pools them."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrh_ray.errors import ConfigError
from lrh_ray.models.selection import POOLED_TOKEN, choose_rows, context_digest, sequences_of
from lrh_ray.models.sink import ChosenRows
from lrh_ray.models.tiny import byte_tokenizer
from lrh_ray.models.tokens import tokenize
from lrh_ray.records import Document, Span

TEXTS = ("Anna met Bob.", "Nobody came.", "Bob saw Anna and Anna.")


def document(text):
    spans = [
        Span(concept="who", value=name, start=i, end=i + len(name))
        for name in ("Anna", "Bob")
        for i in range(len(text))
        if text.startswith(name, i)
    ]
    return Document(id=text, text=text, spans=tuple(spans))


def chosen(rows, pool="none", texts=TEXTS):
    documents = [document(text) for text in texts]
    tokens = tokenize(documents, byte_tokenizer(), render="raw", bos="tokenizer", window=64, too_long="error")
    return tokens, choose_rows(tokens, documents, rows=rows, pool=pool)


def words(found):
    """The text each row stands for, with its document."""
    rows = found.rows
    sequence = np.repeat(np.arange(len(rows.lengths)), rows.lengths)
    return [rows.document_ids[s][a:b] for s, a, b in zip(sequence, rows.char_start, rows.char_end, strict=True)]


def test_every_token_is_the_plan_without_a_context():
    tokens, found = chosen("all")
    assert found.rows is tokens
    assert found.context is None


def test_rules_pick_the_tokens_they_name():
    assert words(chosen("last")[1]) == [".", ".", "."]
    assert words(chosen("every:5")[1])[:3] == ["", " ", "B"]  # the first is <s>, which has no text
    assert words(chosen("span_last:who")[1]) == ["a", "b", "b", "a", "a"]
    assert "".join(words(chosen("spans:who")[1])) == "AnnaBobBobAnnaAnna"
    assert words(chosen("spans:who", "mean")[1]) == ["Anna", "Bob", "Bob", "Anna", "Anna"]
    assert words(chosen("all", "mean")[1]) == list(TEXTS)


def test_rows_carry_the_tokens_they_stand_for():
    tokens, found = chosen("span_last:who")
    assert found.rows.document_ids == (TEXTS[0], TEXTS[2])  # a document without a row is left out
    assert bytes(found.rows.token_ids.tolist()) == bytes(tokens.token_ids[[4, 12]].tolist()) + bytes(
        found.rows.token_ids[2:].tolist()
    )
    assert set(chosen("all", "mean")[1].rows.token_ids) == {POOLED_TOKEN}
    whole = sequences_of(found.context, found.rows)
    assert whole.lengths.tolist() == [len(TEXTS[0]) + 1, len(TEXTS[2]) + 1]
    assert context_digest(found.context) != context_digest(chosen("spans:who")[1].context)


@pytest.mark.parametrize(
    ("rows", "pool", "told"),
    [
        ("first", "none", "must be one of all, last"),
        ("every", "none", "must be one of"),
        ("every:x", "none", "must be one of"),
        ("every:0", "none", "at least 1"),
        ("last:2", "none", "must be one of"),
        ("spans:where", "none", "Labelled spans: who"),
        ("last", "mean", "means are taken over"),
    ],
)
def test_a_rule_that_picks_nothing_is_one_message(rows, pool, told):
    with pytest.raises(ConfigError, match=told):
        chosen(rows, pool)


class Sink:
    def __init__(self):
        self.parts = {}

    def write(self, site, offset, rows):
        assert offset not in self.parts
        self.parts[offset] = np.array(rows)

    def rows(self):
        return np.concatenate([self.parts[at] for at in sorted(self.parts)])


@given(st.data())
def test_any_pieces_give_the_rows_and_means_of_the_whole(data):
    """Tokens may come in any pieces and order; nested and overlapping ranges count each of their tokens."""
    tokens = data.draw(st.integers(1, 30))
    count = data.draw(st.integers(1, 8))
    pairs = [sorted(data.draw(st.tuples(st.integers(0, tokens), st.integers(0, tokens)))) for _ in range(count)]
    ranges = np.unique(np.array([(a, max(b, a + 1)) for a, b in pairs if a < tokens] or [(0, 1)]), axis=0)
    rows = np.random.default_rng(0).normal(size=(tokens, 3)).astype(np.float32)
    cuts = [0, *sorted(data.draw(st.sets(st.integers(1, max(1, tokens - 1)), max_size=4)) - {tokens}), tokens]
    pieces = [(a, b) for a, b in itertools.pairwise(cuts) if b > a]
    sink = Sink()
    picking = ChosenRows(sink, ranges)
    for first, stop in data.draw(st.permutations(pieces)):
        picking.write("s", first, rows[first:stop])
    expected = np.stack([rows[a:b].astype(np.float64).mean(axis=0) for a, b in ranges])
    np.testing.assert_allclose(sink.rows(), expected, rtol=1e-6, atol=1e-7)
