"""The text stage: from sources to documents with labels, before any model.

    from lrh_ray.text import JsonlSource, TextConfig, read_corpus

    config = TextConfig(sources=(JsonlSource(path="notes/*.jsonl"),), concepts=("number", "in_parentheses"))
    corpus = read_corpus(config, folder=Path("."))

| file                                             | idea                                                          |
|--------------------------------------------------|---------------------------------------------------------------|
| `config.py`                                      | the settings; which sources there are                         |
| `reading.py`                                     | what a source is: records, usable or malformed, with places   |
| `jsonl.py`, `parquet.py`, `plain.py`, `hub.py`   | sources of the user                                           |
| `python_docs.py`, `pairs.py`, `capitals.py`      | built-in sources                                              |
| `concepts.py`, `regions.py`, `words.py`          | token-level concepts computed from the text                   |
| `corpus.py`                                      | all of it together: order, ids, catalogue, digest             |

Owns documents and labels; knows no models, stores or clusters. Importing it loads neither Arrow nor the hub library.
"""

from lrh_ray.text.capitals import FACTS, Fact
from lrh_ray.text.concepts import TAGGERS, Tagger, tag, tagger_names
from lrh_ray.text.config import (
    CapitalsSource,
    HubSource,
    JsonlSource,
    PairsSource,
    ParquetSource,
    PlainSource,
    PythonDocsSource,
    SourceConfig,
    TextConfig,
)
from lrh_ray.text.corpus import read_corpus
from lrh_ray.text.pairs import PAIRS, Pair

__all__ = [
    "FACTS",
    "PAIRS",
    "TAGGERS",
    "CapitalsSource",
    "Fact",
    "HubSource",
    "JsonlSource",
    "Pair",
    "PairsSource",
    "ParquetSource",
    "PlainSource",
    "PythonDocsSource",
    "SourceConfig",
    "Tagger",
    "TextConfig",
    "read_corpus",
    "tag",
    "tagger_names",
]
