"""Taggers: laws for any text, then examples that say what each concept is."""

import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lrh_ray.errors import UnknownName
from lrh_ray.text import TAGGERS, tag, tagger_names

FRAGMENTS = [
    "The",
    "don't",
    "os.path",
    "e.g.",
    "x_1",
    "3.5",
    "HTTP",
    '"',
    "(",
    ")",
    "“",
    "”",
    ".",
    "!",
    " ",
    "  ",
    "\n",
]
texts = st.one_of(
    st.lists(st.sampled_from([*FRAGMENTS, "\n\n", "    ", "word", "Word", "é", "\r\n", "'"]), max_size=25).map("".join),
    st.text(max_size=60),
)
every_tagger = pytest.mark.parametrize("name", TAGGERS)


def marked(text: str, name: str) -> list[str]:
    return [text[span.start : span.end] for span in tag(text, [name])]


def visible(text: str, name: str, end: int) -> set[int]:
    """Tagged characters before `end` that are not white space."""
    spans = tag(text, [name])
    return {
        place for span in spans for place in range(span.start, span.end) if place < end and not text[place].isspace()
    }


@every_tagger
@settings(max_examples=40, deadline=None)
@given(text=texts)
def test_spans_are_inside_ordered_apart_and_trimmed(name, text):
    end = 0
    for span in tag(text, [name]):
        assert end <= span.start < span.end <= len(text)
        assert text[span.start : span.end] == text[span.start : span.end].strip()
        end = span.end


@every_tagger
@settings(max_examples=40, deadline=None)
@given(text=texts)
@example(text='(a "b\n\n c) Word. Next e.g. More "d\n \n"')
def test_no_tag_depends_on_what_follows_its_word(name, text):
    for cut in (match.start() for match in re.finditer(r"\s", text)):
        assert visible(text[:cut], name, cut) == visible(text, name, cut)


EXAMPLES = {
    "in_parentheses": [
        ("f(x) and (a (b) c) end", ["x", "a (b) c"]),
        ("1) one () ( )", []),
        ("half-open (0, 1]\n\nnext", ["0, 1]"]),
        ("( spaced )", ["spaced"]),
    ],
    "in_quotes": [
        ('He said "no way", then “yes”.', ["no way", "yes"]),
        ("it's 'single'", []),
        ('open "until the end\n\nnext', ["until the end"]),
        ('a 5" nail and 3" nail', []),
        ('"" x', []),
    ],
    "indented_line": [("a\n    b c \n\td\n   e", ["b c", "d"])],
    "line_start": [("One two\n  (three) four\n\nfive", ["One", "(three)", "five"])],
    "sentence_start": [
        ("The end. Next one.\nhere we go! Yes", ["The", "Next", "Yes"]),
        ("See e.g. Knuth and J. Smith vs. Dr. Who.", ["See"]),
        ('title\n\nbody (it said "stop." Then went)', ["title", "body", "Then"]),
        ("Version 3.11 is out. It's new.", ["Version", "It's"]),
    ],
    "capitalised_word": [
        ("The Python of Monty. Another I HTTP StringIO Paris", ["Python", "Monty", "Paris"]),
        ("in Äthiopien os.Path", ["Äthiopien"]),
    ],
    "uppercase_word": [("HTTP is A protocol, MAX_SIZE and UTF8 are NOT", ["HTTP", "NOT"])],
    "code_identifier": [
        ("os.path.join, e.g. x_1 or _x __init__ camelCase", ["os.path.join", "x_1", "_x", "__init__", "camelCase"]),
        ("plain Words HTTP 3.5 _ a.b. End", []),
    ],
    "number": [("3 of 1,000.5 at 12:30, v2 x3 3rd 0x1F .5 1_000", ["3", "1,000.5", "12:30", "5"])],
    "punctuation": [('a, b... "c" d_e', [",", "...", '"', '"'])],
    "determiner": [("The cat, a dog and this; theory, in-the-way", ["The", "a", "this"])],
    "preposition": [("Of mice in town, into-it, to go", ["Of", "in"])],
    "modal_verb": [("You may go; it can't, it can.", ["may", "can"])],
    "negation": [("Not now, don't, None, none, knot, no-one, can’t", ["Not", "don't", "none", "can’t"])],
}


@pytest.mark.parametrize(("name", "text", "expected"), [(name, *case) for name in EXAMPLES for case in EXAMPLES[name]])
def test_examples(name, text, expected):
    assert marked(text, name) == expected


def test_every_tagger_has_examples_and_a_description():
    assert set(EXAMPLES) == set(TAGGERS)
    assert all(tagger.name == name and len(tagger.description) > 10 for name, tagger in TAGGERS.items())


@every_tagger
@pytest.mark.parametrize(
    "unit", ["(", '"', "“a", "a.", "a_", "! ", "\n", "\n ", "A", "aB", "1,", "n't", "    a\n", ".a"]
)
def test_cost_is_linear_in_the_text(name, unit):
    start = time.process_time()
    assert sum(1 for _ in TAGGERS[name].ranges(unit * 20_000)) <= 40_000
    assert time.process_time() - start < 2


def test_names_are_resolved():
    assert tagger_names(["all"]) == tuple(TAGGERS)
    assert tagger_names(["number", "all"])[0] == "number"
    assert len(tagger_names(["number", "all", "number"])) == len(TAGGERS)
    assert tagger_names([]) == ()


@pytest.mark.parametrize(
    ("name", "hint"),
    [("nmber", "did you mean 'number'?"), ("in_parens", "'in_parentheses'"), ("zzz", "known: all, in_")],
)
def test_an_unknown_name_is_refused_with_the_nearest(name, hint):
    with pytest.raises(UnknownName, match=re.escape(hint)):
        tagger_names([name])
