"""Plain text: one document per file, or one per paragraph, without labels.

A document of a file is the file, character by character, named after it; a paragraph is a run of lines between blank
ones, without the white space around it, named file:line after its first line. A byte-order mark is dropped.

What can go wrong: a file that is not UTF-8 is one malformed record, placed at the line of the first bad byte.
"""

import codecs
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from lrh_ray.records import Document
from lrh_ray.text.config import PlainSource
from lrh_ray.text.files import CorpusFile, corpus_files
from lrh_ray.text.reading import Malformed, Reading, attempt, document_id

DESCRIPTIONS: Mapping[str, str] = {}

PARAGRAPH = re.compile(r"\S.*(?:\n[ \t\r]*\S.*)*")


def read(source: PlainSource, folder: Path) -> Iterator[Reading]:
    """One reading per file or paragraph, file after file."""
    for file in corpus_files(source.path, folder):
        data = file.read_bytes().removeprefix(codecs.BOM_UTF8)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            yield Malformed(place=f"{file.path}:{line}", reason="the file is not UTF-8 here; convert it.")
            continue
        if source.split == "file":
            yield attempt(str(file.path), _document, file.name, text)
        else:
            yield from _paragraphs(file, text)


def _paragraphs(file: CorpusFile, text: str) -> Iterator[Reading]:
    line, counted = 1, 0
    for match in PARAGRAPH.finditer(text):
        line += text.count("\n", counted, match.start())
        counted = match.start()
        yield attempt(f"{file.path}:{line}", _document, f"{file.name}:{line}", match.group().rstrip())


def _document(name: str, text: str) -> Document:
    return Document(id=document_id(name), text=text)
