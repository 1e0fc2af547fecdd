"""A map before training: the units of its ends, and what linear maps of every rank leave of what it explains.

Of an autoencoder and of a crosscoder these are principal components of the training rows, of a transcoder the ridge map
and its reductions to every rank. All come from sums over the rows, taken once.
"""

from collections.abc import Mapping

import numpy as np

from lrh_ray.analyses.joint import Joint
from lrh_ray.analyses.reduced_rank import best_ridge, left_by_rank
from lrh_ray.runtime.reduce import reduce_blocks
from lrh_ray.studies.sae_map_config import SiteMap
from lrh_ray.studies.sae_maps import MapUnit
from lrh_ray.studies.sae_passes import EndsPass, SaeRows
from lrh_ray.studies.sae_records import MapRows, SiteRows


def map_rows(rows: SaeRows, ends: SiteMap, found: Mapping[str, SiteRows]) -> MapRows:
    """What stands beside a map; `found` has its sites. One pass over their rows, unless it is an autoencoder's."""
    unit = MapUnit.of(ends, {site: one.unit for site, one in found.items()})
    if ends.alone:
        own = found[ends.name]
        return MapRows(ends=ends, unit=unit, explained=own.explained, covariance=own.covariance)
    task = EndsPass(rows=rows, ends=ends, unit=unit)
    moments = reduce_blocks(range(rows.store().plan.num_blocks), task)
    training, held_out = moments.only(0), moments.only(1)
    if ends.transcodes:
        left = left_by_rank(best_ridge(training, held_out), training, held_out)
    else:
        left = left_by_components(training, held_out)
    return MapRows(ends=ends, unit=unit, explained=left, covariance=training.xx)


def left_by_components(training: Joint, held_out: Joint) -> np.ndarray:
    """Share of the held-out variance that the first k principal components of the training rows leave, for every k."""
    _, directions = np.linalg.eigh(training.xx)
    along = np.einsum("dk,de,ek->k", directions, held_out.xx, directions)[::-1]
    return np.asarray(1 - np.concatenate([[0.0], along.cumsum()]) / np.trace(held_out.xx))
