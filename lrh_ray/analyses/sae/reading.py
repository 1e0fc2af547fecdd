"""Codes of many rows at once, and an autoencoder of random directions to hold them against.

    codes = sparse_codes(reader, rows)                      # [N, M], compressed by rows
    chance = random_reader(encoder, offset, codes=32.0, seed=0)

What an autoencoder's latents do for a concept means little by itself: of many directions some fit anything. The random
one has as many latents, encoder rows of the same lengths and the same offset, and writes every row with as many codes
as the trained one does on average: the k largest. It is what training begins with (`first_weights`).

What can go wrong: codes that are dense (ConCA) are held as they are, with an index beside each number.
"""

import numpy as np
import torch
from scipy.sparse import csr_array, vstack

from lrh_ray.analyses.sae.parameters import first_weights
from lrh_ray.analyses.sae.reader import Reader, TopKReader, codes_by_tile
from lrh_ray.layouts import Rows

SHORTEST = 1e-6
"""Of an encoder row, in the unit of the rows; a dead latent may have none."""


def sparse_codes(reader: Reader, rows: Rows) -> csr_array:
    """Codes [N, M] of rows [N, D] of any float type, float32."""
    return csr_array(vstack([csr_array(codes) for _, codes in codes_by_tile(reader, rows)], format="csr"))


def random_reader(encoder: np.ndarray, offset: np.ndarray, *, codes: float, seed: int) -> TopKReader:
    """Random directions, as long as the rows of `encoder` [M, D], around `offset` [D]; `codes` of them a row.

    A code stands for the row's part along its direction: decoder rows are as much shorter as encoder rows are longer.
    """
    weights = first_weights(len(encoder), offset.copy(), seed=seed)  # torch takes no array that is only to be read
    lengths = torch.from_numpy(np.linalg.norm(encoder, axis=1).astype(np.float32)).clamp(min=SHORTEST)[:, None]
    own = dict(weights.named()) | {"encoder": weights.encoder * lengths, "decoder": weights.decoder / lengths}
    return TopKReader(parameters=own, k=min(len(encoder), max(1, round(codes))))
