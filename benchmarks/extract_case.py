"""What is measured of extraction: a model with sites, blocks of real text, and a store that takes them one by one.

    case = Case.of(options, ["resid.15"], num_blocks=29)
    blocks = Blocks(case, folder / "store")
    blocks.extract(backend)                    # the block whose turn it is, durable and committed
    blocks.turn()

The text is that of the docstrings of Python's own library.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from store_write import empty

from lrh_ray.models.checkpoints import Checkpoint, resolve_checkpoint
from lrh_ray.models.compute import compute_dtype
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.facts import DtypeName, model_facts
from lrh_ray.models.hf import TransformersBackend
from lrh_ray.models.tokens import load_tokenizer, tokenize
from lrh_ray.records import Corpus, Document, TokenBatch
from lrh_ray.store.config import StoreConfig
from lrh_ray.store.objects import open_objects
from lrh_ray.store.parts import Part
from lrh_ray.store.plan import Plan, make_plan
from lrh_ray.store.seal import create_store
from lrh_ray.store.writer import BlockWriter

LONGEST = 4
"""Documents of their own lengths are cut at so many times `--document-tokens`."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model with sites, and blocks of real text of equal size."""

    checkpoint: Checkpoint
    config: ModelConfig
    sites: tuple[str, ...]
    tokens: TokenBatch
    plan: Plan
    corpus: Corpus

    @classmethod
    def of(
        cls, options: argparse.Namespace, sites: Sequence[str], num_blocks: int, *, own_lengths: bool = False
    ) -> "Case":
        checkpoint = resolve_checkpoint(options.model)
        config = ModelConfig(name=options.model, threads=options.threads, batch_tokens=options.batch_tokens)
        window = options.document_tokens * (LONGEST if own_lengths else 1)
        num = num_blocks * options.tokens // options.document_tokens
        texts = docstrings(num) if own_lengths else real_documents(num)
        tokens = tokenize(
            texts, load_tokenizer(checkpoint), render="raw", bos="tokenizer", window=window, too_long="split"
        )
        if not own_lengths:
            tokens = equal_documents(tokens, num)
        num = len(tokens.document_ids)
        documents = [Document(id=str(i), text=texts[i % len(texts)].text) for i in range(num)]
        facts = model_facts(checkpoint, config, sites)
        corpus = Corpus(documents=tuple(documents), concepts=(), skipped=0, digest="bench")
        plan = make_plan(
            tokens, facts, StoreConfig(sites=tuple(sites), rows_per_block=options.tokens), {"corpus": "bench"}
        )
        return cls(checkpoint=checkpoint, config=config, sites=tuple(sites), tokens=tokens, plan=plan, corpus=corpus)

    def create(self, location: Path) -> None:
        create_store(
            location, self.plan, self.tokens, self.corpus, config_yaml="name: bench\n", provenance={"made_by": "bench"}
        )

    @property
    def compute(self) -> str:
        """Number format of the products, ours and the peers'."""
        return compute_dtype(cast(DtypeName, self.plan.identity["model_dtype"]), self.config, "cpu")

    @property
    def bytes_per_token(self) -> int:
        item = 4 if self.plan.dtype == "float32" else 2
        return sum(site.width for site in self.plan.sites) * item


def docstrings(num: int) -> list[Document]:
    """Docstrings of Python's own library, each a document: real text of real lengths that is on every machine."""
    import ast

    folder = Path(os.__file__).parent
    texts = []
    for path in sorted([*folder.glob("*.py"), *folder.glob("[a-z]*/*.py")]):
        if path.parent.name in ("lib2to3", "test", "tests"):  # sources in other encodings
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and (text := ast.get_docstring(node)):
                texts.append(text)
    return [Document(id=str(i), text=text) for i, text in enumerate(texts[:num])]


def real_documents(num: int) -> list[Document]:
    """The same text in pieces of one size."""
    joined, size = "\n\n".join(document.text for document in docstrings(sys.maxsize)), 2000
    return [Document(id=str(i), text=joined[i * size : (i + 1) * size]) for i in range(min(num, len(joined) // size))]


def equal_documents(tokens: TokenBatch, num: int) -> TokenBatch:
    """The first `num` sequences of full length, so that every block holds as many tokens."""
    full = np.flatnonzero(tokens.lengths == tokens.lengths.max())[:num]
    if len(full) < num:
        raise SystemExit(f"the text gives {len(full)} sequences of {tokens.lengths.max()} tokens; {num} are needed")
    kept = np.concatenate([np.arange(tokens.starts[s], tokens.starts[s + 1]) for s in full])
    return TokenBatch(
        document_ids=tuple(f"{i}" for i in range(num)),
        token_ids=tokens.token_ids[kept],
        positions=tokens.positions[kept],
        char_start=tokens.char_start[kept],
        char_end=tokens.char_end[kept],
        starts=np.arange(num + 1, dtype=np.int64) * int(tokens.lengths.max()),
    )


class Blocks:
    """Hands out the next block for each run, in a store without the blocks before it.

    What a run has written is removed before the next, as the peer's files are: otherwise one side would fill fresh
    memory of the page cache and the other reuse its own, which on a virtual machine costs several times as much.
    """

    def __init__(self, case: Case, location: Path) -> None:
        self._case, self._location, self._next = case, location, 0
        location.mkdir()
        self._refresh()
        self._part = Part(objects=open_objects(location), plan=case.plan, commits={}, manifest=None)

    def tokens(self) -> TokenBatch:
        """Tokens of the block whose turn it is."""
        return self._part.block_tokens(self._next % self._case.plan.num_blocks)

    def extract(self, backend: TransformersBackend) -> None:
        block = self._next % self._case.plan.num_blocks
        with BlockWriter(self._location, self._case.plan, block=block, attempt=f"{self._next:x}", worker="b") as writer:
            backend.forward(self._part.block_tokens(block), writer)
            if not writer.commit().committed:
                raise RuntimeError("a block was committed twice; give the benchmark more blocks")

    def turn(self) -> None:
        self._next += 1
        self._refresh()

    def _refresh(self) -> None:
        empty(self._location)
        self._case.create(self._location)


def bare(backend: TransformersBackend, blocks: Blocks) -> None:
    backend.forward_bare(blocks.tokens())
