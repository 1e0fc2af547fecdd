"""Parquet: one document per row. The only module of this stage that loads Arrow; it is imported when it is used.

Rows are counted from 0 through the whole file. Only the columns that the settings name are read, batch by batch.

What can go wrong: no Parquet file, or a column missing (`CorpusError` for the file); a row whose text is null or no
string, whose label is no class, or whose string is not UTF-8 (a malformed record with its row).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as arrow_parquet

from lrh_ray.errors import CorpusError
from lrh_ray.records import Document
from lrh_ray.text.columns import missing_columns, row_document
from lrh_ray.text.config import ParquetSource
from lrh_ray.text.files import CorpusFile, corpus_files
from lrh_ray.text.reading import Reading, RecordError, attempt

DESCRIPTIONS: Mapping[str, str] = {}

ROWS_PER_BATCH = 1024


def read(source: ParquetSource, folder: Path) -> Iterator[Reading]:
    """One reading per row, file after file."""
    for file in corpus_files(source.path, folder):
        try:
            with arrow_parquet.ParquetFile(file.path) as table:
                yield from _rows(table, source, file)
        except (arrow.ArrowException, OSError) as error:
            raise CorpusError(f"Cannot read {str(file.path)!r} as Parquet: {error}") from error


def _rows(table: arrow_parquet.ParquetFile, source: ParquetSource, file: CorpusFile) -> Iterator[Reading]:
    named = [source.text_column, source.id_column, *source.label_columns]
    wanted = list(dict.fromkeys(column for column in named if column is not None))
    if missing := missing_columns(wanted, table.schema_arrow.names):
        raise CorpusError(f"{file.path}: {missing} Correct text_column, id_column or label_columns.")
    number = 0
    for batch in table.iter_batches(batch_size=ROWS_PER_BATCH, columns=wanted):
        for index in range(batch.num_rows):
            yield attempt(f"{file.path}, row {number}", _document, batch, index, source, f"{file.name}:{number}")
            number += 1


def _document(batch: arrow.RecordBatch, index: int, source: ParquetSource, default_id: str) -> Document:
    try:
        row = {name: column[index].as_py() for name, column in zip(batch.schema.names, batch.columns, strict=True)}
    except UnicodeDecodeError as error:
        raise RecordError(f"a string is not UTF-8: {error}.") from error
    name = row[source.id_column] if source.id_column is not None else default_id
    return row_document(row, source.text_column, source.label_columns, name)
