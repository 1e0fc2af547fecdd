"""Which rows of a store a reader wants: by document, position, label, only those of text, or without attention sinks.

    filters = RowFilters(positions=range(1, 512), labels=(LabelFilter(concept="kind", value="prose"),), sinks="drop")
    chosen = ChosenRows(store, filters, sites=("resid.15",))
    chosen.mask(block)        # valid rows of the block that pass all filters
    chosen.digest             # the same question to the same labels has the same digest

All filters must hold. Masks come from the rows' keys, which are a thousandth of the store; they are kept as bits, up to
`CACHE_BYTES` of them, so that counting the rows of an epoch and reading it look at the keys once.

What can go wrong: a document id, concept or label value that the store does not have is `UnknownName`; asking for sinks
before the seal has named them is `StoreIncomplete`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from lrh_ray.digests import digest_json
from lrh_ray.errors import ConfigError, UnknownName
from lrh_ray.layouts import RowMask
from lrh_ray.records import Plain
from lrh_ray.store.documents import Labels
from lrh_ray.store.reader import RowKeys, Store

CACHE_BYTES = 64 << 20
SHOWN = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelFilter:
    """Rows of documents that have a value of a concept, or rows that overlap a span of it."""

    concept: str
    """A concept of the sidecar; its level decides whether documents or tokens are chosen."""

    value: str | None = None
    """The value wanted; None takes every labelled document or span."""

    sidecar: str = "corpus"
    """Name of the labels in the store."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowFilters:
    """Conditions that all must hold for a row."""

    documents: tuple[str, ...] | None = None
    """Ids of the documents wanted; None wants all."""

    positions: range | tuple[int, ...] | None = None
    """Token positions wanted, counted from 0 in each stored sequence; None wants all."""

    labels: tuple[LabelFilter, ...] = ()
    """Labels wanted; none by default."""

    sinks: Literal["keep", "drop"] = "keep"
    """`drop` leaves out rows that are attention sinks at any of `sink_sites`."""

    sink_sites: tuple[str, ...] | None = None
    """Sites that say what a sink is; None: those that are read."""

    without_text: Literal["keep", "drop"] = "keep"
    """`drop` leaves out rows that stand for no text, as special tokens do."""

    def __post_init__(self) -> None:
        for name in ("sinks", "without_text"):
            if getattr(self, name) not in ("keep", "drop"):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be 'keep' or 'drop'.")

    @property
    def keep_all(self) -> bool:
        return replace(self, sink_sites=None) == RowFilters()


class ChosenRows:
    """Filters held against one store: masks of its blocks, block by block."""

    def __init__(self, store: Store, filters: RowFilters, sites: Sequence[str]) -> None:
        self.filters = filters
        self._store = store
        self._sink_sites = tuple(sites) if filters.sink_sites is None else filters.sink_sites
        self._labels = tuple(store.labels(wanted.sidecar) for wanted in filters.labels)
        self._sequences = self._choose_sequences()
        self._positions = None if filters.positions is None else np.unique(np.asarray(filters.positions))
        self._cache: dict[int, np.ndarray] = {}
        self._cached_bytes = 0

    @cached_property
    def digest(self) -> str:
        """Of the question and of the labels it is put to."""
        if self.filters.keep_all:
            return digest_json("all rows")
        labels: list[Plain] = [
            [wanted.concept, wanted.value, labels.digest]
            for wanted, labels in zip(self.filters.labels, self._labels, strict=True)
        ]
        documents = self.filters.documents
        return digest_json(
            {
                "documents": None if documents is None else sorted(set(documents)),
                "positions": None if self._positions is None else self._positions.tolist(),
                "labels": labels,
                "sinks": sorted(self._sink_sites) if self.filters.sinks == "drop" else "keep",
                **({"without_text": "drop"} if self.filters.without_text == "drop" else {}),
            }
        )

    def mask(self, block: int) -> RowMask:
        """Valid rows of a block that pass; safe to call from several threads."""
        num_rows = int(self._store.plan.valid_rows[block])
        if self.filters.keep_all:
            return np.ones(num_rows, dtype=bool)
        bits = self._cache.get(block)
        if bits is not None:
            return np.unpackbits(bits, count=num_rows).astype(bool)
        mask = self._compute(block, num_rows)
        if self._cached_bytes < CACHE_BYTES:
            self._cache[block] = np.packbits(mask)
            self._cached_bytes += self._cache[block].nbytes
        return mask

    def _compute(self, block: int, num_rows: int) -> RowMask:
        keys = self._store.keys(block)
        mask = np.ones(num_rows, dtype=bool)
        if self._sequences is not None:
            mask &= self._sequences[keys.doc]
        if self._positions is not None:
            mask &= np.isin(keys.position, self._positions)
        for wanted, labels in zip(self.filters.labels, self._labels, strict=True):
            if labels.concept(wanted.concept).level == "token":
                mask &= _overlaps(labels, wanted, keys)
        if self.filters.sinks == "drop":
            mask &= ~self._store.sink_mask(block, self._sink_sites)
        if self.filters.without_text == "drop":
            mask &= keys.char_end > keys.char_start
        return mask

    def _choose_sequences(self) -> np.ndarray | None:
        """[sequences] bool of the filters that look at whole documents; None if there are none."""
        chosen: list[np.ndarray] = []
        if self.filters.documents is not None:
            chosen.append(_sequences_of(self._store.document_ids, self.filters.documents))
        for wanted, labels in zip(self.filters.labels, self._labels, strict=True):
            concept = labels.concept(wanted.concept)
            if wanted.value is not None and wanted.value not in concept.values:
                raise UnknownName(
                    f"Concept {wanted.concept!r} has no value {wanted.value!r}. Known: {', '.join(concept.values)}."
                )
            if concept.level == "document":
                values = labels.document_values(wanted.concept)
                chosen.append(
                    np.array([value is not None and wanted.value in (None, value) for value in values], dtype=bool)
                )
        return np.logical_and.reduce(chosen) if chosen else None


def _overlaps(labels: Labels, wanted: LabelFilter, keys: RowKeys) -> np.ndarray:
    return labels.token_mask(wanted.concept, keys.doc, keys.char_start, keys.char_end, wanted.value)


def _sequences_of(known: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    names = set(wanted)
    missing = sorted(names - set(known))
    if missing:
        raise UnknownName(
            f"{len(missing)} of {len(names)} documents are not in the store, for example {', '.join(missing[:SHOWN])}. "
            f"`Store.document_ids` lists those that are."
        )
    return np.array([name in names for name in known], dtype=bool)
