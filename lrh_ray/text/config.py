"""Settings of the text stage: where documents come from, and what is computed from them before a model sees them.

Each kind of source has a small settings class of its own; `kind` says which one a group of keys is. A new kind is a
settings class here, a member of `SourceConfig`, and a module of the same name with `read` and `DESCRIPTIONS` (see
`lrh_ray.text.reading.Source`).

    text:
      sources:
        - kind: python-docs
        - kind: jsonl
          path: data/*.jsonl
      concepts: [number, in_parentheses]

What can go wrong: unknown kinds, keys and concepts are `ConfigError`s of the file that holds them; whether a path
exists is found out when it is read.
"""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from lrh_ray.config import settings
from lrh_ray.errors import ConfigError, UnknownName
from lrh_ray.text.concepts import tagger_names
from lrh_ray.text.transforms import NONE, parse_transform


@settings
class JsonlSource:
    """JSON Lines: one object per line with `text`, and perhaps `id`, `labels` and `spans`; other keys are ignored."""

    kind: Literal["jsonl"] = "jsonl"
    """What this source is."""

    path: str
    """A file or a glob pattern (`data/**/*.jsonl`), relative to the folder of the configuration."""


@settings
class ParquetSource:
    """Parquet: one document per row."""

    kind: Literal["parquet"] = "parquet"
    """What this source is."""

    path: str
    """A file or a glob pattern, relative to the folder of the configuration."""

    text_column: str = "text"
    """Column of strings that holds the text."""

    id_column: str | None = None
    """Column of strings or integers that names the documents; None names them file:row."""

    label_columns: tuple[str, ...] = ()
    """Columns of strings, integers or booleans that become document labels of the same name; null means no label."""


@settings
class PlainSource:
    """Plain UTF-8 text without labels."""

    kind: Literal["plain"] = "plain"
    """What this source is."""

    path: str
    """A file or a glob pattern (`books/*.txt`), relative to the folder of the configuration."""

    split: Literal["file", "paragraph"] = "file"
    """One document per file, or one per paragraph (paragraphs are separated by blank lines)."""


@settings
class HubSource:
    """A data set of the Hugging Face hub, streamed; needs the extra `hub`."""

    kind: Literal["hub"] = "hub"
    """What this source is."""

    name: str
    """Name of the data set, for example `Salesforce/wikitext`."""

    config: str | None = None
    """Configuration of the data set; None takes its default one."""

    split: str = "train"
    """Split of the data set."""

    revision: str | None = None
    """Commit, tag or branch; None takes the newest. Name a commit to be able to read the same text again."""

    text_column: str = "text"
    """Column that holds the text."""

    label_columns: tuple[str, ...] = ()
    """Columns of strings, integers or booleans that become document labels; null means no label."""

    limit: int | None = 1000
    """Rows to read from the start of the split; None reads all of it, which for web corpora does not end."""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit is {self.limit!r}; it is at least 1, or null for the whole split.")


@settings
class PythonDocsSource:
    """Documentation strings and help topics of the Python that runs: real English, no download."""

    kind: Literal["python-docs"] = "python-docs"
    """What this source is."""

    max_characters: int = 3000
    """Longer texts are cut into passages of at most this many characters, at paragraphs if possible; at least 400."""

    passages: Literal["all", "first"] = "all"
    """Keep every passage of a text, or the first alone: then no two documents are about the same module or class."""

    limit: int | None = None
    """Documents to keep, spread evenly; None keeps all."""

    def __post_init__(self) -> None:
        if self.max_characters < 400:
            raise ValueError(f"max_characters is {self.max_characters!r}; passages have at least 200, so allow 400.")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit is {self.limit!r}; it is at least 1, or null for all.")


@settings
class PairsSource:
    """Built-in contrasting words in carrier sentences: the class is in the word alone."""

    kind: Literal["pairs"] = "pairs"
    """What this source is."""

    groups: tuple[Literal["number", "tense", "degree", "gender", "valence"], ...] = (
        "number",
        "tense",
        "degree",
        "gender",
        "valence",
    )
    """Contrasts to use; each gives a document concept `pair_<group>`."""

    carriers: Literal["one", "all", "none"] = "one"
    """Sentences per word. `one`: documents held out are words held out; `all`: the same word stands on both sides;
    `none`: the word alone, as the pair test wants it."""


@settings
class WordPairsSource:
    """Counterfactual word pairs, each word alone: a file per concept, `word0<TAB>word1` a line."""

    kind: Literal["word-pairs"] = "word-pairs"
    """What this source is."""

    path: str
    """A file or a glob pattern (`word_pairs/*.txt`), relative to the folder of the configuration."""


@settings
class PairedContextsSource:
    """Texts that go on with the first or the second word of a pair: JSON Lines, a file per set."""

    kind: Literal["paired-contexts"] = "paired-contexts"
    """What this source is."""

    path: str
    """A file or a glob pattern (`paired_contexts/*.jsonl`), relative to the folder of the configuration."""

    limit: int | None = None
    """Lines to read of each file; None reads all."""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit is {self.limit!r}; it is at least 1, or null for all.")


@settings
class CapitalsSource:
    """Built-in country-capital statements, each true once and false once per carrier sentence."""

    kind: Literal["capitals"] = "capitals"
    """What this source is."""

    carriers: Literal["one", "all"] = "one"
    """Sentences per fact: one of the carriers in turn, or every one."""


SourceConfig: TypeAlias = Annotated[
    JsonlSource
    | ParquetSource
    | PlainSource
    | HubSource
    | PythonDocsSource
    | PairsSource
    | WordPairsSource
    | PairedContextsSource
    | CapitalsSource,
    Field(discriminator="kind"),
]


@settings
class TextConfig:
    """Which documents, which concepts, and how they are prepared for the tokenizer."""

    sources: tuple[SourceConfig, ...]
    """Where documents come from, in this order."""

    concepts: tuple[str, ...] = ()
    """Token-level concepts to compute from the text, by name; `all` for every one. Labels in the sources need none."""

    malformed: Literal["error", "skip"] = "error"
    """A malformed record stops the run, or is left out and counted."""

    render: Literal["raw", "chat"] = "raw"
    """Text as it is, or wrapped by the model's chat template as a message of the user."""

    bos: Literal["tokenizer", "always", "never"] = "tokenizer"
    """Beginning-of-sequence token: as the tokenizer does by itself, always, or never."""

    too_long: Literal["error", "split"] = "split"
    """A document longer than the model's window stops the run, or is split into several sequences; never cut."""

    max_documents: int | None = None
    """Documents to keep, spread evenly over all that were read (one from each of as many equal runs); None: all."""

    min_characters: int = 1
    """Shorter documents (surrounding white space not counted) are left out and counted with the skipped ones."""

    transform: str = NONE
    """`none`, or `shuffle_ngrams(N, SEED)`: runs of N words in random order within each document, as a control."""

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("sources is empty; name at least one, for example `- kind: python-docs`.")
        if self.max_documents is not None and self.max_documents < 1:
            raise ValueError(f"max_documents is {self.max_documents!r}; it is at least 1, or null for all.")
        if self.min_characters < 1:
            raise ValueError(f"min_characters is {self.min_characters!r}; it is at least 1.")
        try:
            tagger_names(self.concepts)
            parse_transform(self.transform)
        except (UnknownName, ConfigError) as error:
            raise ValueError(str(error)) from error
