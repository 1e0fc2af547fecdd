"""Stores whose rows a test writes itself, so that it knows what is in them."""

from dataclasses import replace

import numpy as np

from lrh_ray.records import Concept, Corpus, Document, SiteSpec, Span
from lrh_ray.store.config import StoreConfig
from lrh_ray.store.plan import make_plan
from lrh_ray.store.reader import open_store
from lrh_ray.store.seal import create_store, seal
from lrh_ray.store.writer import BlockWriter
from lrh_ray.testing.stores import make_model, make_tokens

WIDTH, LENGTH, NUM_DOCUMENTS = 24, 20, 150


def corpus_of(tokens, kinds=("a", "b", "c"), texts=None):
    """Documents of several kinds, some of whose tokens are marked; all of one text, or each of its own."""
    rng = np.random.default_rng(0)
    documents = tuple(
        Document(
            id=name,
            text="ab" * LENGTH if texts is None else texts[i],
            labels={"kind": kinds[i % len(kinds)]},
            spans=tuple(
                Span(concept="mark", value="yes", start=2 * t, end=2 * t + 1)
                for t in np.flatnonzero(rng.random(LENGTH) < 0.3).tolist()
            ),
        )
        for i, name in enumerate(tokens.document_ids)
    )
    concepts = (
        Concept(name="kind", level="document", description="kind", values=kinds),
        Concept(name="mark", level="token", description="marked", values=("yes",)),
    )
    return Corpus(documents=documents, concepts=concepts, skipped=0, digest="c")


def with_marked_tokens(tokens, corpus, token):
    """The same tokens, but those that are marked are all the token `token`."""
    ids = tokens.token_ids.copy()
    for first, document in zip(tokens.starts, corpus.documents, strict=False):
        ids[[first + span.start // 2 for span in document.spans]] = token
    return replace(tokens, token_ids=ids)


def write_store(
    root,
    sites,
    rows_of,
    *,
    num_documents=NUM_DOCUMENTS,
    width=WIDTH,
    sealed=True,
    marked_token=None,
    tokens=None,
    **corpus,
):
    """A store whose rows at each site are `rows_of(site, kinds [N], marks [N], rng)`."""
    tokens = make_tokens([LENGTH] * num_documents) if tokens is None else tokens
    corpus = corpus_of(tokens, **corpus)
    if marked_token is not None:
        tokens = with_marked_tokens(tokens, corpus, marked_token)
    specs = tuple(SiteSpec(name=f"resid.{layer}", width=width, layer=layer) for layer in range(sites))
    model = replace(make_model("float32"), sites=specs)
    config = StoreConfig(sites=("resid.*",), min_blocks=4, seed=0)
    plan = make_plan(tokens, model, config, {"corpus": corpus.digest})
    create_store(root, plan, tokens, corpus, config_yaml="name: fake\n", provenance={"made_by": "tests"})
    store = open_store(root)
    labels = store.labels()
    kinds = labels.document_codes("kind")
    for block in range(plan.num_blocks):
        keys = store.keys(block)
        marks = labels.token_mask("mark", keys.doc, keys.char_start, keys.char_end, "yes").astype(int)
        with BlockWriter(root, plan, block=block, attempt="a1", worker="test") as writer:
            for site in plan.sites:
                rng = np.random.default_rng([block, site.layer])
                writer.write(site.name, 0, rows_of(site.layer, kinds[keys.doc], marks, rng).astype(np.float32))
            writer.commit()
    if sealed:
        seal(root, plan, parity={})
    return root


def write_words(root, sites, words, ids, rows, **options):
    """A store of one token for each document: `rows` [N, D] belong to `words` [N], whose documents are called `ids`."""
    tokens = replace(
        make_tokens([1] * len(words)),
        document_ids=tuple(ids),
        char_start=np.zeros(len(words), np.int32),
        char_end=np.array([len(word) for word in words], np.int32),
    )

    def rows_of(layer, numbers, marks, rng):
        del layer, marks, rng
        return rows[numbers]

    return write_store(root, sites, rows_of, tokens=tokens, kinds=tuple(ids), texts=words, **options)
