"""Named array shapes: each layout that crosses a function border, once.

Axis letters, used as suffixes of kernel locals (`x_ND` is an array of N rows by D features):

    N  rows (token positions)          D  features of one site
    C  label columns (concepts)        K  probe columns (concept x penalty x variant)
    T  tokens of a corpus or batch     S  sequences (documents) in it
    B  bootstrap or permutation draws  Q  sites
"""

from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int32, Int64, Shaped

Rows: TypeAlias = Shaped[np.ndarray, "rows feature"]
"""Rows of one site in the store's dtype (bfloat16, float16 or float32)."""

Rows32: TypeAlias = Float32[np.ndarray, "rows feature"]
Rows64: TypeAlias = Float64[np.ndarray, "rows feature"]

RowFloats: TypeAlias = Float[np.ndarray, "rows"]
RowMask: TypeAlias = Bool[np.ndarray, "rows"]
RowInts: TypeAlias = Int32[np.ndarray, "rows"]
RowIndex: TypeAlias = Int64[np.ndarray, "rows"]
"""Rows of a store, counted from 0 over all blocks, padding included."""

Tokens: TypeAlias = Int32[np.ndarray, "tokens"]
Boundaries: TypeAlias = Int64[np.ndarray, "sequences_plus_1"]
"""Where each sequence starts; the last entry is the number of tokens."""

Feature64: TypeAlias = Float64[np.ndarray, "feature"]
Gram64: TypeAlias = Float64[np.ndarray, "feature feature"]
Labels64: TypeAlias = Float64[np.ndarray, "rows column"]
"""0/1 labels, one column per concept (or per shuffled copy of one)."""

Columns64: TypeAlias = Float64[np.ndarray, "column"]
Scores64: TypeAlias = Float64[np.ndarray, "rows column"]
Coefficients64: TypeAlias = Float64[np.ndarray, "feature column"]
