"""The frozen records that cross the borders between stages, and nothing else.

A stage is tested with a list of these in memory; what travels between stages is visible here. A field earns its place
by having two users in different stages. Large arrays are NumPy; digests are strings from `lrh_ray.digests`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from lrh_ray.layouts import Boundaries, Tokens

Scalar: TypeAlias = str | int | float | bool | None
if TYPE_CHECKING:
    Plain: TypeAlias = Scalar | Sequence["Plain"] | Mapping[str, "Plain"]
else:
    Plain = Scalar | Sequence[Any] | Mapping[str, Any]  # run-time checkers cannot follow a recursive alias
"""What JSON can say."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A labelled range of characters of one document: `text[start:end]` has `value` for `concept`."""

    concept: str
    value: str
    start: int
    end: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """One text with its labels. `labels` hold for the whole document (concept -> value)."""

    id: str
    text: str
    labels: Mapping[str, str] = field(default_factory=dict)
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Concept:
    """A labelled property. `level` says where it varies, which decides how its null control is shuffled.

    A `token` concept is binary: a token is positive when its characters overlap a span of the concept, negative
    elsewhere in every document. A `document` concept is a class per document; documents without it are left out.
    """

    name: str
    level: Literal["token", "document"]
    description: str
    values: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """Documents in source order. `skipped` counts records left out: malformed or too short."""

    documents: tuple[Document, ...]
    concepts: tuple[Concept, ...]
    skipped: int
    digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenBatch:
    """Ragged token sequences, laid end to end: sequence s is tokens `starts[s]:starts[s + 1]`.

    `positions` count from 0 inside each sequence. `char_start`, `char_end` are offsets into the document's text;
    both are 0 for tokens that stand for no text (a beginning-of-sequence token).
    """

    document_ids: tuple[str, ...]
    token_ids: Tokens
    positions: Tokens
    char_start: Tokens
    char_end: Tokens
    starts: Boundaries

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens per sequence."""
        return np.diff(self.starts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """Whole token sequences of which a store keeps chosen rows only: what a model must see to make them.

    Sequence s is `token_ids[starts[s]:starts[s + 1]]`, positions count from 0. `ranges` is [rows, 2]: row r stands for
    the tokens `ranges[r, 0]` to `ranges[r, 1] - 1` of its sequence; a range of several tokens is their mean.
    """

    token_ids: Tokens
    starts: Boundaries
    ranges: np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteSpec:
    """One site of a store: its name, its width, and its layer for plots (None where it has none)."""

    name: str
    width: int
    layer: int | None
    dtype: Literal["float32", "int32"] | None = None
    """Data type of its rows; None: the store's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFacts:
    """What a plan must know about a model without holding it: identity, size, and how its rows are made."""

    name: str
    digest: str
    tokenizer_digest: str
    family: str
    num_layers: int
    hidden_size: int
    window: int
    dtype: Literal["bfloat16", "float16", "float32"]
    sites: tuple[SiteSpec, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """What a worker returns for a committed block: about 100 bytes, never a tensor.

    `committed` is False when another attempt had already committed the block; that is success too.
    """

    block: int
    attempt: str
    rows: int
    num_bytes: int
    seconds: float
    worker: str
    committed: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """One number with what is needed to judge it.

    `keys` say what it is about (site, layer, concept, probe ...). `low`, `high` are its 95 % interval. `controls`
    hold the numbers it must be read against, under plain names: `majority`, `shuffled`, `null_low`, `null_high`,
    `ceiling` ... `flags` say in words what is wrong with it, if anything.
    """

    name: str
    value: float
    unit: str
    keys: Mapping[str, str | int | float]
    low: float | None = None
    high: float | None = None
    controls: Mapping[str, float] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A named table for people: plain cells in rows, one description."""

    name: str
    description: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Scalar, ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What an analysis found: numbers with units and intervals, small arrays, controls, and where it all came from.

    `asked` is the configuration as written, `resolved` what it became; `inputs` are digests of what was read. The
    digest of a result is made of `kind`, `resolved` and `inputs` alone: the same question to the same rows has one
    place on disk.
    """

    kind: str
    title: str
    summary: tuple[str, ...]
    asked: Mapping[str, Plain]
    resolved: Mapping[str, Plain]
    inputs: Mapping[str, str]
    measures: tuple[Measure, ...]
    tables: tuple[Table, ...] = ()
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    provenance: Mapping[str, Plain] = field(default_factory=dict)
