"""A data set of the Hugging Face hub, streamed: rows arrive one by one and nothing is kept on disk.

Documents are named data set:row, with configuration and split where they are not the default, and rows are counted
from 0. A data set that changes on the hub changes the corpus digest; naming a commit as `revision` pins it.

What can go wrong: the library `datasets` is not installed (`DependencyMissing`); the hub cannot be reached, or the data
set, configuration or split does not exist (`CorpusError`); a row without the columns asked for (a malformed record).
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from lrh_ray.errors import CorpusError, DependencyMissing
from lrh_ray.records import Document
from lrh_ray.text.columns import missing_columns, row_document
from lrh_ray.text.config import HubSource
from lrh_ray.text.reading import Reading, RecordError, attempt

DESCRIPTIONS: Mapping[str, str] = {}


def read(source: HubSource, folder: Path) -> Iterator[Reading]:  # noqa: ARG001 - every source has this signature
    """One reading per row, at most `source.limit`."""
    name = ":".join([source.name, *([source.config] if source.config else []), source.split])
    try:
        for number, row in enumerate(islice(_stream(source), source.limit)):
            yield attempt(f"hub data set {name}, row {number}", _document, row, source, f"{name}:{number}")
    except (OSError, ValueError, LookupError, RuntimeError) as error:
        raise CorpusError(
            f"Cannot read the hub data set {name!r}: {error} Check its name, config, split and the network."
        ) from error


def _stream(source: HubSource) -> Iterable[Mapping[str, Any]]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise DependencyMissing(
            f"The source {source.name!r} of kind 'hub' needs the library datasets: pip install 'lrh-ray[hub]'."
        ) from error
    rows: Iterable[Mapping[str, Any]] = load_dataset(
        source.name, source.config, split=source.split, revision=source.revision, streaming=True
    )
    return rows


def _document(row: Mapping[str, object], source: HubSource, name: str) -> Document:
    if missing := missing_columns([source.text_column, *source.label_columns], list(row)):
        raise RecordError(missing)
    return row_document(row, source.text_column, source.label_columns, name)
