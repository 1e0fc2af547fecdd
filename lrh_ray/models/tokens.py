"""Tokens: documents become token ids with character offsets and positions.

Rows are labelled by characters, so every token knows which characters of its document it stands for, in Python's own
counting (code points). Tokens that stand for no text, the beginning-of-sequence token or the words of a chat
template, have the empty range 0:0.

    tokenizer = load_tokenizer(checkpoint)
    batch = tokenize(documents, tokenizer, render="raw", bos="tokenizer", window=8192, too_long="split")

The beginning of a sequence is decided once, by `bos`: `tokenizer` is whatever the tokenizer does when asked for its
special tokens (with `chat`: whatever the template writes); `always` is exactly one bos token first; `never` is none,
and no end-of-sequence token either.

A document longer than the window is an error or is split, never silently cut. Its text is tokenised whole, then cut,
so no token of the content changes; each piece is framed like a document of its own (bos, chat template), counts its
positions from 0, and keeps the document's id and its offsets into the whole text.

What can go wrong: `DocumentTooLong`; `CorpusError` for a document without a token of its own; `ConfigError` for a
`bos` or `render` that this tokenizer cannot give. A character that takes several tokens belongs to each of them.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import numpy as np
from tokenizers import Tokenizer
from tokenizers.processors import PostProcessor
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lrh_ray.digests import digest_json
from lrh_ray.errors import CheckpointBroken, ConfigError, CorpusError, DocumentTooLong
from lrh_ray.layouts import Tokens
from lrh_ray.models.checkpoints import Checkpoint
from lrh_ray.models.rendering import ChatFrame, Rendered, render_raw
from lrh_ray.records import Document, TokenBatch

Render: TypeAlias = Literal["raw", "chat"]
Bos: TypeAlias = Literal["tokenizer", "always", "never"]
TooLong: TypeAlias = Literal["error", "split"]

DOCUMENTS_AT_ONCE = 512
"""How many documents the tokenizer sees in one call; bounds the memory of its offset lists."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pieces:
    """Token ids and character ranges of a stretch of tokens."""

    ids: Tokens
    start: Tokens
    end: Tokens

    def __len__(self) -> int:
        return len(self.ids)

    def cut(self, low: int, high: int) -> "_Pieces":
        return _Pieces(ids=self.ids[low:high], start=self.start[low:high], end=self.end[low:high])


def load_tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerFast:
    """The checkpoint's fast tokenizer, with offsets that keep leading spaces; raises `CheckpointBroken`."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointBroken(f"The checkpoint {str(checkpoint.path)!r} has no usable tokenizer: {error}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise CheckpointBroken(
            f"The tokenizer of {str(checkpoint.path)!r} has no character offsets ({type(tokenizer).__name__}); a "
            "tokenizer.json is needed, which transformers writes when the tokenizer is saved as a fast one."
        )
    keep_spaces(tokenizer)
    return tokenizer


def keep_spaces(tokenizer: PreTrainedTokenizerFast) -> None:
    """Make the offsets of a byte-level tokenizer tile the text.

    Many tokenizers report " Paris" as the five characters without the space, and an indentation as no character at
    all; a label on white space would then have no token.
    """
    settings = json.loads(tokenizer.backend_tokenizer.to_str())
    processor = settings["post_processor"]
    parts = (processor or {}).get("processors", [processor] if processor else [])
    if any(part.get("trim_offsets") for part in parts):
        for part in parts:
            part.update({"trim_offsets": False} if "trim_offsets" in part else {})
        tokenizer.backend_tokenizer.post_processor = _processor(processor)


def template_digest(tokenizer: PreTrainedTokenizerFast, render: Render) -> str:
    """Digest of how text is rendered: `raw`, or the tokenizer's chat template."""
    return digest_json({"render": render, "template": tokenizer.get_chat_template() if render == "chat" else None})


def tokenize(
    documents: Sequence[Document],
    tokenizer: PreTrainedTokenizerFast,
    *,
    render: Render,
    bos: Bos,
    window: int,
    too_long: TooLong,
) -> TokenBatch:
    """Token sequences of at most `window` tokens, in the order of `documents`; one or more per document."""
    if bos == "always" and tokenizer.bos_token_id is None:
        raise ConfigError("bos is 'always', but this tokenizer has no bos token; use bos: tokenizer or bos: never.")
    ids, sequences = [], []
    for document, tokens in _encoded(documents, tokenizer, render, bos):
        for piece in _framed_pieces(document, _with_bos(tokens, tokenizer, bos), window, too_long):
            ids.append(document.id)
            sequences.append(piece)
    lengths = [len(piece) for piece in sequences]
    return TokenBatch(
        document_ids=tuple(ids),
        token_ids=_joined([piece.ids for piece in sequences]),
        positions=_joined([np.arange(length, dtype=np.int32) for length in lengths]),
        char_start=_joined([piece.start for piece in sequences]),
        char_end=_joined([piece.end for piece in sequences]),
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )


