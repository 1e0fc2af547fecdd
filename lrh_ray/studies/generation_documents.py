"""Documents of a generation: prompts as the model reads them, and what became of them as lines of JSON.

    {"id": "prompt-0", "text": "The capital of France is Paris.", "labels": {},
     "spans": [{"concept": "prompt", "value": "yes", "start": 0, "end": 24},
               {"concept": "response", "value": "yes", "start": 24, "end": 31}],
     "ended": false, "prompt_tokens": 5, "response_tokens": 2, "same_tokens": true}

(on one line). The text is all that the model read and wrote, a chat template's words included, so an extraction with
`render: raw` runs the model over the very same text. `same_tokens` says whether that text, tokenised anew, gives the
very same tokens too: a model may write a word in other tokens than its tokenizer would.

What can go wrong: a label or span of a prompt that is called `prompt` or `response` is a `CorpusError`. A response
without text has no span.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from transformers import PreTrainedTokenizerFast

from lrh_ray.errors import ConfigError, CorpusError
from lrh_ray.models.rendering import ChatFrame
from lrh_ray.models.sampling import Response
from lrh_ray.models.tokens import tokenize
from lrh_ray.records import Document, Span
from lrh_ray.text.concepts import PRESENT

PROMPT, RESPONSE = "prompt", "response"
"""Concepts whose spans are the two parts of a document."""

Bos = Literal["tokenizer", "always", "never"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompted:
    """A prompt as the model reads it: the document's text is rendered already, `token_ids` are its tokens."""

    document: Document
    token_ids: tuple[int, ...]


def prompted(
    documents: Sequence[Document], tokenizer: PreTrainedTokenizerFast, *, render: str, bos: Bos, window: int
) -> tuple[Prompted, ...]:
    """The prompts of a model, in the order of `documents`.

    Raises:
        CorpusError: A label or span would be confused with the two parts of the text.
        DocumentTooLong: A prompt exceeds the window.
        ConfigError: The tokenizer has no usable chat template.
    """
    _refuse_names(documents)
    rendered = [_chat(document, tokenizer) for document in documents] if render == "chat" else list(documents)
    ids = _token_ids(rendered, tokenizer, bos=bos_of(render, bos), window=window)
    return tuple(Prompted(document=one, token_ids=own) for one, own in zip(rendered, ids, strict=True))


def bos_of(render: str, bos: Bos) -> Bos:
    """How text is begun that is rendered already: a chat template writes its own beginning."""
    return "never" if render == "chat" else bos


def document_lines(
    prompts: Sequence[Prompted], responses: Sequence[Response], tokenizer: PreTrainedTokenizerFast, *, bos: Bos
) -> str:
    """One line of JSON per prompt."""
    pairs = list(zip(prompts, responses, strict=True))
    whole = [_continued(prompt, response, tokenizer) for prompt, response in pairs]
    again = _token_ids(whole, tokenizer, bos=bos, window=1 << 30)
    lines = []
    for (prompt, response), document, ids in zip(pairs, whole, again, strict=True):
        facts = {
            "ended": response.ended,
            "prompt_tokens": len(prompt.token_ids),
            "response_tokens": len(response.token_ids),
            "same_tokens": ids == (*prompt.token_ids, *response.token_ids),
        }
        lines.append(json.dumps({**asdict(document), **facts}, ensure_ascii=False) + "\n")
    return "".join(lines)


def _continued(prompt: Prompted, response: Response, tokenizer: PreTrainedTokenizerFast) -> Document:
    """The prompt's document with the response behind it."""
    text, before = prompt.document.text, len(prompt.document.text)
    whole = text + _response_text(prompt, response, tokenizer)
    parts = [(PROMPT, 0, before), (RESPONSE, before, len(whole))]
    spans = [Span(concept=name, value=PRESENT, start=start, end=end) for name, start, end in parts if start < end]
    return replace(prompt.document, text=whole, spans=(*spans, *prompt.document.spans))


def _response_text(prompt: Prompted, response: Response, tokenizer: PreTrainedTokenizerFast) -> str:
    """What the response adds to the decoded prompt: decoded alone, some tokenizers drop its first space."""

    def decoded(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    before, whole = decoded(prompt.token_ids), decoded([*prompt.token_ids, *response.token_ids])
    return whole.removeprefix(before) if whole.startswith(before) else decoded(response.token_ids)


def _chat(document: Document, tokenizer: PreTrainedTokenizerFast) -> Document:
    """The document as a message of the user, followed by the beginning of the assistant's turn; spans move along."""
    frame = ChatFrame.of(tokenizer).render(document)
    message = [{"role": "user", "content": document.text}]
    text = str(tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))
    if not text.startswith(frame.text[: frame.stop]):
        raise ConfigError("The chat template of this tokenizer begins otherwise for generation; use render: raw.")
    shift = frame.start - frame.skipped
    kept = [span for span in document.spans if frame.skipped <= span.start and span.end + shift <= frame.stop]
    spans = tuple(replace(span, start=span.start + shift, end=span.end + shift) for span in kept)
    return replace(document, text=text, spans=spans)


def _token_ids(
    documents: Sequence[Document], tokenizer: PreTrainedTokenizerFast, *, bos: Bos, window: int
) -> list[tuple[int, ...]]:
    """Tokens of each text, without the special ones that a tokenizer may put behind it."""
    batch = tokenize(documents, tokenizer, render="raw", bos=bos, window=window, too_long="error")
    found = []
    for start, stop in zip(batch.starts[:-1], batch.starts[1:], strict=True):
        own = batch.char_end[start:stop].nonzero()[0]
        found.append(tuple(int(one) for one in batch.token_ids[start : start + own[-1] + 1]))
    return found


def _refuse_names(documents: Sequence[Document]) -> None:
    for document in documents:
        names = {*document.labels, *(span.concept for span in document.spans)} & {PROMPT, RESPONSE}
        if names:
            raise CorpusError(
                f"The prompt {document.id!r} has a label or span called {min(names)!r}, which is the name of a part of "
                "what is written. Rename it in the source."
            )
