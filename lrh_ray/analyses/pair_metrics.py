"""Inner products of words under which directions may be compared.

    gram_of(rows)                      # Euclidean, as published
    whitened_gram(rows)                # features decorrelated, by a shrunk covariance
    gram_of(rows, metric=covariance_of(unembedding))    # causal: Park et al. 2311.03658, for rows of the final norm

A few features of a residual stream hold most of its variance, and a Euclidean cosine is about them. Whitening gives
each direction its own weight. The causal metric measures directions by how much they move logits apart:
l = Cov(g)^(1/2) h for rows h, where g are the rows of the unembedding.

Rows are centred in each: a common offset (a token that attention sinks into, say) is no direction of any concept.
"""

import numpy as np
from sklearn.covariance import ledoit_wolf

from lrh_ray.analyses.layouts import RowGram, Square
from lrh_ray.analyses.moments import LabelledMoments
from lrh_ray.analyses.tiles import TILE_ROWS, tile_slices
from lrh_ray.errors import NotEnoughData
from lrh_ray.layouts import Rows, Rows64


def gram_of(rows: Rows64, metric: Square | None = None) -> RowGram:
    """Inner products of centred rows, Euclidean or x M y."""
    centred = centre(rows)
    return np.asarray(centred @ (centred if metric is None else centred @ metric).T)


def whitened_gram(rows: Rows64) -> RowGram:
    """Inner products after whitening with the rows' own covariance, shrunk to a multiple of the identity.

    How far it is shrunk follows from the rows (Ledoit and Wolf 2004): fewer rows than features have no inverse.
    """
    centred = centre(rows)
    covariance, _ = ledoit_wolf(centred, assume_centered=True)
    return np.asarray(centred @ np.linalg.solve(covariance, centred.T))


def covariance_of(rows: Rows) -> Square:
    """Covariance over rows, uniform: of the unembedding, over the vocabulary. Rows of any float type.

    Summed in float64, in tiles: a vocabulary of 128 thousand tokens is never in float64 as a whole.

    Raises:
        NotEnoughData: Fewer than 2 rows, or rows that are not finite.
    """
    _require_finite(rows)
    everyone, nothing = np.ones((len(rows), 1), dtype=bool), np.zeros((len(rows), 0))
    shift = rows[:TILE_ROWS].astype(np.float64).mean(axis=0)
    moments = LabelledMoments.of(rows, shift, nothing, everyone, np.zeros(0, np.int64)).finalize()
    return np.asarray(moments.covariance[0])


def matched_noise(rows: Rows64, rng: np.random.Generator) -> Rows64:
    """Gaussian rows with the mean and covariance of `rows`, and nothing else of them."""
    return np.asarray(
        rows.mean(axis=0) + rng.standard_normal((len(rows), len(rows))) @ centre(rows) / np.sqrt(len(rows))
    )


def centre(rows: Rows64) -> Rows64:
    """Rows without their mean.

    Raises:
        NotEnoughData: A row is not finite.
    """
    _require_finite(rows)
    return np.asarray(rows - rows.mean(axis=0))


def _require_finite(rows: Rows) -> None:
    bad = [
        tile.start + row
        for tile in tile_slices(len(rows))
        for row in np.flatnonzero(~np.isfinite(rows[tile]).all(axis=1)).tolist()
    ]
    if bad:
        raise NotEnoughData(f"{len(bad)} rows are not finite, the first is number {bad[0]}; leave these words out.")
