"""Counterfactual word pairs: files of two columns, each word a document of its own.

A file is a concept; a line is two words that differ in it and in nothing else, `king<TAB>queen`. The concept is named
after the file, without the brackets that published lists put around it: `[male - female].txt` is `male - female`. The
word alone is the text, as in the pair test of 2503.08980 and in 2311.03658, whose files have this format.

    for reading in read(WordPairsSource(path="word_pairs/*.txt"), folder): ...
    pair_member("male - female/17/first")       # PairMember(concept="male - female", pair="17", side="first")

The id of a document says which pair it belongs to and on which side; a word of several pairs is a document in each. The
label of the concept is the side. Two kinds of lines say nothing and are left out, as published lists have them: a pair
that repeats another of its file, and a pair of equal words (six, French for six), whose difference is zero.

What can go wrong: a line without exactly one tab, or with an empty word, is malformed. A glob pattern reads brackets as
a set of letters; name files by `*.txt`, or write `[[]`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias, get_args

from lrh_ray.records import Document
from lrh_ray.text.config import WordPairsSource
from lrh_ray.text.files import CorpusFile, corpus_files
from lrh_ray.text.reading import Found, Malformed, Reading

DESCRIPTIONS: Mapping[str, str] = {}

Side: TypeAlias = Literal["first", "second"]
SIDES: tuple[Side, Side] = get_args(Side)


@dataclass(frozen=True, kw_only=True, slots=True)
class PairMember:
    """Which word of which pair a document is."""

    concept: str
    pair: str
    side: Side


def pair_member(document_id: str) -> PairMember | None:
    """What the id of a word's document says; None for any other document."""
    concept, _, rest = document_id.partition("/")
    pair, _, side = rest.partition("/")
    return PairMember(concept=concept, pair=pair, side=side) if pair and side in SIDES else None


def read(source: WordPairsSource, folder: Path) -> Iterator[Reading]:
    """Two documents per pair, first word first, in the order of the files and lines."""
    for file in corpus_files(source.path, folder):
        yield from _pairs(file)


def pair_documents(
    place: str, concept: str, pair: str, words: tuple[str, str], *, label: str, classes: tuple[str, str] = SIDES
) -> Iterator[Found]:
    """Both words of a pair as documents; `label` names the concept in the labels, `classes` its two values."""
    for side, word, value in zip(SIDES, words, classes, strict=True):
        document = Document(id=f"{concept}/{pair}/{side}", text=word, labels={label: value})
        yield Found(place=place, document=document)


def concept_of(name: str) -> str:
    """The concept that a file is about."""
    return PurePosixPath(name).stem.removeprefix("[").removesuffix("]").replace("/", " ").strip()


def _pairs(file: CorpusFile) -> Iterator[Reading]:
    concept, seen = concept_of(file.name), set()
    try:
        lines = file.read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        yield Malformed(place=str(file.path), reason="the file is not UTF-8; convert it.")
        return
    for number, line in enumerate(lines, start=1):
        place, words = f"{file.path}:{number}", tuple(word.strip() for word in line.split("\t"))
        if not line.strip():
            continue
        if len(words) != 2 or not all(words):
            yield Malformed(place=place, reason=f"{line[:60]!r} is not two words with a tab between them.")
        elif words not in seen and words[0] != words[1]:
            seen.add(words)
            yield from pair_documents(place, concept, str(number), words, label=concept)
