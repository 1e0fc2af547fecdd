"""Each source: what it reads, and one message with file and line for everything it cannot."""

import sys
from pathlib import Path
from types import ModuleType

import pyarrow as arrow
import pyarrow.parquet as arrow_parquet
import pytest

from lrh_ray.errors import CorpusError, DependencyMissing
from lrh_ray.records import Corpus
from lrh_ray.text import HubSource, JsonlSource, ParquetSource, PlainSource, SourceConfig, TextConfig, read_corpus


def read(source: SourceConfig, folder: Path, **options: object) -> Corpus:
    return read_corpus(TextConfig(sources=(source,), **options), folder=folder)


MALFORMED_LINES = {
    b"{": "not JSON",
    b"[1, 2]": "holds list",
    b'"text"': "holds str",
    b"{}": "'text' is missing; keys found: none",
    b'{"txt": "x"}': "'text' is missing; keys found: 'txt'",
    b'{"text": "x", "text": "y"}': "'text' appears twice",
    b'{"text": null}': r"text is None \(NoneType\), not a string",
    b'{"text": 3}': "text is 3",
    b'{"text": ["x"]}': "text is .'x'.",
    b'{"text": "\\ud800"}': "surrogate",
    b'{"text": "x", "id": "\\udfff"}': "surrogate",
    b'{"text": "x", "id": 7}': "id is 7",
    b'{"text": "x", "id": ""}': "0 characters; allowed are 1 to",
    b'{"text": "x", "id": "' + b"a" * 201 + b'"}': "201 characters; allowed are 1 to",
    b'{"text": "caf\xe9"}': "byte 14 of the line is not UTF-8",
    b'{"text": "x", "labels": ["a"]}': "`labels` is list",
    b'{"text": "x", "labels": {"a": 1}}': "label 'a' is 1",
    b'{"text": "x", "labels": {"a": null}}': "label 'a' is None",
    b'{"text": "x", "labels": {"a": ""}}': "label 'a' is an empty string",
    b'{"text": "x", "labels": {"": "a"}}': "name of a label is an empty string",
    b'{"text": "x", "spans": {}}': "`spans` is dict",
    b'{"text": "x", "spans": [3]}': r"spans\[0\] is not an object with exactly the keys",
    b'{"text": "x", "spans": [{"concept": "a", "start": 0, "end": 1}]}': r"spans\[0\] is not an object with exactly",
    b'{"text": "x", "spans": [{"concept": "a", "value": "b", "start": 0, "end": 2}]}': "0:2 is empty or out of range",
    b'{"text": "x", "spans": [{"concept": "a", "value": "b", "start": -1, "end": 1}]}': "-1:1 is empty or out of",
    b'{"text": "x", "spans": [{"concept": "a", "value": "b", "start": 1, "end": 1}]}': "1:1 is empty or out of",
    b'{"text": "x", "spans": [{"concept": "a", "value": "b", "start": true, "end": 1}]}': "not both integers",
    b'{"text": "x", "spans": [{"concept": "a", "value": "b", "start": 0.0, "end": 1}]}': "not both integers",
    b'{"text": "x", "spans": [{"concept": 1, "value": "b", "start": 0, "end": 1}]}': "concept of spans.0. is 1",
    b'{"text": "x", "spans": [{"concept": "a", "value": 2, "start": 0, "end": 1}]}': "value of spans.0. is 2",
    b'{"text": ' + b"9" * 5000 + b"}": "not usable JSON",
    b"[" * 200_000: "nested too deeply",
}


@pytest.mark.parametrize("line", MALFORMED_LINES, ids=lambda line: line[:40].decode("latin-1"))
def test_a_malformed_line_is_one_message_or_one_count(tmp_path, line):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "good"}\n\n' + line + b'\n{"text": "good"}\n')
    with pytest.raises(CorpusError, match=MALFORMED_LINES[line]) as caught:
        read(JsonlSource(path="a.jsonl"), tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'a.jsonl'}:3: ")
    assert "`malformed: skip`" in message
    assert len(message) < 500
    assert "\n" not in message
    corpus = read(JsonlSource(path="a.jsonl"), tmp_path, malformed="skip")
    assert [document.id for document in corpus.documents] == ["a.jsonl:1", "a.jsonl:4"]
    assert corpus.skipped == 1


