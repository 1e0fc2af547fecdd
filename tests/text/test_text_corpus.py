"""Laws of a corpus: exact round trip, stable digests, unique ids, and nothing lost without being counted."""

import json
from collections import Counter
from dataclasses import asdict, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrh_ray.errors import CorpusError, UnknownName
from lrh_ray.records import Corpus, Document, Span
from lrh_ray.text import CapitalsSource, JsonlSource, PairsSource, PlainSource, TextConfig, read_corpus
from lrh_ray.text.spreading import spread

few = settings(max_examples=40, deadline=None)
texts = st.text(min_size=1, max_size=60).filter(str.strip)
names = st.text(min_size=1, max_size=10)
Record = dict[str, Any]


@st.composite
def records(draw: st.DrawFn) -> Record:
    """A record as JSON has it; no record class of ours, whose run-time checks draw random numbers."""
    text = draw(texts)
    starts = draw(st.lists(st.integers(0, len(text) - 1), max_size=3))
    ends = [draw(st.integers(start + 1, len(text))) for start in starts]
    spans = [
        {"concept": "span " + draw(names), "value": draw(names), "start": start, "end": end}
        for start, end in zip(starts, ends, strict=True)
    ]
    return {"id": draw(names), "text": text, "labels": draw(st.dictionaries(names, names, max_size=3)), "spans": spans}


corpora = st.lists(records(), min_size=1, max_size=5, unique_by=lambda record: record["id"])


def write_records(folder: Path, records: list[Record], ascii_only: bool = False) -> None:
    lines = [json.dumps(record, ensure_ascii=ascii_only) for record in records]
    (folder / "data.jsonl").write_bytes("\n".join(lines).encode())


def write(folder: Path, *documents: Document) -> None:
    write_records(folder, [asdict(document) for document in documents])


