"""Documents and labels of a store: Parquet tables beside the arrays.

`plan/documents.parquet` holds one row per stored sequence (id, text, SHA-256 of the text), in stored order; a document
split over several sequences repeats. `labels/<name>.parquet` is a sidecar: labels of whole documents (start = -1) and
of character spans, with the catalogue of concepts in the file's metadata. Labels can be added at any time without a
model, because tokens are found by their character offsets.
"""

import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lrh_ray.digests import digest_bytes, digest_json
from lrh_ray.errors import StoreCorrupt, StoreMissing, UnknownName
from lrh_ray.layouts import RowInts, RowMask
from lrh_ray.records import Concept, Document
from lrh_ray.store.objects import Objects

DOCUMENTS = "plan/documents.parquet"
CATALOGUE = b"lrh.concepts"
LABELS_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
MAX_EXPANSION = 200
INDEX_BYTES = 4
TEXT_COLUMNS = ("id", "text", "document", "concept", "value")
OFFSET_BITS = 32


def write_documents(objects: Objects, documents: Sequence[Document]) -> None:
    """Write the documents in the given (stored) order."""
    texts = [document.text for document in documents]
    table = pa.table(
        {
            "id": pa.array([document.id for document in documents], pa.string()),
            "sha256": pa.array([text_digest(text) for text in texts], pa.binary(32)),
            "text": pa.array(texts, pa.large_string()),
        }
    )
    objects.put(DOCUMENTS, _parquet(table))


def text_digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def read_documents(objects: Objects, num_sequences: int, column: Literal["id", "text"]) -> list[str]:
    """One column of the documents, in stored order.

    Raises:
        StoreCorrupt: The table is missing or has another number of rows than the plan.
    """
    values: list[str] = read_table(objects, DOCUMENTS, [column]).column(column).to_pylist()
    if len(values) != num_sequences:
        raise StoreCorrupt(f"{DOCUMENTS} has {len(values)} rows, the plan {num_sequences}. Restore it from a copy.")
    return values


def read_table(objects: Objects, key: str, columns: list[str]) -> pa.Table:
    """Columns of a Parquet table, refused when they unpack to far more than the file holds.

    Raises:
        StoreCorrupt: Missing, not Parquet, or a table that unpacks beyond `MAX_EXPANSION` times its size.
    """
    facts = objects.get(key, 0, 0)
    if facts is None:
        raise StoreCorrupt(f"{objects.location!r} has lost {key}. Restore it from a copy.")
    path = objects.local_path(key)
    most = MAX_EXPANSION * facts.num_bytes + (64 << 20)
    texts = [name for name in columns if name in TEXT_COLUMNS]
    try:
        file = pq.ParquetFile(io.BytesIO(_whole(objects, key)) if path is None else path, read_dictionary=texts)
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        rows_bytes = INDEX_BYTES * file.metadata.num_rows * len(columns)
        if max(sum(group.total_byte_size for group in groups), rows_bytes) > most:
            raise StoreCorrupt(f"{key} declares far more data than it can hold. It is not read.")
        table = file.read(columns=columns)
        if sum(_text_bytes(column) for column in table.columns) > most:
            raise StoreCorrupt(f"{key} unpacks to far more data than it can hold. It is not used.")
        return pa.table({name: _unpacked(table.column(name)) for name in columns}).replace_schema_metadata(
            table.schema.metadata
        )
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        if isinstance(error, StoreCorrupt):
            raise
        raise StoreCorrupt(f"{key} cannot be read as Parquet ({error}). Restore it from a copy.") from error


def _text_bytes(column: pa.ChunkedArray) -> int:
    """Bytes of a column of texts if each row had its own; texts are read as a dictionary, which holds each once."""
    total = 0
    for chunk in column.chunks:
        if pa.types.is_dictionary(chunk.type) and len(chunk):
            total += pc.sum(pc.binary_length(chunk.dictionary).take(chunk.indices)).as_py() or 0
    return total


