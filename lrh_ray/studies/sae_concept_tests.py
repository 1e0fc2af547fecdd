"""Concepts in few latents, as findings: sparse probing, and what taking the latents of a concept out does to it.

Samples of both classes of every concept are drawn in one pass over the labels of the store; one task per site fits the
dense probes, one per autoencoder reads its codes.
"""

import numpy as np

from lrh_ray.records import Table
from lrh_ray.runtime.reduce import sample
from lrh_ray.store.objects import absolute
from lrh_ray.studies.labelled_rows import sampled_rows
from lrh_ray.studies.probe_config import ProbeConfig
from lrh_ray.studies.probe_design import HELD_OUT, TRAIN, VALIDATION, ProbeDesign, make_design
from lrh_ray.studies.probe_passes import Rowset
from lrh_ray.studies.sae_concept_codes import Material
from lrh_ray.studies.sae_concept_task import ConceptTask, DenseTask
from lrh_ray.studies.sae_evaluation_parts import Evaluation, Findings, mean_codes
from lrh_ray.studies.sae_perturbation_result import perturbation_findings
from lrh_ray.studies.sae_sparse_result import sparse_findings

LABELS = "corpus"


def concept_findings(asked: Evaluation) -> list[Findings]:
    """Both tests of concepts, or the one of them that is asked for.

    Raises:
        UnknownName: A concept that the store's labels do not have.
        NotEnoughData: No concept has enough documents.
    """
    design, material = _material(asked)
    names, sites = [one.name for one in material.train], asked.saved.sites
    asked.progress.begin(f"dense probes of {len(names)} concepts at {len(sites)} sites")
    probes = dict(zip(sites, sample(sites, DenseTask(material=material)), strict=True))
    asked.progress.begin(f"latents of {len(asked.saved.autoencoders)} autoencoders for {len(names)} concepts")
    wanted = [(saved, mean_codes(asked.saved, saved)) for saved in asked.saved.autoencoders]
    found = sample(wanted, ConceptTask(material=material, probes=probes, config=asked.config))
    omitted = [one.concept for one in design.omitted]
    told = (f"Concepts left out for want of documents: {', '.join(omitted)}.",) if omitted else ()
    return [
        *([sparse_findings(asked, found, names)] if "sparse_probing" in asked.config.tests else []),
        *([perturbation_findings(asked, found, names)] if "perturbation" in asked.config.tests else []),
        Findings(summary=told, tables=(_rows_table(material),)),
    ]


def _material(asked: Evaluation) -> tuple[ProbeDesign, Material]:
    config, store = asked.config, asked.store
    design = make_design(store, store.labels(LABELS), ProbeConfig(concepts=config.concepts, seed=config.seed))
    rowset = Rowset(location=absolute(store.location), labels=LABELS, design=design, digest=asked.digest)
    train, held_out = sampled_rows(rowset, ((TRAIN,), (HELD_OUT,)), most=config.rows)
    (validation,) = sampled_rows(rowset, ((VALIDATION,),), most=config.rows // 2)
    return design, Material(location=rowset.location, train=train, validation=validation, held_out=held_out)


def _rows_table(material: Material) -> Table:
    return Table(
        name="samples",
        description="Rows of each concept, half of them of either class, and the held-out documents they are of.",
        columns=("concept", "training", "validation", "held out", "documents held out"),
        rows=tuple(
            (one.name, len(one.index), len(two.index), len(three.index), len(np.unique(three.groups)))
            for one, two, three in zip(material.train, material.validation, material.held_out, strict=True)
        ),
    )