def read(folder: Path, **options: object) -> Corpus:
    return read_corpus(TextConfig(sources=(JsonlSource(path="data.jsonl"),), **options), folder=folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("corpus")


@few
@given(records=corpora, ascii_only=st.booleans())
def test_jsonl_round_trip_is_exact(folder, records, ascii_only):
    write_records(folder, records, ascii_only)
    corpus = read(folder)
    assert [asdict(document) | {"spans": list(map(asdict, document.spans))} for document in corpus.documents] == records
    assert corpus.skipped == 0
    assert corpus.digest == read(folder).digest


@few
@given(first=corpora, second=corpora)
def test_digests_are_equal_only_for_equal_corpora(folder, first, second):
    write_records(folder, first)
    one = read(folder)
    write_records(folder, second)
    two = read(folder)
    assert (one.digest == two.digest) == (one.documents == two.documents)


def test_every_field_counts_in_the_digest(folder):
    span = Span(concept="place", value="city", start=0, end=5)
    base = Document(id="a", text="Paris is big", labels={"topic": "cities"}, spans=(span,))
    variants = [
        base,
        replace(base, id="b"),
        replace(base, text="Paris was big"),
        replace(base, labels={"topic": "towns"}),
        replace(base, labels={"theme": "cities"}),
        replace(base, spans=()),
        *(replace(base, spans=(replace(span, **change),)) for change in ({"end": 4}, {"start": 1}, {"value": "town"})),
    ]
    digests = set()
    for variant in variants:
        write(folder, variant)
        digests.add(read(folder).digest)
    write(folder, base)
    digests.add(read(folder, concepts=("number",)).digest)
    assert len(digests) == len(variants) + 1


def test_the_order_of_sources_changes_no_document(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one 1"}\n{"text": "two"}\n')
    (tmp_path / "b.txt").write_text("first\n\nsecond\n")
    sources = (
        JsonlSource(path="a.jsonl"),
        PlainSource(path="*.txt", split="paragraph"),
        PairsSource(groups=("tense",)),
        CapitalsSource(),
    )
    alone = [
        read_corpus(TextConfig(sources=(source,), concepts=("all",)), folder=tmp_path).documents for source in sources
    ]
    for order in list(permutations(range(4)))[::5]:
        config = TextConfig(sources=tuple(sources[place] for place in order), concepts=("all",))
        together = read_corpus(config, folder=tmp_path)
        assert together.documents == tuple(document for place in order for document in alone[place])
        assert [concept.name for concept in together.concepts][:3] == ["capital_fact", "pair_tense", "capitalised_word"]


@few
@given(
    lines=st.lists(st.sampled_from(['{"text": "good"}', '{"text": 3}', "bad", '{"text": "tiny"}', '{"text": ""}', ""]))
)
def test_skipped_plus_kept_is_all_there_was(folder, lines):
    (folder / "data.jsonl").write_text("\n".join(lines))
    records = Counter(lines)
    del records[""]
    if not records['{"text": "good"}'] and not records['{"text": "tiny"}']:
        with pytest.raises(CorpusError, match="corpus is empty"):
            read(folder, malformed="skip")
        return
    corpus = read(folder, malformed="skip")
    assert corpus.skipped + len(corpus.documents) == records.total()
    assert corpus.skipped == records['{"text": 3}'] + records["bad"] + records['{"text": ""}']


def test_short_documents_are_counted(tmp_path):
    write(tmp_path, *(Document(id=str(size), text="x" * size + " \n") for size in range(1, 6)))
    corpus = read(tmp_path, min_characters=4)
    assert ([document.id for document in corpus.documents], corpus.skipped) == (["4", "5"], 3)


@few
@given(count=st.integers(1, 50), limit=st.integers(1, 60))
def test_a_limited_corpus_is_spread_evenly(count, limit):
    all_documents = [Document(id=str(number), text="x") for number in range(count)]
    chosen = [int(document.id) for document in spread(all_documents, limit)]
    assert len(chosen) == min(count, limit)
    assert all(
        run * count // len(chosen) <= number < (run + 1) * count // len(chosen) for run, number in enumerate(chosen)
    )


def test_a_limited_corpus_does_not_fall_in_step_with_classes(tmp_path):
    config = TextConfig(sources=(PairsSource(groups=("number",), carriers="all"),), max_documents=112)
    classes = Counter(document.labels["pair_number"] for document in read_corpus(config, folder=tmp_path).documents)
    assert set(classes) == {"singular", "plural"}
    assert min(classes.values()) > 30


def test_labels_spans_and_taggers_become_concepts(tmp_path):
    span = Span(concept="place", value="city", start=0, end=5)
    first = Document(id="a", text="Paris, 75001", labels={"topic": "towns"}, spans=(span,))
    write(tmp_path, first, Document(id="b", text="none", labels={"topic": "air"}))
    corpus = read(tmp_path, concepts=("number", "in_quotes", "number"))
    facts = [(concept.name, concept.level, concept.values) for concept in corpus.concepts]
    assert facts == [
        ("topic", "document", ("air", "towns")),
        ("in_quotes", "token", ("yes",)),
        ("number", "token", ("yes",)),
        ("place", "token", ("city",)),
    ]
    assert corpus.documents[0].spans == (span, Span(concept="number", value="yes", start=7, end=12))
    assert corpus.documents[1].spans == ()


@pytest.mark.parametrize(
    ("second", "concepts"),
    [
        (Document(id="b", text="x", labels={"place": "here"}), ()),
        (Document(id="b", text="x"), ("number",)),
        (Document(id="b", text="x", labels={"in_quotes": "here"}), ("in_quotes",)),
    ],
)
def test_a_name_means_one_concept(tmp_path, second, concepts):
    spans = tuple(Span(concept=concept, value="v", start=0, end=1) for concept in ("place", "number"))
    write(tmp_path, Document(id="a", text="x", spans=spans), second)
    with pytest.raises(CorpusError, match="names two concepts"):
        read(tmp_path, concepts=concepts)


def test_repeated_ids_name_both_places(tmp_path):
    (tmp_path / "data.jsonl").write_text('{"text": "x", "id": "a"}\n\n{"text": "y", "id": "a"}\n')
    with pytest.raises(CorpusError, match=r"data.jsonl:3: the id 'a' is taken by .*data.jsonl:1; ") as caught:
        read(tmp_path, malformed="skip")
    assert "Rename" in str(caught.value)


def test_the_same_file_twice_is_refused(tmp_path):
    (tmp_path / "data.jsonl").write_text('{"text": "x"}\n')
    sources = (JsonlSource(path="data.jsonl"), JsonlSource(path="*.jsonl"))
    with pytest.raises(CorpusError, match="read each file once"):
        read_corpus(TextConfig(sources=sources), folder=tmp_path)


def test_an_unknown_concept_is_refused_before_anything_is_read(tmp_path):
    config = TextConfig(sources=(JsonlSource(path="absent.jsonl"),))
    object.__setattr__(config, "concepts", ("nmber",))
    with pytest.raises(UnknownName, match="did you mean 'number'"):
        read_corpus(config, folder=tmp_path)
