"""Documents and labels of a store: Parquet tables beside the arrays.

`plan/documents.parquet` holds one row per stored sequence (id, text, SHA-256 of the text), in stored order; a document
split over several sequences repeats. `labels/<name>.parquet` is a sidecar: labels of whole documents (start = -1) and
of character spans, with the catalogue of concepts in the file's metadata. Labels can be added at any time without a
model, because tokens are found by their character offsets.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lrh_ray.digests import digest_file
from lrh_ray.errors import StoreMissing, UnknownName
from lrh_ray.layouts import RowInts, RowMask
from lrh_ray.records import Concept, Document
from lrh_ray.store.objects import put_if_absent

CATALOGUE = b"lrh.concepts"
OFFSET_BITS = 32


def write_documents(path: Path, documents: Sequence[Document]) -> None:
    """Write the documents in the given (stored) order."""
    texts = [document.text for document in documents]
    table = pa.table(
        {
            "id": pa.array([document.id for document in documents], pa.string()),
            "sha256": pa.array([text_digest(text) for text in texts], pa.binary(32)),
            "text": pa.array(texts, pa.large_string()),
        }
    )
    _put_table(path, table)


def text_digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def read_texts(path: Path) -> list[str]:
    """Texts in stored order."""
    texts: list[str] = pq.read_table(path, columns=["text"]).column("text").to_pylist()
    return texts


def write_labels(path: Path, concepts: Sequence[Concept], documents: Iterable[Document]) -> None:
    """Write the labels that travel with documents as one sidecar."""
    rows: list[tuple[str, str, str, int, int]] = []
    for document in documents:
        rows.extend((document.id, concept, value, -1, -1) for concept, value in sorted(document.labels.items()))
        rows.extend((document.id, span.concept, span.value, span.start, span.end) for span in document.spans)
    names = ("document", "concept", "value", "start", "end")
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    types = (pa.string(), pa.string(), pa.string(), pa.int32(), pa.int32())
    table = pa.table({name: pa.array(column, kind) for name, column, kind in zip(names, columns, types, strict=True)})
    catalogue = json.dumps([asdict(concept) for concept in concepts], sort_keys=True).encode()
    _put_table(path, table.replace_schema_metadata({CATALOGUE: catalogue}))


def _put_table(path: Path, table: pa.Table) -> None:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    put_if_absent(path, buffer.getvalue())


@dataclass(frozen=True, kw_only=True)
class Labels:
    """One sidecar, opened against a store's documents."""

    path: Path
    concepts: Mapping[str, Concept]
    document_ids: Sequence[str]
    """Ids in stored order; a split document repeats."""

    @cached_property
    def digest(self) -> str:
        return digest_file(self.path)

    def concept(self, name: str) -> Concept:
        if name not in self.concepts:
            raise UnknownName(f"No concept {name!r} in {str(self.path)!r}. Known: {', '.join(sorted(self.concepts))}.")
        return self.concepts[name]

    def document_values(self, concept: str) -> list[str | None]:
        """Value of a document-level concept per stored sequence; None where the document has none."""
        table = self._rows(concept)
        values = dict(zip(table["document"].to_pylist(), table["value"].to_pylist(), strict=True))
        return [values.get(document) for document in self.document_ids]

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
        return pq.read_table(self.path, filters=[("concept", "=", concept)])

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


def open_labels(root: Path, document_ids: Sequence[str], name: str = "corpus") -> Labels:
    path = root / "labels" / f"{name}.parquet"
    if not path.exists():
        known = sorted(found.stem for found in (root / "labels").glob("*.parquet"))
        raise StoreMissing(f"The store {str(root)!r} has no labels {name!r}. Known: {', '.join(known) or 'none'}.")
    catalogue = json.loads(pq.read_schema(path).metadata[CATALOGUE])
    concepts = {entry["name"]: Concept(**{**entry, "values": tuple(entry["values"])}) for entry in catalogue}
    return Labels(path=path, concepts=concepts, document_ids=document_ids)
