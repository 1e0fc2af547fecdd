"""Rows of a table as documents: what Parquet files and hub data sets have in common.

A row gives a text, perhaps an id, and labels. Classes in tables are often numbers: integers and booleans become their
JSON spelling (`3`, `true`); a null label means that the document has none. Fractions are refused, because they are
measurements and not classes.
"""

from collections.abc import Mapping, Sequence

from lrh_ray.records import Document
from lrh_ray.text.reading import RecordError, class_name, document_id, unicode_string


def row_document(row: Mapping[str, object], text_column: str, label_columns: Sequence[str], name: object) -> Document:
    """The document of `row`; `name` is its id."""
    text = unicode_string(row[text_column], f"text (column {text_column!r})")
    labels = {column: _label(row[column], column) for column in label_columns if row[column] is not None}
    return Document(id=document_id(str(name) if type(name) is int else name), text=text, labels=labels)


def missing_columns(wanted: Sequence[str], present: Sequence[str]) -> str:
    """A sentence about columns that are not there; empty if all are."""
    missing = [column for column in wanted if column not in present]
    if not missing:
        return ""
    return f"no column {', '.join(map(repr, missing))}; columns there: {', '.join(map(repr, present)) or 'none'}."


def _label(value: object, column: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        raise RecordError(f"the label {column!r} is the fraction {value!r}; a label is a string, integer or boolean.")
    return class_name(value, f"label {column!r}")