def _unpacked(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _whole(objects: Objects, key: str) -> bytes:
    found = objects.get(key)
    return b"" if found is None else found.data


def write_labels(objects: Objects, name: str, concepts: Sequence[Concept], documents: Iterable[Document]) -> None:
    """Write the labels that travel with documents as one sidecar."""
    objects.put(labels_key(name), labels_table(concepts, documents))


def labels_table(concepts: Sequence[Concept], documents: Iterable[Document]) -> bytes:
    """A sidecar's bytes: labels of whole documents (start = -1) and of spans, with the catalogue of concepts."""
    rows: list[tuple[str, str, str, int, int]] = []
    for document in documents:
        rows.extend((document.id, concept, value, -1, -1) for concept, value in sorted(document.labels.items()))
        rows.extend((document.id, span.concept, span.value, span.start, span.end) for span in document.spans)
    names = ("document", "concept", "value", "start", "end")
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    types = (pa.string(), pa.string(), pa.string(), pa.int32(), pa.int32())
    table = pa.table({name: pa.array(column, kind) for name, column, kind in zip(names, columns, types, strict=True)})
    catalogue = json.dumps([asdict(concept) for concept in concepts], sort_keys=True).encode()
    return _parquet(table.replace_schema_metadata({CATALOGUE: catalogue}))


def labels_key(name: str) -> str:
    return f"labels/{name}.parquet"


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


@dataclass(frozen=True, kw_only=True)
class Labels:
    """One sidecar, opened against a store's documents."""

    name: str
    table: pa.Table
    """Columns document, concept, value, start, end."""
    concepts: Mapping[str, Concept]
    document_ids: Sequence[str]
    """Ids in stored order; a split document repeats."""
    digest: str

    def concept(self, name: str) -> Concept:
        if name not in self.concepts:
            known = ", ".join(sorted(self.concepts))
            raise UnknownName(f"No concept {name!r} in labels {self.name!r}. Known: {known}.")
        return self.concepts[name]

    def document_values(self, concept: str) -> list[str | None]:
        """Value of a document-level concept per stored sequence; None where the document has none."""
        table = self._rows(concept)
        values = dict(zip(table["document"].to_pylist(), table["value"].to_pylist(), strict=True))
        return [values.get(document) for document in self.document_ids]

    def document_codes(self, concept: str) -> np.ndarray:
        """The same as numbers that index the concept's values [sequences]; -1 where the document has none."""
        index = {value: code for code, value in enumerate(self.concepts[concept].values)}
        values = self.document_values(concept)
        return np.array([-1 if value is None else index[value] for value in values], dtype=np.int64)

    def token_mask(
        self, concept: str, doc: RowInts, char_start: RowInts, char_end: RowInts, value: str | None = None
    ) -> RowMask:
        """Which rows overlap a span of a token-level concept (with `value`, if given).

        `doc` indexes stored sequences; -1 is never positive.
        """
        first, last = self._spans(concept, value)
        if not len(first):
            return np.zeros(len(doc), dtype=bool)
        base = doc.astype(np.int64) << OFFSET_BITS
        candidate = np.searchsorted(last, base + char_start, side="right")  # first span that ends after the row starts
        inside = candidate < len(first)
        overlaps = first[np.minimum(candidate, len(first) - 1)] < base + char_end
        return np.asarray(inside & overlaps & (char_end > char_start) & (doc >= 0))

    def _rows(self, concept: str) -> pa.Table:
        self.concept(concept)
        return self.table.filter(pc.equal(self.table["concept"], concept))

    def documents_with(self, concept: str, value: str) -> set[str]:
        """Ids of the documents that have a span of a token-level concept with this value."""
        table = self._rows(concept)
        return {
            document
            for document, found in zip(table["document"].to_pylist(), table["value"].to_pylist(), strict=True)
            if found == value
        }

    def _spans(self, concept: str, value: str | None) -> tuple[np.ndarray, np.ndarray]:
        """Sorted span borders as document << 32 | character, overlapping spans joined, for every stored sequence."""
        table = self._rows(concept)
        if value is not None:
            table = table.filter(pc.equal(table["value"], value))
        sequences: dict[str, list[int]] = {}
        for index, document in enumerate(self.document_ids):
            sequences.setdefault(document, []).append(index)
        spans = sorted(
            ((index << OFFSET_BITS) + start, (index << OFFSET_BITS) + end)
            for document, start, end in zip(
                table["document"].to_pylist(), table["start"].to_pylist(), table["end"].to_pylist(), strict=True
            )
            for index in sequences.get(document, ())
        )
        joined: list[tuple[int, int]] = []
        for start, end in spans:
            if joined and start < joined[-1][1]:
                joined[-1] = (joined[-1][0], max(joined[-1][1], end))
            else:
                joined.append((start, end))
        borders = np.array(joined, dtype=np.int64).reshape(-1, 2)
        return borders[:, 0], borders[:, 1]


def open_labels(objects: Objects, document_ids: Sequence[str], name: str = "corpus") -> Labels:
    """A sidecar by name.

    Raises:
        StoreMissing: No labels of this name; the known ones are listed.
        StoreCorrupt: The sidecar is damaged.
    """
    if not LABELS_NAME.fullmatch(name) or objects.get(labels_key(name), 0, 0) is None:
        known = sorted(entry.key[7:-8] for entry in objects.list("labels") if entry.key.endswith(".parquet"))
        raise StoreMissing(
            f"The store {objects.location!r} has no labels {name!r}. Known: {', '.join(known) or 'none'}."
        )
    table = read_table(objects, labels_key(name), ["document", "concept", "value", "start", "end"])
    try:
        catalogue = json.loads(table.schema.metadata[CATALOGUE])
        concepts = {entry["name"]: Concept(**{**entry, "values": tuple(entry["values"])}) for entry in catalogue}
    except (TypeError, KeyError, ValueError) as error:
        raise StoreCorrupt(f"{labels_key(name)} has no catalogue of concepts ({error}).") from error
    digest = digest_bytes(_whole(objects, labels_key(name)))
    return Labels(name=name, table=table, concepts=concepts, document_ids=document_ids, digest=digest)


def join_labels(parts: Sequence[Labels]) -> Labels:
    """Labels of stores that follow one another, under one name; a concept has the values of all of them."""
    concepts: dict[str, Concept] = {}
    for part in parts:
        for name, concept in part.concepts.items():
            values = concepts[name].values if name in concepts else ()
            concepts[name] = replace(concept, values=tuple(dict.fromkeys([*values, *concept.values])))
    return Labels(
        name=parts[0].name,
        table=pa.concat_tables([part.table.replace_schema_metadata(None) for part in parts]),
        concepts=concepts,
        document_ids=tuple(name for part in parts for name in part.document_ids),
        digest=digest_json([part.digest for part in parts]),
    )
