"""From settings to a corpus: read every source, count what cannot be used, name and digest what can.

    corpus = read_corpus(TextConfig(sources=(PythonDocsSource(),), concepts=("all",)), folder=Path("."))

Sources are read in the order of the configuration, and a document is the same whatever stands beside it. The digest
covers ids, texts, labels and spans in order, and the catalogue of concepts. `skipped` counts the malformed and the too
short records: skipped plus kept is what the sources held. `max_documents` then keeps one document from each of as many
equal runs, the one whose hashed id is lowest, because the head of a corpus is one source and a fixed step can fall in
step with the order of classes. `transform` comes last, and enters the digest.

What can go wrong, each a `CorpusError`: nothing remains; two documents share an id; a record is malformed and the
settings do not skip it; one name is a label here and a span there. A corpus is held in memory: documents and spans
of some hundred million characters are too much, read a part of it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import cast

from lrh_ray.digests import digest_json
from lrh_ray.errors import CorpusError
from lrh_ray.records import Concept, Corpus, Document
from lrh_ray.text.concepts import PRESENT, TAGGERS, tag, tagger_names
from lrh_ray.text.config import SourceConfig, TextConfig
from lrh_ray.text.reading import Found, Malformed, Source
from lrh_ray.text.spreading import spread
from lrh_ray.text.transforms import parse_transform, transformed

Values = Mapping[str, set[str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """The usable records of all sources, and how many were left out."""

    found: tuple[Found, ...]
    skipped: int


def read_corpus(config: TextConfig, *, folder: Path) -> Corpus:
    """The corpus that `config` describes; relative paths start at `folder`, the folder of the configuration.

    Raises:
        CorpusError: as in the module's docstring; the message names file and line.
        UnknownName: a concept that no tagger computes.
        DependencyMissing: a source of kind `hub` without the library it needs.
    """
    taggers = tagger_names(config.concepts)
    kept = _kept(config, folder)
    if not kept.found:
        raise CorpusError(
            f"The corpus is empty: no document in {len(config.sources)} source(s); {kept.skipped} record(s) were left"
            f" out as malformed or shorter than min_characters = {config.min_characters}. Check paths and settings."
        )
    _refuse_repeated_ids(kept.found)
    transform = parse_transform(config.transform)
    spread_out = spread([found.document for found in kept.found], config.max_documents)
    chosen = tuple(transformed(document, transform) for document in spread_out)
    concepts = catalogue(chosen, taggers, _descriptions(config.sources))
    documents = tuple(replace(document, spans=document.spans + tag(document.text, taggers)) for document in chosen)
    digest = _digest(documents, concepts)
    if transform is not None:
        digest = digest_json([digest, config.transform])
    return Corpus(documents=documents, concepts=concepts, skipped=kept.skipped, digest=digest)


def _module(source: SourceConfig) -> Source:
    """The module that reads `source`; imported here, because some load large libraries."""
    return cast(Source, import_module(f"lrh_ray.text.{source.kind.replace('-', '_')}"))


def _kept(config: TextConfig, folder: Path) -> Kept:
    found, skipped = [], 0
    for source in config.sources:
        for reading in _module(source).read(source, folder):
            if isinstance(reading, Malformed):
                _refuse_unless_skipped(reading, config)
                skipped += 1
            elif len(reading.document.text.strip()) < config.min_characters:
                skipped += 1
            else:
                found.append(reading)
    return Kept(found=tuple(found), skipped=skipped)


def _refuse_unless_skipped(record: Malformed, config: TextConfig) -> None:
    if config.malformed == "error":
        raise CorpusError(
            f"{record.place}: {record.reason} Repair it, or set `malformed: skip` to leave such records out and count"
            " them."
        )


def _refuse_repeated_ids(found: Iterable[Found]) -> None:
    places: dict[str, str] = {}
    for one in found:
        name = one.document.id
        if name in places:
            raise CorpusError(
                f"{one.place}: the id {name!r} is taken by {places[name]}; ids are unique in a corpus. Rename one,"
                " leave ids out to have documents named file:line, and read each file once."
            )
        places[name] = one.place


def catalogue(
    documents: Iterable[Document], taggers: Sequence[str], descriptions: Mapping[str, str]
) -> tuple[Concept, ...]:
    """Concepts of the documents' labels, then those of their spans and of the taggers, each sorted by name."""
    labels: defaultdict[str, set[str]] = defaultdict(set)
    spans: defaultdict[str, set[str]] = defaultdict(set)
    for document in documents:
        for name, value in document.labels.items():
            labels[name].add(value)
        for span in document.spans:
            spans[span.concept].add(span.value)
    for name in [*spans, *taggers]:
        if name in labels or (name in spans and name in taggers):
            raise CorpusError(
                f"{name!r} names two concepts: a label, a span or a computed one. Rename it in the source, or leave it"
                " out of text.concepts."
            )
    return tuple(_concepts(labels, spans, taggers, descriptions))


def _concepts(labels: Values, spans: Values, taggers: Sequence[str], described: Mapping[str, str]) -> Iterator[Concept]:
    for name, values in sorted(labels.items()):
        description = described.get(name, f"label {name!r} of the documents")
        yield Concept(name=name, level="document", description=description, values=tuple(sorted(values)))
    for name in sorted([*spans, *taggers]):
        values = spans.get(name, {PRESENT})
        description = TAGGERS[name].description if name in taggers else described.get(name, f"span marked {name!r}")
        yield Concept(name=name, level="token", description=description, values=tuple(sorted(values)))


def _descriptions(sources: Sequence[SourceConfig]) -> dict[str, str]:
    return {name: text for source in sources for name, text in _module(source).DESCRIPTIONS.items()}


def _digest(documents: Iterable[Document], concepts: Iterable[Concept]) -> str:
    """Digest over the documents in order and the catalogue; hashed one by one, so that no second copy is built."""
    return digest_json(
        {
            "documents": [digest_json(_document_fields(document)) for document in documents],
            "concepts": [[one.name, one.level, one.description, list(one.values)] for one in concepts],
        }
    )


def _document_fields(document: Document) -> list[object]:
    spans = [[span.concept, span.value, span.start, span.end] for span in document.spans]
    return [document.id, document.text, dict(document.labels), spans]
