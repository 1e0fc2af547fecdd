"""Compiled loops that choose the largest pre-activations, of every row or of a whole batch.

A row is cut into L lanes. The k-th largest of the lanes' maxima is at most the k-th largest value, since k values as
large exist; so what is chosen lies in lanes whose maximum reaches it, and the rest of the row is read once, in order.
A bound for a whole batch works in the same way.

Of equal values the one of the lowest latent (in a batch: of the first row, then of the lowest latent) is chosen. Values
that are not positive never are: after the ReLU they are 0, and give no gradient.

What can go wrong: values that are not finite are chosen from at random; whoever computes the loss sees them.

Legend: N rows, M latents, K codes a row at most, L lanes.
"""

import numpy as np

from lrh_ray.compiled import compiled


@compiled
def kth_largest(values: np.ndarray, size: int, k: int) -> float:
    """The k-th largest of the first `size` values, which are put in another order (quickselect)."""
    low, high, wanted = 0, size - 1, k - 1
    while low < high:
        middle = (low + high) // 2
        a, b, c = values[low], values[middle], values[high]
        pivot = max(min(a, b), min(max(a, b), c))
        i, j = low, high
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if wanted <= j:
            high = j
        elif wanted >= i:
            low = i
        else:
            break
    return values[wanted]  # type: ignore[no-any-return]  # of the array's dtype


@compiled
def lane_maxima(row_M: np.ndarray, bias_M: np.ndarray, best_L: np.ndarray) -> None:
    """The largest of row + bias in each lane; lane l has the values at l, l + L, l + 2 L, ..."""
    num, lanes = len(row_M), len(best_L)
    for lane in range(lanes):
        best_L[lane] = row_M[lane] + bias_M[lane]
    for base in range(lanes, num - lanes + 1, lanes):
        for lane in range(lanes):
            value = row_M[base + lane] + bias_M[base + lane]
            best_L[lane] = value if value > best_L[lane] else best_L[lane]
    for at in range(num - num % lanes, num):
        value = row_M[at] + bias_M[at]
        best_L[at % lanes] = max(value, best_L[at % lanes])


@compiled
def top_of_rows(
    pre_NM: np.ndarray,
    bias_M: np.ndarray,
    lanes: int,
    value_NK: np.ndarray,
    index_NK: np.ndarray,
    count_N: np.ndarray,
) -> None:
    """The K largest positive values of pre + bias of each row, with their latents; `count` says how many there are."""
    num_rows, num = pre_NM.shape
    k = value_NK.shape[1]
    best_L, scratch_L = np.empty(lanes, pre_NM.dtype), np.empty(lanes, pre_NM.dtype)
    found, found_scratch, latent = np.empty(num, pre_NM.dtype), np.empty(num, pre_NM.dtype), np.empty(num, np.int32)
    zero = pre_NM.dtype.type(0)
    for n in range(num_rows):
        row_M = pre_NM[n]
        lane_maxima(row_M, bias_M, best_L)
        scratch_L[:] = best_L
        bound = max(kth_largest(scratch_L, lanes, k), zero)
        size = 0
        for lane in range(lanes):
            if best_L[lane] >= bound and best_L[lane] > zero:
                for at in range(lane, num, lanes):
                    value = row_M[at] + bias_M[at]
                    if value >= bound and value > zero:
                        found[size] = value
                        latent[size] = at
                        size += 1
        if size > k:
            found_scratch[:size] = found[:size]
            size = keep_largest(found, latent, size, kth_largest(found_scratch, size, k), k)
        count_N[n] = size
        value_NK[n, :size] = found[:size]
        index_NK[n, :size] = latent[:size]


@compiled
def keep_largest(found: np.ndarray, latent: np.ndarray, size: int, least: float, k: int) -> int:
    """Move the k largest of `size` to the front: all above `least`, and of those equal to it the lowest latents."""
    above = 0
    for i in range(size):
        above += found[i] > least
    highest = np.int32(0)  # latent of the last of the equals that is kept
    for _ in range(k - above):
        lowest = np.int32(2147483647)
        for i in range(size):
            if found[i] == least and latent[i] >= highest and latent[i] < lowest:
                lowest = latent[i]
        highest = lowest + np.int32(1)
    kept = 0
    for i in range(size):
        if found[i] > least or (found[i] == least and latent[i] < highest):
            found[kept] = found[i]
            latent[kept] = latent[i]
            kept += 1
    return kept


@compiled
def above_bound(
    pre_NM: np.ndarray,
    bias_M: np.ndarray,
    lanes: int,
    bound: np.floating,
    value_E: np.ndarray,
    index_E: np.ndarray,
    count_N: np.ndarray,
) -> int:
    """All positive values of at least `bound`, row by row; how many, of which only those are kept that find room."""
    num_rows, num = pre_NM.shape
    best_L, size, zero = np.empty(lanes, pre_NM.dtype), 0, pre_NM.dtype.type(0)
    for n in range(num_rows):
        row_M, before = pre_NM[n], size
        lane_maxima(row_M, bias_M, best_L)
        for lane in range(lanes):
            if best_L[lane] >= bound and best_L[lane] > zero:
                for at in range(lane, num, lanes):
                    value = row_M[at] + bias_M[at]
                    if value >= bound and value > zero:
                        if size < len(value_E):
                            value_E[size] = value
                            index_E[size] = at
                        size += 1
        count_N[n] = size - before
    return size


@compiled
def keep_of_batch(
    found_E: np.ndarray,
    latent_E: np.ndarray,
    count_N: np.ndarray,
    least: float,
    equals: int,
    value_NK: np.ndarray,
    index_NK: np.ndarray,
) -> None:
    """All values above `least` and the first `equals` of those equal to it; `count` becomes that of the kept."""
    at = 0
    for n in range(len(count_N)):
        kept, last = 0, at + count_N[n]
        order = np.argsort(latent_E[at:last])
        for i in order:
            value = found_E[at + i]
            if value > least or (value == least and equals > 0):
                equals -= value == least
                value_NK[n, kept] = value
                index_NK[n, kept] = latent_E[at + i]
                kept += 1
        count_N[n] = kept
        at = last
