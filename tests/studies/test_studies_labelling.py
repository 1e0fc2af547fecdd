"""Labels added later: found by characters, checked against the text, added once."""

import json

import numpy as np
import pytest

from lrh_ray.errors import ConfigError, CorpusError, StoreConflict, StoreMissing
from lrh_ray.store.reader import open_store
from lrh_ray.store.seal import seal
from lrh_ray.studies.labelling import add_labels
from lrh_ray.testing.stores import fill, make_store

LENGTHS = [7, 30, 12, 25]


@pytest.fixture
def fake(tmp_path):
    made = make_store(tmp_path / "store", LENGTHS)
    fill(made)
    seal(made.root, made.plan, parity={})
    return made


def write(path, *records):
    path.write_text("\n".join(json.dumps(record) for record in records))
    return path


def test_spans_reach_the_tokens_they_overlap_and_labels_the_documents(fake, tmp_path):
    spans = [{"concept": "middle", "value": "yes", "start": 4, "end": 9}]
    lines = write(
        tmp_path / "mine.jsonl",
        {"id": "doc-1", "labels": {"mood": "glad"}, "spans": spans},
        {"id": "doc-2", "labels": {"mood": "sad"}},
    )
    facts = add_labels(fake.root, lines)
    assert (facts["labels"], facts["concepts"], facts["documents"], facts["spans"]) == (
        "mine",
        ["mood", "middle"],
        2,
        1,
    )
    store = open_store(fake.root)
    labels = store.labels("mine")
    assert dict(zip(store.document_ids, labels.document_values("mood"), strict=True)) == {
        "doc-0": None, "doc-1": "glad", "doc-2": "sad", "doc-3": None,
    }  # fmt: skip
    for block in range(store.plan.num_blocks):
        keys = store.keys(block)
        mask = labels.token_mask("middle", keys.doc, keys.char_start, keys.char_end)
        wanted = (np.array(store.document_ids)[keys.doc] == "doc-1") & np.isin(keys.position, [2, 3, 4])
        np.testing.assert_array_equal(mask, wanted)
    assert store.root == open_store(fake.root).root  # labels stay outside the root


def test_adding_twice_is_no_change_and_other_labels_of_the_name_are_refused(fake, tmp_path):
    lines = write(tmp_path / "mine.jsonl", {"id": "doc-1", "labels": {"mood": "glad"}})
    assert add_labels(fake.root, lines) == add_labels(fake.root, lines)
    write(lines, {"id": "doc-1", "labels": {"mood": "sad"}})
    with pytest.raises(StoreConflict, match="other labels 'mine'"):
        add_labels(fake.root, lines)
    assert add_labels(fake.root, lines, name="moods")["labels"] == "moods"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"id": "nobody", "labels": {"a": "b"}}, r"mine\.jsonl:1: the store has no document 'nobody'"),
        ({"id": "doc-0", "text": "other", "labels": {"a": "b"}}, "not the text of document"),
        ({"id": "doc-0", "spans": [{"concept": "a", "value": "b", "start": 0, "end": 99}]}, "out of range"),
        ({"id": "doc-0"}, "no labels and no spans"),
    ],
)
def test_a_line_that_cannot_be_used_is_named_and_nothing_is_added(fake, tmp_path, record, message):
    lines = write(tmp_path / "mine.jsonl", record)
    with pytest.raises(CorpusError, match=message):
        add_labels(fake.root, lines)
    with pytest.raises(StoreMissing):
        open_store(fake.root).labels("mine")


def test_names_that_cannot_name_a_sidecar_are_refused(fake, tmp_path):
    lines = write(tmp_path / "mine.jsonl", {"id": "doc-1", "labels": {"mood": "glad"}})
    for name in ("../evil", "corpus", ""):
        with pytest.raises(ConfigError, match="cannot be named"):
            add_labels(fake.root, lines, name=name)
