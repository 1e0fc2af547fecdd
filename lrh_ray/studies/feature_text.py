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
from lrh_ray.models.backend import open_backend
from lrh_ray.models.checkpoints import Checkpoint
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.sink import Collected
from lrh_ray.records import Document, SiteSpec, TokenBatch
from lrh_ray.studies.run import RunConfig
from lrh_ray.studies.weights import checkpoint_here


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TextCodes:
    """Codes of each token of a text, and the norm of its row [T]."""

    codes: Codes
    norms: np.ndarray


@dataclass(frozen=True, kw_only=True)
class TextTask:
    """Reads one text at one site; runs on a worker."""

    checkpoint: Checkpoint
    model: ModelConfig
    digest: str
    site: SiteSpec
    reader: Reader
    tokens: TokenBatch

    def __call__(self, _: None) -> TextCodes:
        here = checkpoint_here(self.checkpoint, self.model, self.digest)
        kept = Collected(widths={self.site.name: self.site.width}, num_rows=self.tokens.num_tokens)
        alone = replace(self.model, engine="transformers", tensor_parallel=1, expert_parallel=False)
        with closing(open_backend(here, alone, (self.site,))) as backend:
            backend.forward(self.tokens, kept)
        rows = kept.rows[self.site.name]
        codes = Codes.joined([Codes.of(dense) for _, dense in codes_by_tile(self.reader, rows)])
        return TextCodes(codes=codes, norms=np.linalg.norm(rows, axis=1))


def read_text(text: str, config: RunConfig, checkpoint: Checkpoint, window: int) -> TokenBatch:
    """The tokens of a text, as the run reads its documents.

    Raises:
        CorpusError: A text without tokens.
        DocumentTooLong: It exceeds the window.
    """
    from lrh_ray.models.tokens import load_tokenizer, tokenize

    return tokenize(
        [Document(id="text", text=text)],
        load_tokenizer(checkpoint),
        render=config.text.render,
        bos=config.text.bos,
        window=window,
        too_long="error",
    )