def test_jsonl_accepts_what_editors_leave(tmp_path):
    lines = ['\ufeff{"text": "mark"}\r', "  ", '{"text": "a\u2028b", "other": [1]}']
    (tmp_path / "a.jsonl").write_bytes("\n".join(lines).encode())
    corpus = read(JsonlSource(path="a.jsonl"), tmp_path)
    assert [(document.id, document.text) for document in corpus.documents] == [
        ("a.jsonl:1", "mark"),
        ("a.jsonl:3", "a\u2028b"),
    ]


def test_plain_files_and_paragraphs(tmp_path):
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "a.txt").write_bytes("\ufeff\n\n  One\n two.\r\n \t\n\nThree.  \n".encode())
    (tmp_path / "books" / "b.txt").write_text("Four.")
    whole = read(PlainSource(path="books/*.txt"), tmp_path)
    assert [document.id for document in whole.documents] == ["books/a.txt", "books/b.txt"]
    assert whole.documents[0].text == "\n\n  One\n two.\r\n \t\n\nThree.  \n"
    parts = read(PlainSource(path="books/*.txt", split="paragraph"), tmp_path)
    assert [(document.id, document.text) for document in parts.documents] == [
        ("books/a.txt:3", "One\n two."),
        ("books/a.txt:7", "Three."),
        ("books/b.txt:1", "Four."),
    ]


def test_plain_text_that_is_not_utf8_names_the_line(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\ntwo\ncaf\xe9\n")
    (tmp_path / "b.txt").write_text("fine")
    with pytest.raises(CorpusError, match=r"a.txt:3: the file is not UTF-8 here"):
        read(PlainSource(path="*.txt"), tmp_path)
    assert read(PlainSource(path="*.txt"), tmp_path, malformed="skip").skipped == 1


def write_table(path: Path, **columns: list[object] | arrow.Array) -> None:
    arrow_parquet.write_table(arrow.table(columns), path)


def test_parquet_columns_become_documents(tmp_path):
    topics = arrow.array(["a", None, "b"]).dictionary_encode()
    write_table(tmp_path / "t.parquet", body=["x", "y", "z"], key=[5, 6, 7], topic=topics, level=[1, 2, None])
    source = ParquetSource(path="t.parquet", text_column="body", id_column="key", label_columns=("topic", "level"))
    assert [(document.id, document.text, document.labels) for document in read(source, tmp_path).documents] == [
        ("5", "x", {"topic": "a", "level": "1"}),
        ("6", "y", {"level": "2"}),
        ("7", "z", {"topic": "b"}),
    ]
    unnamed = read(ParquetSource(path="*.parquet", text_column="body"), tmp_path)
    assert [document.id for document in unnamed.documents] == ["t.parquet:0", "t.parquet:1", "t.parquet:2"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a", None]}, r"t.parquet, row 1: the text \(column 'text'\) is None"),
        ({"text": ["a", "b"], "label": [1.0, 0.5]}, "t.parquet, row 0: the label 'label' is the fraction 1.0"),
        (
            {"text": ["a", "b"], "label": ["x", ""]},
            "t.parquet, row 1: the label 'label' is an empty",
        ),
        ({"text": ["a", "b"], "id": ["x", None]}, "t.parquet, row 1: the id is None"),
        ({"text": arrow.array([b"a", b"\xff"]).view(arrow.utf8())}, "t.parquet, row 1: a string is not UTF-8"),
    ],
)
def test_a_malformed_row_is_named(tmp_path, columns, message):
    write_table(tmp_path / "t.parquet", **columns)
    label_columns = ("label",) if "label" in columns else ()
    source = ParquetSource(path="t.parquet", id_column="id" if "id" in columns else None, label_columns=label_columns)
    with pytest.raises(CorpusError, match=message) as caught:
        read(source, tmp_path)
    assert "`malformed: skip`" in str(caught.value)
    if "fraction" not in message:
        assert read(source, tmp_path, malformed="skip").skipped == 1


