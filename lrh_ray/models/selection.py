"""Which tokens become rows: all of them, or the few that a question is about, or their means.

Storing every token of a corpus to read one of them a document wastes the disk a hundredfold. The choice is part of the
plan and common to all sites of a store; the model still sees whole documents.

    all                every token
    last               the last token of each sequence
    every:8            tokens 0, 8, 16 ... of each sequence
    spans:subject      tokens that overlap a span labelled `subject`
    span_last:subject  the last token of each such span

With `pool: mean` a row is the mean over a span (`spans:...`) or over a whole sequence (`all`), in float32.

    chosen = choose_rows(tokens, documents, rows="span_last:subject", pool="none")
    chosen.rows        # a TokenBatch of rows: what the store plans, keys and labels
    chosen.context     # the whole sequences, and which tokens each row stands for

What can go wrong: a rule that is not one, a concept that labels no span, or no row at all, is a `ConfigError`.
Sequences without a row are left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from lrh_ray.digests import digest_bytes, digest_json
from lrh_ray.errors import ConfigError
from lrh_ray.records import Context, Document, TokenBatch

Pool: TypeAlias = Literal["none", "mean"]
RULES = "all, last, every:N, spans:CONCEPT, span_last:CONCEPT"
POOLED_TOKEN = -1
"""Token id of a row that stands for several tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """Rows, and what the model must see to make them; no context where every token is a row of its own."""

    rows: TokenBatch
    context: Context | None


def choose_rows(tokens: TokenBatch, documents: Sequence[Document], *, rows: str, pool: Pool) -> Chosen:
    """The rows of `tokens` that the rule `rows` picks, one for each token or, pooled, for each range of tokens."""
    if (rows, pool) == ("all", "none"):
        return Chosen(rows=tokens, context=None)
    kind, _, argument = rows.partition(":")
    _check(kind, argument, rows, pool)
    by_id = {document.id: document for document in documents}
    ranges = [
        _ranges(kind, argument, pool, tokens, sequence, by_id[tokens.document_ids[sequence]])
        for sequence in range(len(tokens.lengths))
    ]
    kept = [sequence for sequence, found in enumerate(ranges) if len(found)]
    if not kept:
        raise ConfigError(f"store.rows is {rows!r}, and no token of the corpus is chosen by it. {_spans(documents)}")
    return Chosen(rows=_rows(tokens, kept, ranges), context=_context(tokens, kept, ranges))


def _check(kind: str, argument: str, rows: str, pool: Pool) -> None:
    wants_argument = kind in ("every", "spans", "span_last")
    known = kind in ("all", "last") or wants_argument
    if not known or wants_argument != bool(argument) or (kind == "every" and not argument.isdecimal()):
        raise ConfigError(f"store.rows is {rows!r}; it must be one of {RULES}.")
    if kind == "every" and int(argument) < 1:
        raise ConfigError(f"store.rows is {rows!r}; N must be at least 1.")
    if pool == "mean" and kind not in ("all", "spans"):
        raise ConfigError(f"store.pool is 'mean' and store.rows {rows!r}; means are taken over all or spans:CONCEPT.")


def _spans(documents: Sequence[Document]) -> str:
    concepts = sorted({span.concept for document in documents for span in document.spans})
    return f"Labelled spans: {', '.join(concepts)}." if concepts else "No document has labelled spans."


def _ranges(kind: str, argument: str, pool: Pool, tokens: TokenBatch, sequence: int, document: Document) -> np.ndarray:
    """[rows, 2] first and last + 1 token of each row, counted within the sequence, ascending."""
    length = int(tokens.lengths[sequence])
    if kind == "all":
        return np.array([[0, length]])
    if kind == "last":
        return _single(np.array([length - 1]))
    if kind == "every":
        return _single(np.arange(0, length, int(argument)))
    spans = _token_spans(argument, tokens, sequence, document)
    if kind == "span_last":
        return _single(np.unique(spans[:, 1] - 1))
    if pool == "mean":
        return np.unique(spans, axis=0)
    tokens_of_spans = [np.arange(first, stop) for first, stop in spans]
    return _single(np.unique(np.concatenate([np.zeros(0, np.int64), *tokens_of_spans])))


def _single(picked: np.ndarray) -> np.ndarray:
    return np.stack([picked, picked + 1], axis=1).astype(np.int64)


def _token_spans(concept: str, tokens: TokenBatch, sequence: int, document: Document) -> np.ndarray:
    """[spans, 2] tokens of the sequence that overlap each span of the concept."""
    here = slice(int(tokens.starts[sequence]), int(tokens.starts[sequence + 1]))
    start, end = tokens.char_start[here], tokens.char_end[here]
    found = []
    for span in document.spans:
        overlapping = np.flatnonzero((start < span.end) & (end > span.start))
        if span.concept == concept and len(overlapping):
            found.append((int(overlapping[0]), int(overlapping[-1]) + 1))
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _rows(tokens: TokenBatch, kept: Sequence[int], ranges: Sequence[np.ndarray]) -> TokenBatch:
    absolute = np.concatenate([ranges[sequence] + tokens.starts[sequence] for sequence in kept])
    first, last = absolute[:, 0], absolute[:, 1] - 1
    single = first == last
    own = tokens.char_end[first] > tokens.char_start[first]  # a pool that begins with <s> begins where its text does
    return TokenBatch(
        document_ids=tuple(tokens.document_ids[sequence] for sequence in kept),
        token_ids=np.where(single, tokens.token_ids[last], POOLED_TOKEN).astype(np.int32),
        positions=tokens.positions[last],
        char_start=np.where(own, tokens.char_start[first], tokens.char_start[np.minimum(first + 1, last)]).astype(
            np.int32
        ),
        char_end=tokens.char_end[last],
        starts=np.append(0, np.cumsum([len(ranges[sequence]) for sequence in kept])).astype(np.int64),
    )


def _context(tokens: TokenBatch, kept: Sequence[int], ranges: Sequence[np.ndarray]) -> Context:
    pieces = [tokens.token_ids[tokens.starts[s] : tokens.starts[s + 1]] for s in kept]
    return Context(
        token_ids=np.concatenate(pieces),
        starts=np.append(0, np.cumsum([len(piece) for piece in pieces])).astype(np.int64),
        ranges=np.concatenate([ranges[sequence] for sequence in kept]),
    )


def sequences_of(context: Context, rows: TokenBatch) -> TokenBatch:
    """The whole sequences of a context, as a backend takes them; their characters are not known."""
    nothing = np.zeros(len(context.token_ids), dtype=np.int32)
    lengths = np.diff(context.starts)
    positions: Mapping[int, np.ndarray] = {int(length): np.arange(length, dtype=np.int32) for length in set(lengths)}
    return TokenBatch(
        document_ids=rows.document_ids,
        token_ids=context.token_ids,
        positions=np.concatenate([positions[int(length)] for length in lengths]),
        char_start=nothing,
        char_end=nothing,
        starts=context.starts,
    )


def context_digest(context: Context) -> str:
    """Digest of everything that a context holds."""
    parts = (context.token_ids.astype("<i4"), context.starts.astype("<i8"), context.ranges.astype("<i8"))
    return digest_json([digest_bytes(np.ascontiguousarray(part).tobytes()) for part in parts])
