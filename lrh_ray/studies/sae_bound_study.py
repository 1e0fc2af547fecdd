"""The upper bound as a study: latents of trained autoencoders against supervised probes, concept by concept.

    lrh sae TEXT.yaml                                    # autoencoders of a corpus
    lrh extract WORDS.yaml                               # text.sources of kind `word-pairs` or `pairs`, rows: last
    lrh sae-bound WORDS.yaml --set sae_bound.result=runs/text/results/1f3a

Of every concept a logistic probe is fitted, and a latent matched to it (`analyses.sae.upper_bound`): on the same words,
as published, and on words that fitted no probe and chose no latent. A store without word pairs is read by its labels: a
sample of rows for each concept, whose documents stay together as the words of a pair do.

What can go wrong: a store of neither pairs nor labels, concepts of too few words, a result of another model.
"""

import time
from pathlib import Path

from lrh_ray.artifacts import save_result, standing_result
from lrh_ray.digests import digest_json
from lrh_ray.errors import NotEnoughData
from lrh_ray.records import Result
from lrh_ray.runtime.cluster import EMBEDDED, connected
from lrh_ray.runtime.reduce import sample
from lrh_ray.store.objects import absolute
from lrh_ray.store.reader import Store
from lrh_ray.studies.labelled_rows import LabelledRows, rows_of_pairs, sampled_rows
from lrh_ray.studies.pair_words import word_pairs
from lrh_ray.studies.probe_config import ProbeConfig
from lrh_ray.studies.probe_design import PARTS, make_design
from lrh_ray.studies.probe_passes import Rowset
from lrh_ray.studies.progress import Progress, Silent
from lrh_ray.studies.run import RunConfig
from lrh_ray.studies.sae_bound_config import SaeBoundConfig
from lrh_ray.studies.sae_bound_result import make_bound_result
from lrh_ray.studies.sae_bound_task import BoundTask, ProbeTask
from lrh_ray.studies.sae_question import open_saved, saved_question
from lrh_ray.studies.sae_saved import SavedResult
from lrh_ray.text.word_pairs import pair_member

LABELS = "corpus"


def autoencoder_bound(config: RunConfig, *, address: str = EMBEDDED, progress: Progress | None = None) -> Path:
    """Hold autoencoders against probes and save the result; returns its folder, at once if it was asked before.

    Raises:
        StoreIncomplete: The store is not sealed.
        ResultMissing: There are no autoencoders.
        ConfigError: Autoencoders of another model, or several results of them.
        SiteError: A site that the store or the result does not have.
        NotEnoughData: No concept has enough words.
    """
    progress, started = progress or Silent(), time.monotonic()
    asked = config.sae_bound
    store, saved = open_saved(config, asked, setting="sae_bound")
    paired = any(pair_member(name) is not None for name in store.document_ids)
    question = _question(config, store, saved, paired=paired)
    if standing := standing_result(question, config.results_path):
        return standing
    with connected(address):
        concepts, omitted = rows_of_pairs(store, word_pairs(store)) if paired else _labelled(store, asked, question)
        if not concepts:
            raise NotEnoughData(f"No concept has enough words without a word in common: {', '.join(omitted)}.")
        location = absolute(config.store_location)
        progress.begin(f"probes of {len(concepts)} concepts at {len(saved.sites)} sites")
        probes = dict(
            zip(
                saved.sites,
                sample(saved.sites, ProbeTask(location=location, concepts=concepts, config=asked)),
                strict=True,
            )
        )
        progress.begin(f"holding {len(saved.autoencoders)} autoencoders against them")
        task = BoundTask(location=location, concepts=concepts, probes=probes, config=asked)
        answers = [answer for found in sample(saved.autoencoders, task) for answer in found]
    seconds = round(time.monotonic() - started, 1)
    result = make_bound_result(question, store, saved, concepts, omitted, probes, answers, seconds)
    return save_result(result, config.results_path)


def _labelled(
    store: Store, config: SaeBoundConfig, question: Result
) -> tuple[tuple[LabelledRows, ...], tuple[str, ...]]:
    """A sample of rows for every concept of the store's labels, of any documents; and what has too few of these."""
    design = make_design(store, store.labels(LABELS), ProbeConfig(concepts=config.concepts, seed=config.seed))
    digest = digest_json({**question.inputs, "resolved": question.resolved, "root": str(absolute(store.location))})
    rowset = Rowset(location=absolute(store.location), labels=LABELS, design=design, digest=digest)
    (concepts,) = sampled_rows(rowset, (PARTS,), most=config.rows)
    return concepts, tuple(one.concept for one in design.omitted)


def _question(config: RunConfig, store: Store, saved: SavedResult, *, paired: bool) -> Result:
    return saved_question(
        config,
        config.sae_bound,
        store,
        saved,
        kind="sae-bound",
        title=f"Autoencoders against probes: {config.name}",
        resolved={"of": "word pairs" if paired else "labels", "interval": "95 %, bootstrap over groups of words"},
        inputs={} if paired else {"labels": store.labels(LABELS).digest},
    )