@pytest.mark.parametrize("malformed", ["error", "skip"])
def test_a_table_that_cannot_be_read_stops_the_run(tmp_path, malformed):
    write_table(tmp_path / "t.parquet", body=["x"])
    with pytest.raises(CorpusError, match=r"t.parquet: no column 'text'; columns there: 'body'\. Correct text_column"):
        read(ParquetSource(path="t.parquet"), tmp_path, malformed=malformed)
    (tmp_path / "t.parquet").write_bytes(b"no table")
    with pytest.raises(CorpusError, match=r"Cannot read '.*t.parquet' as Parquet"):
        read(ParquetSource(path="t.parquet"), tmp_path, malformed=malformed)


@pytest.mark.parametrize("kind", [JsonlSource, PlainSource, ParquetSource])
def test_missing_files_are_explained(tmp_path, kind):
    (tmp_path / "data").mkdir()
    for path, message in {
        "absent.x": "there is no file .* folder of the configuration",
        "*.x": "no file below .* matches",
        "data": "is a folder; name the files in it",
    }.items():
        with pytest.raises(CorpusError, match=message):
            read(kind(path=path), tmp_path, malformed="skip")


@pytest.mark.parametrize("content", ["", "\n\n", '{"text": " "}\n'])
def test_an_empty_corpus_is_refused(tmp_path, content):
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(CorpusError, match=r"corpus is empty: .* Check paths and settings"):
        read(JsonlSource(path="a.jsonl"), tmp_path)


def test_names_do_not_depend_on_where_the_corpus_lies(tmp_path):
    for place in ("here", "there"):
        (tmp_path / place / "data" / "deep").mkdir(parents=True)
        (tmp_path / place / "data" / "deep" / "a[1].txt").write_text("x")
    absolute = [PlainSource(path=str(tmp_path / place / "data" / "**" / "*.txt")) for place in ("here", "there")]
    ids = [read(source, tmp_path).documents[0].id for source in absolute]
    ids += [read(PlainSource(path=str(tmp_path / "here/data/deep/a[1].txt")), tmp_path).documents[0].id]
    ids += [
        read(PlainSource(path="data/deep/a[1].txt"), tmp_path / place).documents[0].id for place in ("here", "there")
    ]
    assert ids == ["deep/a[1].txt", "deep/a[1].txt", "a[1].txt", "data/deep/a[1].txt", "data/deep/a[1].txt"]


def hub_library(rows: list[dict[str, object]]) -> ModuleType:
    """A module in the place of `datasets` whose only data set has these rows."""
    library = ModuleType("datasets")

    def load_dataset(name: str, config: str | None, *, split: str, revision: str | None, streaming: bool):
        if name != "org/known":
            raise FileNotFoundError(f"Dataset {name!r} doesn't exist.")
        return iter(rows) if streaming else rows

    library.load_dataset = load_dataset
    return library


def test_a_hub_data_set_is_streamed_up_to_its_limit(tmp_path, monkeypatch):
    rows = [{"text": f"row {number}", "label": number % 2 == 0} for number in range(10)]
    monkeypatch.setitem(sys.modules, "datasets", hub_library(rows))
    corpus = read(HubSource(name="org/known", config="en", label_columns=("label",), limit=3), tmp_path)
    assert [(document.id, document.labels["label"]) for document in corpus.documents] == [
        ("org/known:en:train:0", "true"),
        ("org/known:en:train:1", "false"),
        ("org/known:en:train:2", "true"),
    ]
    with pytest.raises(CorpusError, match="row 0: no column 'body'; columns there: 'text', 'label'"):
        read(HubSource(name="org/known", text_column="body"), tmp_path)
    with pytest.raises(CorpusError, match=r"Cannot read the hub data set 'org/absent:train': .*doesn't exist"):
        read(HubSource(name="org/absent"), tmp_path)


def test_the_hub_needs_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DependencyMissing, match=r"pip install 'lrh-ray\[hub\]'"):
        read(HubSource(name="org/known"), tmp_path)
