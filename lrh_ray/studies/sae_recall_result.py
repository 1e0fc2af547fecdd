"""What a preselection found of the codes that an exact product would choose.

Codes of a row are lost together, so a batch is worth as many trials as it has rows, and Wilson's interval of these is
rather too wide than too narrow.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from lrh_ray.analyses.proportion import wilson
from lrh_ray.analyses.sae.preselection import num_candidates
from lrh_ray.records import Measure, Table
from lrh_ray.studies.result_parts import bounded_measure
from lrh_ray.studies.sae_config import SaeConfig
from lrh_ray.studies.sae_kind_config import Chosen
from lrh_ray.studies.sae_records import Measured

Keys: TypeAlias = Mapping[str, str | int | float]


def recall_measures(
    keys: Mapping[str, Keys], measured: Sequence[Measured], config: SaeConfig, recall: np.ndarray
) -> Iterator[Measure]:
    """Of the last batch before the last checkpoint; of kinds that have a preselection.

    `keys` say where a map is. As many candidates drawn by chance find a share of the codes that is their share of the
    latents.
    """
    for one, found in zip(measured, recall, strict=True):
        if config.preselect is not None and isinstance(one.kind, Chosen):
            own = {**keys[one.site], "autoencoder": one.name}
            latents = config.latents_of(one.kind)
            by_chance = num_candidates(config.preselect, one.kind.k, latents) / latents
            last = wilson(float(found[-1]), config.batch_rows)
            yield bounded_measure("recall", last, "of the exact choice", own, {"random_candidates": by_chance})


def recall_table(measured: Sequence[Measured], steps: Sequence[int], recall: np.ndarray) -> Table:
    rows = [
        (one.site, one.name, step, round(value, 6))
        for one, found in zip(measured, recall.tolist(), strict=True)
        for step, value in zip(steps, found, strict=True)
        if np.isfinite(value)
    ]
    return Table(
        name="preselection",
        description="Recall of the exact choice: of the codes that a product in float32 would choose from the batch of "
        "a step, the share that was chosen among the candidates of a product in bfloat16.",
        columns=("site", "autoencoder", "step", "recall"),
        rows=tuple(rows),
    )
