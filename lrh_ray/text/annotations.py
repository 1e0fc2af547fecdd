"""Labels that come after the text: JSON Lines that name documents by their id.

    {"id": "notes:3", "labels": {"topic": "cities"},
     "spans": [{"concept": "place", "value": "city", "start": 0, "end": 5}]}

(on one line). The keys are those of the `jsonl` source without `text`; where `text` is given it must be the
document's. Offsets count Unicode code points of the document's text. Several lines may speak of one document.

What can go wrong, each a `CorpusError` that names the line: a document nobody knows, a span that leaves its text, a
text that is another one, a label given twice with different values, no labels at all.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lrh_ray.errors import CorpusError
from lrh_ray.records import Concept, Document
from lrh_ray.text.corpus import catalogue
from lrh_ray.text.files import CorpusFile
from lrh_ray.text.jsonl import json_object, labels_of, lines_of, spans_of
from lrh_ray.text.reading import Malformed, RecordError, attempt, document_id, unicode_string


def read_annotations(path: Path, texts: Mapping[str, str]) -> tuple[tuple[Concept, ...], tuple[Document, ...]]:
    """Concepts and annotated documents of a JSON Lines file; `texts` maps the known ids to their text."""
    documents: dict[str, Document] = {}
    for number, line in lines_of(CorpusFile(path=path, name=path.name)):
        reading = attempt(f"{path}:{number}", _annotation, line, texts)
        if isinstance(reading, Malformed):
            raise CorpusError(f"{reading.place}: {reading.reason} Nothing was added.")
        found = reading.document
        documents[found.id] = _merged(documents.get(found.id), found, reading.place)
    if not any(one.labels or one.spans for one in documents.values()):
        raise CorpusError(f"{str(path)!r} holds no labels and no spans. Nothing was added.")
    annotated = tuple(documents.values())
    return catalogue(annotated, (), {}), annotated


def _annotation(line: bytes, texts: Mapping[str, str]) -> Document:
    record = json_object(line)
    name = document_id(record.get("id"))
    if name not in texts:
        raise RecordError(f"the store has no document {name!r}.")
    text = texts[name]
    if "text" in record and unicode_string(record["text"], "text") != text:
        raise RecordError(f"the text is not the text of document {name!r}.")
    return Document(
        id=name, text=text, labels=labels_of(record.get("labels", {})), spans=spans_of(record.get("spans", []), text)
    )


def _merged(standing: Document | None, found: Document, place: str) -> Document:
    if standing is None:
        return found
    twice = [name for name, value in found.labels.items() if standing.labels.get(name, value) != value]
    if twice:
        raise CorpusError(f"{place}: label {twice[0]!r} of {found.id!r} has another value on an earlier line.")
    spans = tuple(dict.fromkeys([*standing.spans, *found.spans]))
    return replace(standing, labels={**standing.labels, **found.labels}, spans=spans)
