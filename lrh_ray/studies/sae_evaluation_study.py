"""Trained autoencoders put to use: are concepts in few of their latents, and are their codes short?

    lrh sae CONFIG
    lrh sae-evaluate CONFIG         # or of another store of the same model: sae_evaluation.result names the result

Variance explained, codes a row and the loss of a spliced model say how well an autoencoder copies. Here it is asked
what the copy is good for: whether a concept can be read from one latent or a few (`sparse_probing`), whether taking
these out takes that concept and no other (`perturbation`), whether a letter's latent is silent where another one has
swallowed it (`absorption`), and how many bits a row takes when it is sent as codes (`description_length`).

What can go wrong: a store without labels, or without words that are one token, for the tests that want them; a result
of another model.
"""

import time
from dataclasses import replace
from pathlib import Path

from lrh_ray.artifacts import result_digest, save_result, standing_result
from lrh_ray.records import Result
from lrh_ray.runtime.cluster import EMBEDDED, connected
from lrh_ray.store.reader import Store
from lrh_ray.studies.progress import Progress, Silent
from lrh_ray.studies.result_parts import parity_table, provenance, store_table
from lrh_ray.studies.run import RunConfig
from lrh_ray.studies.sae_absorption_result import absorption_findings
from lrh_ray.studies.sae_concept_tests import LABELS, concept_findings
from lrh_ray.studies.sae_evaluation_config import SaeEvaluationConfig
from lrh_ray.studies.sae_evaluation_parts import Evaluation, Findings
from lrh_ray.studies.sae_lengths import STEPS
from lrh_ray.studies.sae_lengths_result import length_findings
from lrh_ray.studies.sae_question import open_saved, saved_question
from lrh_ray.studies.sae_saved import SavedResult

OF_CONCEPTS = {"sparse_probing", "perturbation"}


def evaluate_autoencoders(config: RunConfig, *, address: str = EMBEDDED, progress: Progress | None = None) -> Path:
    """Evaluate and save the result; returns its folder, at once if the question was answered before.

    Raises:
        StoreIncomplete: The store is not sealed.
        ResultMissing: There are no autoencoders.
        ConfigError: Autoencoders of another model, or several results of them.
        SiteError: A site that the store or the result does not have.
        UnknownName: A concept that the store's labels do not have.
        NotEnoughData: Too few documents or words for a test.
    """
    progress, started = progress or Silent(), time.monotonic()
    asked = config.sae_evaluation
    store, saved = open_saved(config, asked, setting="sae_evaluation")
    question = _question(config, store, saved)
    if standing := standing_result(question, config.results_path):
        return standing
    with connected(address):
        found = _found(
            Evaluation(store=store, saved=saved, config=asked, digest=result_digest(question), progress=progress)
        )
    seconds = round(time.monotonic() - started, 1)
    left_out = tuple(f"Left out: {name}. {reason}" for name, reason in saved.omitted)
    result = replace(
        question,
        summary=(*(line for one in found for line in one.summary), *left_out),
        measures=tuple(measure for one in found for measure in one.measures),
        tables=(*(table for one in found for table in one.tables), store_table(store), parity_table(store)),
        arrays={name: array for one in found for name, array in one.arrays.items()},
        provenance=provenance(store, seconds),
    )
    return save_result(result, config.results_path)


def _found(asked: Evaluation) -> list[Findings]:
    tests, found = set(asked.config.tests), list[Findings]()
    if tests & OF_CONCEPTS:
        found += concept_findings(asked)
    if "absorption" in tests:
        found += absorption_findings(asked)
    if "description_length" in tests:
        found += length_findings(asked)
    return found


def _question(config: RunConfig, store: Store, saved: SavedResult) -> Result:
    asked = config.sae_evaluation
    return saved_question(
        config,
        asked,
        store,
        saved,
        kind="sae-evaluation",
        title=f"What autoencoders are good for: {config.name}",
        resolved={
            "steps": list(STEPS),
            "interval": "95 %, bootstrap over documents; of absorption Wilson's; of lengths a jackknife over documents",
        },
        inputs=_labels(store, asked),
    )


def _labels(store: Store, asked: SaeEvaluationConfig) -> dict[str, str]:
    """Labels are an input of the tests that read them."""
    return {"labels": store.labels(LABELS).digest} if set(asked.tests) & OF_CONCEPTS else {}
