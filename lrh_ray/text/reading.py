"""What a source is: something that reads records one by one, each a document or a reason why it is none.

A malformed record is a value (`Malformed`), not an exception, because whether it stops the run or is counted is the
corpus's decision. A record that cannot be used raises `RecordError` where the fault is seen; `attempt` turns that
into a `Malformed` with its place. A fault of a whole file (missing, unreadable, no such column) is a `CorpusError`
at once: leaving out every record of a file is never what `malformed: skip` means.

    reading = attempt("notes.jsonl:3", parse_record, line, "notes.jsonl:3")

What can go wrong: JSON can express text that is no Unicode (half of a surrogate pair); it is refused, because no
tokenizer and no file format downstream can hold it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

from lrh_ray.records import Document

MAX_ID_CHARACTERS = 200


class RecordError(ValueError):
    """One record cannot be used; the message is a sentence. Caught by `attempt`, never leaves the stage."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A document and where it stands, in words for messages."""

    place: str
    document: Document


@dataclass(frozen=True, kw_only=True, slots=True)
class Malformed:
    """A record without a usable document: where it stands, and what is wrong with it, as a sentence."""

    place: str
    reason: str


Reading: TypeAlias = Found | Malformed


@runtime_checkable
class Source(Protocol):
    """A module that reads one kind of source, found by the name of the kind.

    Document ids depend on the records alone, never on what else the corpus holds.
    """

    DESCRIPTIONS: Mapping[str, str]
    """Concepts the source itself defines, with their meaning."""

    def read(self, source: Any, folder: Path) -> Iterator[Reading]:
        """Readings in a fixed order; relative paths are relative to `folder`."""


def attempt(place: str, build: Callable[..., Document], *arguments: object) -> Reading:
    """The reading at `place` of the record that `build(*arguments)` turns into a document."""
    try:
        return Found(place=place, document=build(*arguments))
    except RecordError as error:
        return Malformed(place=place, reason=str(error))


def unicode_string(value: object, what: str) -> str:
    """`value`, if it is a string that UTF-8 can hold."""
    if not isinstance(value, str):
        raise RecordError(f"the {what} is {_shown(value)}, not a string.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RecordError(f"the {what} holds half of a surrogate pair at character {error.start}.") from error
    return value


def document_id(value: object) -> str:
    """`value`, if it can name a document: a short, non-empty string."""
    name = unicode_string(value, "id")
    if not name or len(name) > MAX_ID_CHARACTERS:
        raise RecordError(f"the id {_shown(name)} has {len(name)} characters; allowed are 1 to {MAX_ID_CHARACTERS}.")
    return name


def class_name(value: object, what: str) -> str:
    """`value`, if it can name a concept or one of its values: a non-empty string."""
    name = unicode_string(value, what)
    if not name:
        raise RecordError(f"the {what} is an empty string.")
    return name


def _shown(value: object) -> str:
    text = repr(value)
    return f"{text[:40]}... ({type(value).__name__})" if len(text) > 40 else f"{text} ({type(value).__name__})"
