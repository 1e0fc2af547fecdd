"""Small real stores, filled without a model: rows are a pure function of (site, global row)."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from lrh_ray.records import Concept, Corpus, Document, ModelFacts, Receipt, SiteSpec, Span, TokenBatch
from lrh_ray.store.codecs import Compression
from lrh_ray.store.config import StoreConfig
from lrh_ray.store.objects import Location
from lrh_ray.store.plan import Plan, make_plan
from lrh_ray.store.plan_shape import DTYPES
from lrh_ray.store.seal import create_store
from lrh_ray.store.writer import BlockWriter

Dtype: TypeAlias = Literal["bfloat16", "float16", "float32"]
SITES = (SiteSpec(name="resid.0", width=24, layer=0), SiteSpec(name="final_norm", width=24, layer=None))


@dataclass(frozen=True, kw_only=True)
class FakeStore:
    """A planned store with what it was planned from."""

    root: Location
    plan: Plan
    tokens: TokenBatch
    corpus: Corpus


def make_tokens(lengths: list[int]) -> TokenBatch:
    count = np.arange(sum(lengths), dtype=np.int32)
    positions = np.concatenate([np.arange(n, dtype=np.int32) for n in lengths] or [count])
    return TokenBatch(
        document_ids=tuple(f"doc-{i}" for i in range(len(lengths))),
        token_ids=count % 251,
        positions=positions,
        char_start=positions * 2,
        char_end=positions * 2 + 2,
        starts=np.append(0, np.cumsum(lengths)).astype(np.int64),
    )


def make_corpus(tokens: TokenBatch) -> Corpus:
    documents = tuple(
        Document(
            id=name,
            text="ab" * int(length),
            labels={"kind": "even" if i % 2 == 0 else "odd"},
            spans=(Span(concept="start", value="yes", start=0, end=1),),
        )
        for i, (name, length) in enumerate(zip(tokens.document_ids, tokens.lengths, strict=True))
    )
    concepts = (
        Concept(name="kind", level="document", description="parity", values=("even", "odd")),
        Concept(name="start", level="token", description="first token", values=("yes",)),
    )
    return Corpus(documents=documents, concepts=concepts, skipped=0, digest="c")


def make_model(dtype: Dtype = "bfloat16") -> ModelFacts:
    return ModelFacts(
        name="fake",
        digest="m",
        tokenizer_digest="t",
        family="llama",
        num_layers=1,
        hidden_size=24,
        window=1000,
        dtype=dtype,
        sites=SITES,
    )


def make_store(
    root: Location,
    lengths: list[int],
    *,
    rows_per_block: int | None = None,
    dtype: Dtype = "bfloat16",
    seed: int = 0,
    compression: Compression = "none",
) -> FakeStore:
    """Plan a store of documents of the given lengths; no rows yet."""
    tokens = make_tokens(lengths)
    corpus = make_corpus(tokens)
    config = StoreConfig(
        sites=("resid.0", "final_norm"),
        rows_per_block=rows_per_block,
        min_blocks=6,
        seed=seed,
        compression=compression,
    )
    plan = make_plan(tokens, make_model(dtype), config, {"corpus": corpus.digest})
    create_store(root, plan, tokens, corpus, config_yaml="name: fake\n", provenance={"made_by": "tests"})
    return FakeStore(root=root, plan=plan, tokens=tokens, corpus=corpus)


def truth(plan: Plan, site: str, block: int) -> np.ndarray:
    """Rows of a block, reproducible from their global positions alone."""
    rng = np.random.default_rng([block, len(site)])
    return rng.normal(size=(int(plan.valid_rows[block]), 24)).astype(DTYPES[plan.dtype])


def write_block(
    fake: FakeStore, block: int, attempt: str = "a1", pieces: int = 3, order: np.random.Generator | None = None
) -> Receipt:
    """Write and commit one block, its rows in pieces and in any order."""
    with BlockWriter(fake.root, fake.plan, block=block, attempt=attempt, worker="test") as writer:
        for site in fake.plan.sites:
            rows = truth(fake.plan, site.name, block)
            cuts = np.array_split(np.arange(len(rows)), pieces)
            sequence = order.permutation(len(cuts)) if order is not None else range(len(cuts))
            for piece in sequence:
                if len(cuts[piece]):
                    writer.write(site.name, int(cuts[piece][0]), rows[cuts[piece]])
        return writer.commit()


def fill(fake: FakeStore) -> None:
    for block in range(fake.plan.num_blocks):
        write_block(fake, block)
