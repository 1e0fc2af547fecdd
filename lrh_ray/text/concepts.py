"""Token-level concepts computed from the text: crisp enough for a regular expression, so that nobody annotates them.

A tagger yields the character spans where its concept holds. They are non-empty, inside the text, in order, free of
white space at both ends, and do not overlap. And they look ahead no further than the end of the word they stand in:
cutting a text at white space leaves every tag before the cut as it was. So a model that reads from left to right
can know the concept at the last token of a word, and a probe that fails there measures the model and not the tagger.
(That is why a bracket or a quotation that is never closed reaches to the end of its paragraph.)

    spans = tag("The cost (in euros) is 30.", tagger_names(["number", "in_parentheses"]))

What can go wrong: rules on characters are wrong where English is subtle ("US" in a heading, a quotation mark for
inches); a concept here is what its description says, not what a linguist would mark.
"""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from lrh_ray.errors import UnknownName
from lrh_ray.records import Span
from lrh_ray.text.regions import in_parentheses, in_quotes
from lrh_ray.text.words import capitalised_words, identifiers, sentence_starts, uppercase_words

Ranges = Iterator[tuple[int, int]]

PRESENT = "yes"
"""Value of every span that a tagger marks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tagger:
    """A token-level concept: where in a text it holds, and what that means."""

    name: str
    description: str
    ranges: Callable[[str], Ranges]


def tagger_names(asked: Sequence[str]) -> tuple[str, ...]:
    """`asked` without repetitions and with `all` written out; `UnknownName` for a name no tagger has."""
    names = [name for item in asked for name in (TAGGERS if item == "all" else [item])]
    for name in names:
        if name not in TAGGERS:
            close = difflib.get_close_matches(name, TAGGERS, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}?" if close else f"known: all, {', '.join(TAGGERS)}."
            raise UnknownName(f"Unknown text concept {name!r}; {hint}")
    return tuple(dict.fromkeys(names))


def tag(text: str, names: Sequence[str]) -> tuple[Span, ...]:
    """Spans of `text` for the taggers called `names`, tagger after tagger, each in the order of the text."""
    return tuple(
        Span(concept=name, value=PRESENT, start=start, end=end)
        for name in names
        for start, end in TAGGERS[name].ranges(text)
    )


def _matches(pattern: re.Pattern[str], text: str) -> Ranges:
    """Where group 1 of `pattern` matches, or all of it where it has no group."""
    return (match.span(pattern.groups) for match in pattern.finditer(text))


def _any_of(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w'’-])(?:{'|'.join(words.split())})(?![\w'’-])", re.IGNORECASE)


NUMBER = re.compile(r"(?<!\w)(?<!\w\.)\d++(?:[.,:]\d++)*+(?!\w)")
PUNCTUATION = re.compile(r"[^\w\s]+")
LINE_START = re.compile(r"^[^\S\n]*(\S+)", re.MULTILINE)
INDENTED_LINE = re.compile(r"^(?: {4}|\t)[^\S\n]*(\S(?:.*\S)?)", re.MULTILINE)
NEGATION = re.compile(
    r"(?<![\w'’-])(?:none|(?i:not|no|never|nothing|nobody|nowhere|neither|nor|without|cannot|[a-z]+n['’]t))(?![\w'’-])"
)
"""`None` is left out: in writing about Python it is a name."""

DETERMINER = _any_of("a an the this these those each every")
PREPOSITION = _any_of(
    "of in for with on at from by into onto between within during through under over upon among against toward towards"
    " via per"
)
MODAL_VERB = _any_of("can could may might must shall should will would")

TAGGERS: Mapping[str, Tagger] = {
    tagger.name: tagger
    for tagger in (
        Tagger(
            name="in_parentheses",
            description="inside round brackets, the brackets themselves excluded",
            ranges=in_parentheses,
        ),
        Tagger(name="in_quotes", description='between double quotation marks (" or “ ”)', ranges=in_quotes),
        Tagger(
            name="indented_line",
            description="on a line indented by four spaces or a tab: code, lists, continuation",
            ranges=partial(_matches, INDENTED_LINE),
        ),
        Tagger(
            name="line_start",
            description="first word of a line, with what clings to it",
            ranges=partial(_matches, LINE_START),
        ),
        Tagger(
            name="sentence_start",
            description="first word of a paragraph, or a capitalised word after a full stop, ! or ?",
            ranges=sentence_starts,
        ),
        Tagger(
            name="capitalised_word",
            description="a word such as Unicode that is not the first of a sentence: capital, then small letters",
            ranges=capitalised_words,
        ),
        Tagger(
            name="uppercase_word",
            description="two letters or more, all of them capital: HTTP, ASCII",
            ranges=uppercase_words,
        ),
        Tagger(
            name="code_identifier",
            description="a dotted name, a name with an underscore, or a name with a capital inside: os.path, maxItems",
            ranges=identifiers,
        ),
        Tagger(
            name="number",
            description="a number in digits, with its decimal point or separators",
            ranges=partial(_matches, NUMBER),
        ),
        Tagger(
            name="punctuation",
            description="a run of characters that are neither letters, digits, underscores nor white space",
            ranges=partial(_matches, PUNCTUATION),
        ),
        Tagger(
            name="determiner",
            description="a, an, the, this, these, those, each, every",
            ranges=partial(_matches, DETERMINER),
        ),
        Tagger(
            name="preposition",
            description="of, in, for, with, on, at, from, by, into, between, ... (not the ambiguous to and as)",
            ranges=partial(_matches, PREPOSITION),
        ),
        Tagger(
            name="modal_verb",
            description="can, could, may, might, must, shall, should, will, would",
            ranges=partial(_matches, MODAL_VERB),
        ),
        Tagger(
            name="negation",
            description="not, no, never, none, nothing, neither, nor, without, cannot, and words in n't",
            ranges=partial(_matches, NEGATION),
        ),
    )
}
