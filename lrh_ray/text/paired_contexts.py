"""Paired contexts: texts that a model is to continue with the first or with the second word of a pair.

One JSON object a line, in the format of Park et al. (2311.03658):

    {"word0": "off", "word1": "loin", "contexts0": ["... many surviving off"], "contexts1": ["... plus loin"]}

(other keys are ignored). Each context ends with its word, which is taken off: what is left is a document whose last row
should predict the word. A file is a set of contexts and is named like it.

    for reading in read(PairedContextsSource(path="paired_contexts/*.jsonl"), folder): ...
    context_member("en-fr/12/second/3")     # ContextMember(contexts="en-fr", pair="12", side="second")

Contexts of one line share their words, and often their source: they are one group for every interval. A context in
which the word is the end of a longer one, or the whole text, says nothing and is left out.

What can go wrong: a context that does not end with its word is malformed, and so is a line without one of these keys.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lrh_ray.records import Document
from lrh_ray.text.config import PairedContextsSource
from lrh_ray.text.files import CorpusFile, corpus_files
from lrh_ray.text.jsonl import json_object, lines_of
from lrh_ray.text.reading import Found, Malformed, Reading, RecordError, unicode_string
from lrh_ray.text.word_pairs import SIDES, Side, concept_of

DESCRIPTIONS: Mapping[str, str] = {}


@dataclass(frozen=True, kw_only=True, slots=True)
class ContextMember:
    """Which set and line a document is of, and with which word of the line it goes on."""

    contexts: str
    pair: str
    side: Side


def context_member(document_id: str) -> ContextMember | None:
    """What the id of a context says; None for any other document."""
    parts = document_id.split("/")
    if len(parts) != 4 or parts[2] not in SIDES or not all(parts):
        return None
    return ContextMember(contexts=parts[0], pair=parts[1], side=parts[2])


def read(source: PairedContextsSource, folder: Path) -> Iterator[Reading]:
    """Contexts of first words, then of second ones, line by line and file by file."""
    for file in corpus_files(source.path, folder):
        for count, (number, line) in enumerate(lines_of(file)):
            if source.limit is None or count < source.limit:
                yield from _contexts(file, number, line)


def _contexts(file: CorpusFile, number: int, line: bytes) -> Iterator[Reading]:
    name, place = concept_of(file.name), f"{file.path}:{number}"
    try:
        found = [(side, index, text) for side in (0, 1) for index, text in _cut(json_object(line), side)]
    except RecordError as error:
        yield Malformed(place=place, reason=str(error))
        return
    for side, index, text in found:
        document_id = f"{name}/{number}/{SIDES[side]}/{index}"
        yield Found(place=place, document=Document(id=document_id, text=text, labels={name: SIDES[side]}))


def _cut(record: dict[str, object], side: int) -> Iterator[tuple[int, str]]:
    """Number and text of each context of one side, without its word."""
    word, contexts = unicode_string(record.get(f"word{side}"), f"word{side}"), record.get(f"contexts{side}")
    if not word or not isinstance(contexts, list):
        raise RecordError(f"`word{side}` is empty, or `contexts{side}` is no list.")
    for index, context in enumerate(contexts):
        text = unicode_string(context, f"contexts{side}[{index}]")
        if not text.endswith(word):
            raise RecordError(f"contexts{side}[{index}] ends in {text[-20:]!r}, not in {word!r}.")
        before = text.removesuffix(word)
        if before.strip() and not before[-1].isalnum():
            yield index, before.rstrip()
