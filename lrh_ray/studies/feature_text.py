"""A text through the model and an autoencoder: which latents fire on each of its tokens.

    task = TextTask(checkpoint=found, model=config.model, digest=digest, site=spec, reader=reader, tokens=tokens)
    found = task(None)                     # runs on a worker; codes travel, rows do not

The text is read as the store's documents were: the same rendering, the same beginning of sequence.

What can go wrong: the whole model must fit one worker; another checkpoint under the name that the store was extracted
with is `CheckpointBroken`; a text longer than the model's window is `DocumentTooLong`.
"""

from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from lrh_ray.analyses.sae.codes import Codes
from lrh_ray.analyses.sae.reader import Reader, codes_by_tile
from lrh_ray.errors import ConfigError
from lrh_ray.models.backend import open_backend
from lrh_ray.models.checkpoints import Checkpoint
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.sink import Collected
from lrh_ray.records import Document, SiteSpec, TokenBatch
from lrh_ray.studies.run import RunConfig
from lrh_ray.studies.sae_maps import side_by_side
from lrh_ray.studies.weights import checkpoint_here


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TextCodes:
    """Codes of each token of a text, and the norm of its row [T]."""

    codes: Codes
    norms: np.ndarray


@dataclass(frozen=True, kw_only=True)
class TextTask:
    """Reads one text, at several sites side by side; runs on a worker."""

    checkpoint: Checkpoint
    model: ModelConfig
    digest: str
    sites: tuple[SiteSpec, ...]
    reader: Reader
    tokens: TokenBatch

    def __call__(self, _: None) -> TextCodes:
        here = checkpoint_here(self.checkpoint, self.model, self.digest)
        kept = Collected(widths={site.name: site.width for site in self.sites}, num_rows=self.tokens.num_tokens)
        alone = replace(self.model, engine="transformers", tensor_parallel=1, expert_parallel=False)
        with closing(open_backend(here, alone, self.sites)) as backend:
            backend.forward(self.tokens, kept)
        rows = side_by_side([kept.rows[site.name] for site in self.sites])
        codes = Codes.joined([Codes.of(dense) for _, dense in codes_by_tile(self.reader, rows)])
        return TextCodes(codes=codes, norms=np.linalg.norm(rows, axis=1))


def read_text(text: str, config: RunConfig, checkpoint: Checkpoint) -> tuple[TokenBatch, list[str]]:
    """The tokens of a text, as the run reads its documents, and the words to show for them.

    Raises:
        CorpusError: A text without tokens.
        DocumentTooLong: It exceeds the model's window.
    """
    from lrh_ray.models.facts import model_facts
    from lrh_ray.models.tokens import load_tokenizer, tokenize

    tokenizer = load_tokenizer(checkpoint)
    tokens = tokenize(
        [Document(id="text", text=text)],
        tokenizer,
        render=config.text.render,
        bos=config.text.bos,
        window=model_facts(checkpoint, config.model, config.store.sites).window,
        too_long="error",
    )
    names = tokenizer.convert_ids_to_tokens(tokens.token_ids.tolist())
    spans = zip(tokens.char_start.tolist(), tokens.char_end.tolist(), names, strict=True)
    return tokens, [text[start:end] if end > start else name for start, end, name in spans]


def token_of(text: str, checkpoint: Checkpoint) -> int:
    """The number of the token that a text is.

    Raises:
        ConfigError: It is none, or several.
    """
    from lrh_ray.models.tokens import load_tokenizer

    tokenizer = load_tokenizer(checkpoint)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        pieces = ", ".join(repr(tokenizer.decode([one])) for one in ids) or "none"
        raise ConfigError(
            f"{text!r} is {len(ids)} tokens ({pieces}); ask for one of them, or search by --text. Most words inside a "
            f"text begin with a space."
        )
    return int(ids[0])