def _encoded(
    documents: Sequence[Document], tokenizer: PreTrainedTokenizerFast, render: Render, bos: Bos
) -> Iterator[tuple[Document, _Pieces]]:
    """Each document's tokens with ranges in the document's own text."""
    render_one = ChatFrame.of(tokenizer).render if render == "chat" else render_raw
    for low in range(0, len(documents), DOCUMENTS_AT_ONCE):
        group = documents[low : low + DOCUMENTS_AT_ONCE]
        rendered = [render_one(document) for document in group]
        encoding = tokenizer(
            [one.text for one in rendered],
            add_special_tokens=render == "raw" and bos == "tokenizer",
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        for document, one, ids, offsets in zip(
            group, rendered, encoding["input_ids"], encoding["offset_mapping"], strict=True
        ):
            yield document, _own_ranges(one, ids, offsets)


def _own_ranges(rendered: Rendered, ids: list[int], offsets: list[tuple[int, int]]) -> _Pieces:
    """Ranges in the rendered text, clipped to the document's own part and counted from its first character."""
    ranges = np.array(offsets, dtype=np.int32).reshape(-1, 2)
    start = np.maximum(ranges[:, 0], rendered.start)
    end = np.minimum(ranges[:, 1], rendered.stop)
    shift = rendered.skipped - rendered.start
    own = start < end
    return _Pieces(
        ids=np.array(ids, dtype=np.int32),
        start=np.where(own, start + shift, 0).astype(np.int32),
        end=np.where(own, end + shift, 0).astype(np.int32),
    )


def _with_bos(tokens: _Pieces, tokenizer: PreTrainedTokenizerFast, bos: Bos) -> _Pieces:
    """`tokens` with the beginning that `bos` asks for; a bos token that already stands first is not doubled."""
    has_bos = len(tokens) > 0 and tokens.ids[0] == tokenizer.bos_token_id
    if bos == "never" and has_bos and tokens.end[0] == 0:
        raise ConfigError(
            "bos is 'never', but the chat template itself writes the bos token; use bos: tokenizer or render: raw."
        )
    if bos != "always" or has_bos:
        return tokens
    nothing = np.zeros(1, dtype=np.int32)
    return _Pieces(
        ids=np.concatenate([np.array([tokenizer.bos_token_id], dtype=np.int32), tokens.ids]),
        start=np.concatenate([nothing, tokens.start]),
        end=np.concatenate([nothing, tokens.end]),
    )


def _framed_pieces(document: Document, tokens: _Pieces, window: int, too_long: TooLong) -> Iterator[_Pieces]:
    """`tokens` whole where they fit, else pieces of the content, each between the frame's own tokens."""
    own = np.flatnonzero(tokens.end > tokens.start)
    if len(own) == 0:
        raise CorpusError(f"Document {document.id!r} has no token of its own: its text is {document.text[:40]!r}.")
    if len(tokens) <= window:
        yield tokens
        return
    first, last = int(own[0]), int(own[-1]) + 1
    room = window - first - (len(tokens) - last)
    if too_long == "error" or room < 1:
        raise DocumentTooLong(
            f"Document {document.id!r} has {len(tokens)} tokens; the window of this model is {window}. Set "
            "too_long: split to cut it into pieces, or shorten or remove it."
            + ("" if room >= 1 else f" (Splitting leaves no room: {window - room} tokens frame each piece.)")
        )
    head, tail = tokens.cut(0, first), tokens.cut(last, len(tokens))
    for low in range(first, last, room):
        yield _concatenated((head, tokens.cut(low, min(low + room, last)), tail))


def _concatenated(parts: Sequence[_Pieces]) -> _Pieces:
    return _Pieces(
        ids=_joined([part.ids for part in parts]),
        start=_joined([part.start for part in parts]),
        end=_joined([part.end for part in parts]),
    )


def _joined(arrays: Sequence[np.ndarray]) -> Tokens:
    """Arrays of unlike lengths, end to end."""
    return np.concatenate([np.zeros(0, dtype=np.int32), *arrays])


def _processor(settings: dict[str, object]) -> PostProcessor:
    """A post-processor from its JSON form, through the smallest tokenizer that can hold it."""
    empty = json.loads(Tokenizer.from_str(_EMPTY_TOKENIZER).to_str())
    return cast(PostProcessor, Tokenizer.from_str(json.dumps({**empty, "post_processor": settings})).post_processor)


_EMPTY_TOKENIZER = '{"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}'
