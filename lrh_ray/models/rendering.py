"""Rendering: what a tokenizer is given for a document, and where the document's own text lies in it.

Raw text is given as it is. A chat template puts words around it, and it may trim it; labels are spans of the
document's own text, so offsets must find their way back. The template is rendered once with a placeholder for the
message, which shows the frame, and once per document; what stands inside the frame is the document.

    rendered = ChatFrame.of(tokenizer).render(document)
    rendered.text[rendered.start : rendered.stop] == document.text[rendered.skipped :][: rendered.stop - rendered.start]

What can go wrong: a tokenizer without a template, or a template that rewrites the message, is a `ConfigError`; a
rewritten message has no offsets that could be believed.
"""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from lrh_ray.errors import ConfigError
from lrh_ray.records import Document

_PLACEHOLDER = "message-of-the-document"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendered:
    """Text for the tokenizer; `text[start:stop]` is the document's own, from its character `skipped` on."""

    text: str
    start: int
    stop: int
    skipped: int


def render_raw(document: Document) -> Rendered:
    return Rendered(text=document.text, start=0, stop=len(document.text), skipped=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatFrame:
    """What a chat template puts before and after a single user message."""

    tokenizer: PreTrainedTokenizerFast
    before: str
    after: str

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast) -> "ChatFrame":
        """The frame of the tokenizer's template; raises `ConfigError` where there is no usable one."""
        if not tokenizer.chat_template:
            raise ConfigError("render is 'chat', but this tokenizer has no chat template; use render: raw.")
        before, found, after = _apply(tokenizer, _PLACEHOLDER).partition(_PLACEHOLDER)
        if not found:
            raise ConfigError("The chat template of this tokenizer drops the user's message; use render: raw.")
        return cls(tokenizer=tokenizer, before=before, after=after)

    def render(self, document: Document) -> Rendered:
        text = _apply(self.tokenizer, document.text)
        body = text.removeprefix(self.before).removesuffix(self.after)
        trimmed = document.text.strip()
        if len(text) != len(self.before) + len(body) + len(self.after) or body.strip() != trimmed:
            raise ConfigError(
                f"The chat template rewrites the text of document {document.id!r}, so its tokens have no offsets into "
                "it; use render: raw."
            )
        skipped = document.text.index(body)
        return Rendered(text=text, start=len(self.before), stop=len(self.before) + len(body), skipped=skipped)


def _apply(tokenizer: PreTrainedTokenizerFast, message: str) -> str:
    return str(tokenizer.apply_chat_template([{"role": "user", "content": message}], tokenize=False))
