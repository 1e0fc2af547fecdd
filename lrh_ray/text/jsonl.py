"""JSON Lines: one document per line.

    {"text": "Paris is in France.", "id": "a1", "labels": {"topic": "cities"},
     "spans": [{"concept": "place", "value": "city", "start": 0, "end": 5}]}

(on one line). Only `text` is required. `labels` map a concept to this document's class; `spans` mark characters
`start:end` of the text, counted in Unicode code points from 0. Without `id` a document is named file:line. Blank
lines are no records; keys other than these four are ignored; a byte-order mark is accepted.

What can go wrong, each a malformed record with its line: not UTF-8, not JSON, a key twice, `text` missing, a value
of the wrong type, a span that is empty or leaves the text.
"""

import codecs
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from lrh_ray.errors import CorpusError
from lrh_ray.records import Document, Span
from lrh_ray.text.config import JsonlSource
from lrh_ray.text.files import CorpusFile, corpus_files
from lrh_ray.text.reading import Reading, RecordError, attempt, class_name, document_id, unicode_string

DESCRIPTIONS: Mapping[str, str] = {}


def read(source: JsonlSource, folder: Path) -> Iterator[Reading]:
    """One reading per line that is not blank, file after file."""
    for file in corpus_files(source.path, folder):
        for number, line in lines_of(file):
            yield attempt(f"{file.path}:{number}", _document, line, f"{file.name}:{number}")


def lines_of(file: CorpusFile) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, numbered from 1. Only a line feed ends a line: JSON strings may hold U+2028."""
    try:
        with file.path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
    except OSError as error:
        raise CorpusError(f"Cannot read {str(file.path)!r}: {error.strerror}. Check its permissions.") from error


def _document(line: bytes, default_id: str) -> Document:
    record = json_object(line)
    if "text" not in record:
        raise RecordError(f"the key 'text' is missing; keys found: {', '.join(map(repr, record)) or 'none'}.")
    text = unicode_string(record["text"], "text")
    return Document(
        id=document_id(record.get("id", default_id)),
        text=text,
        labels=labels_of(record.get("labels", {})),
        spans=spans_of(record.get("spans", []), text),
    )


def json_object(line: bytes) -> dict[str, object]:
    """The object on one line."""
    try:
        record = json.loads(line.decode("utf-8"), object_pairs_hook=_unique_keys)
    except UnicodeDecodeError as error:
        raise RecordError(f"byte {error.start + 1} of the line is not UTF-8.") from error
    except json.JSONDecodeError as error:
        raise RecordError(f"not JSON: {error.msg} at character {error.colno}.") from error
    except RecursionError as error:
        raise RecordError("not usable JSON: brackets are nested too deeply.") from error
    except RecordError:
        raise
    except ValueError as error:
        raise RecordError(f"not usable JSON: {error}.") from error
    if not isinstance(record, dict):
        raise RecordError(f"the line holds {type(record).__name__}, not an object in braces.")
    return record


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    record = dict(pairs)
    if len(record) < len(pairs):
        twice = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
        raise RecordError(f"the key {twice!r} appears twice.")
    return record


def labels_of(labels: object) -> dict[str, str]:
    """Labels of a whole document."""
    if not isinstance(labels, dict):
        raise RecordError(f"`labels` is {type(labels).__name__}, not an object of concept: value.")
    return {
        class_name(concept, "name of a label"): class_name(value, f"label {concept!r}")
        for concept, value in labels.items()
    }


def spans_of(spans: object, text: str) -> tuple[Span, ...]:
    """Labelled characters of `text`."""
    if not isinstance(spans, list):
        raise RecordError(f"`spans` is {type(spans).__name__}, not a list.")
    return tuple(_span(span, text, f"spans[{index}]") for index, span in enumerate(spans))


def _span(span: object, text: str, what: str) -> Span:
    expected = {"concept", "value", "start", "end"}
    if not isinstance(span, dict) or set(span) != expected:
        raise RecordError(f"{what} is not an object with exactly the keys concept, value, start and end.")
    start, end = span["start"], span["end"]
    if type(start) is not int or type(end) is not int:
        raise RecordError(f"{what}: start {start!r} and end {end!r} are not both integers.")
    if not 0 <= start < end <= len(text):
        raise RecordError(f"{what}: {start}:{end} is empty or out of range; the text has {len(text)} characters.")
    concept = class_name(span["concept"], f"concept of {what}")
    return Span(concept=concept, value=class_name(span["value"], f"value of {what}"), start=start, end=end)
