"""Compiled loops of the sparse step after selection: decoding, and the update of a latent's rows.

Of the products of a sparse autoencoder only the encoder's runs over all latents. What follows touches the chosen codes,
and each loop does in one pass over memory what takes several operations elsewhere:

    decode_rows      codes -> error, loss, gradient of the codes     a decoder row serves both while the cache holds it
    update_latents   gradients -> projection, Adam, unit norm        no gradient is ever written to memory

Nested reconstructions (Matryoshka) have an error for each group of latents: that of a latent in group g is the sum of
the errors of all reconstructions that it is part of, the g-th and those after it. One group is the plain autoencoder.
Where latents are nested, or shared out over workers, decoding takes three loops, between which workers add their parts.

Legend: N rows, M latents, D features, K codes a row at most, G groups, E codes in all.
"""

import numpy as np

from lrh_ray.compiled import compiled


@compiled
def add_codes(value_K: np.ndarray, index_K: np.ndarray, size: int, decoder_MD: np.ndarray, out_D: np.ndarray) -> None:
    """Add value @ decoder[index] to `out`, four decoder rows at a time."""
    width, j = len(out_D), 0
    while j + 4 <= size:
        a, b, c, d = value_K[j], value_K[j + 1], value_K[j + 2], value_K[j + 3]
        p, q, r, s = (
            decoder_MD[index_K[j]],
            decoder_MD[index_K[j + 1]],
            decoder_MD[index_K[j + 2]],
            decoder_MD[index_K[j + 3]],
        )
        for i in range(width):
            out_D[i] += a * p[i] + b * q[i] + c * r[i] + d * s[i]
        j += 4
    while j < size:
        a, p = value_K[j], decoder_MD[index_K[j]]
        for i in range(width):
            out_D[i] += a * p[i]
        j += 1


@compiled
def encode_entries(
    centred_ND: np.ndarray,
    encoder_MD: np.ndarray,
    bias_M: np.ndarray,
    index_NK: np.ndarray,
    count_N: np.ndarray,
    value_NK: np.ndarray,
) -> None:
    """Pre-activations of some latents of each row."""
    for n in range(len(index_NK)):
        for j in range(count_N[n]):
            m = index_NK[n, j]
            value_NK[n, j] = dot(centred_ND[n], encoder_MD[m]) + bias_M[m]


@compiled
def decode_rows(
    value_NK: np.ndarray,
    index_NK: np.ndarray,
    count_N: np.ndarray,
    decoder_MD: np.ndarray,
    offset_ND: np.ndarray,
    scale: np.floating,
    error_ND: np.ndarray,
    pull_NK: np.ndarray,
    square_N: np.ndarray,
) -> None:
    """Errors of one reconstruction, and what they pull each code by.

    error = (codes @ decoder + offset) * scale; pull = error . decoder row of each code; square = |error|^2, not scaled.
    """
    for n in range(len(value_NK)):
        error_D, size = error_ND[n], count_N[n]
        error_D[:] = offset_ND[n]
        add_codes(value_NK[n], index_NK[n], size, decoder_MD, error_D)
        square_N[n] = scaled_square(error_D, scale)
        for j in range(size):
            pull_NK[n, j] = dot(error_D, decoder_MD[index_NK[n, j]])


@compiled
def decode_parts(
    value_NK: np.ndarray,
    index_NK: np.ndarray,
    count_N: np.ndarray,
    group_M: np.ndarray,
    decoder_MD: np.ndarray,
    part_GND: np.ndarray,
) -> None:
    """What the codes of each group add to the reconstruction of each row."""
    part_GND[:] = part_GND.dtype.type(0)
    for n in range(len(value_NK)):
        for j in range(count_N[n]):
            m = index_NK[n, j]
            value, row_D, part_D = value_NK[n, j], decoder_MD[m], part_GND[group_M[m], n]
            for i in range(len(row_D)):
                part_D[i] += value * row_D[i]


@compiled
def errors_of_parts(offset_ND: np.ndarray, scale: np.floating, error_GND: np.ndarray, square_GN: np.ndarray) -> None:
    """Turn parts into errors, in place: g becomes the sum of scaled errors of reconstructions g and after it."""
    groups, num_rows, width = error_GND.shape
    for n in range(num_rows):
        for g in range(groups):
            before_D = offset_ND[n] if g == 0 else error_GND[g - 1, n]
            for i in range(width):
                error_GND[g, n, i] += before_D[i]
        for g in range(groups):
            square_GN[g, n] = scaled_square(error_GND[g, n], scale)
        for g in range(groups - 2, -1, -1):
            for i in range(width):
                error_GND[g, n, i] += error_GND[g + 1, n, i]


@compiled
def pull_codes(
    index_NK: np.ndarray,
    count_N: np.ndarray,
    group_M: np.ndarray,
    decoder_MD: np.ndarray,
    error_GND: np.ndarray,
    pull_NK: np.ndarray,
) -> None:
    """What errors pull each code by."""
    for n in range(len(index_NK)):
        for j in range(count_N[n]):
            m = index_NK[n, j]
            pull_NK[n, j] = dot(error_GND[group_M[m], n], decoder_MD[m])


@compiled
def scaled_square(row_D: np.ndarray, scale: np.floating) -> np.floating:
    """|row|^2; the row is then multiplied by `scale`."""
    square = scale - scale
    for i in range(len(row_D)):
        square += row_D[i] * row_D[i]
        row_D[i] *= scale
    return square


@compiled
def dot(left_D: np.ndarray, right_D: np.ndarray) -> np.floating:
    """The product of two rows, in their own precision."""
    total = left_D[0] - left_D[0]
    for i in range(len(left_D)):
        total += left_D[i] * right_D[i]
    return total  # type: ignore[no-any-return]  # of the arrays' dtype


@compiled
def by_latent(index_NK: np.ndarray, count_N: np.ndarray, start_M1: np.ndarray, entry_E: np.ndarray) -> None:
    """Sort codes by latent, then by row: those of latent m are `entry[start[m] : start[m + 1]]`, each n * K + j."""
    width = index_NK.shape[1]
    start_M1[:] = 0
    for n in range(len(index_NK)):
        for j in range(count_N[n]):
            start_M1[index_NK[n, j] + 1] += 1
    for m in range(1, len(start_M1)):
        start_M1[m] += start_M1[m - 1]
    place = start_M1[:-1].copy()
    for n in range(len(index_NK)):
        for j in range(count_N[n]):
            m = index_NK[n, j]
            entry_E[place[m]] = n * width + j
            place[m] += 1


@compiled
def adam(parameter: np.ndarray, gradient: np.ndarray, first: np.ndarray, second: np.ndarray, rates: np.ndarray) -> None:
    """One step of Adam on a row; `rates` are (b1, 1 - b1, b2, 1 - b2, rate / (1 - b1^t), sqrt(1 - b2^t), eps)."""
    b1, c1, b2, c2, rate, root, eps = rates[0], rates[1], rates[2], rates[3], rates[4], rates[5], rates[6]
    for i in range(len(parameter)):
        g = gradient[i]
        m = b1 * first[i] + c1 * g
        v = b2 * second[i] + c2 * g * g
        first[i] = m
        second[i] = v
        parameter[i] -= rate * m / (np.sqrt(v) / root + eps)


@compiled
def add_gradients(
    m: int,
    codes: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    group: int,
    input_ND: np.ndarray,
    decoder_D: np.ndarray,
    encoder_D: np.ndarray,
) -> np.floating:
    """Add value * error and pull * input of the codes of latent m; returns the sum of their pulls."""
    start_M1, entry_E, value_NK, pull_NK, error_GND = codes
    error_ND, width, pulls = error_GND[group], value_NK.shape[1], pull_NK.dtype.type(0)
    for e in range(start_M1[m], start_M1[m + 1]):
        n, j = entry_E[e] // width, entry_E[e] % width
        value, pull, error_D, input_D = value_NK[n, j], pull_NK[n, j], error_ND[n], input_ND[n]
        for i in range(len(decoder_D)):
            decoder_D[i] += value * error_D[i]
        for i in range(len(encoder_D)):
            encoder_D[i] += pull * input_D[i]
        pulls += pull
    return pulls  # type: ignore[no-any-return]  # of the arrays' dtype


@compiled
def update_latents(
    begin: int,
    end: int,
    codes: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    auxiliary: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    group_M: np.ndarray,
    input_ND: np.ndarray,
    encoder: tuple[np.ndarray, np.ndarray, np.ndarray],
    decoder: tuple[np.ndarray, np.ndarray, np.ndarray],
    bias: tuple[np.ndarray, np.ndarray, np.ndarray],
    rates: np.ndarray,
    through_D: np.ndarray,
) -> None:
    """Update latents begin ... end: parameters with their two moments [M, D] (biases [M]).

    Gradients: decoder = sum of value * error, encoder = sum of pull * input, bias = sum of pull, over the codes of a
    latent and over its auxiliary codes; both come as (start, entry, value, pull, errors [G, N, D]). The part of the
    decoder's gradient that is parallel to its row is taken out, and the row is brought back to unit length. `through`
    becomes bias gradient @ encoder, which the offset of the input needs.
    """
    encoder_MD, decoder_MD, bias_M = encoder[0], decoder[0], bias[0]
    encoder_D, decoder_D = np.empty_like(encoder_MD[0]), np.empty_like(decoder_MD[0])
    bias_1, zero = np.empty(1, bias_M.dtype), encoder_MD.dtype.type(0)
    through_D[:] = zero
    for m in range(begin, end):
        encoder_D[:] = zero
        decoder_D[:] = zero
        pulls = add_gradients(m, codes, group_M[m], input_ND, decoder_D, encoder_D)
        pulls += add_gradients(m, auxiliary, 0, input_ND, decoder_D, encoder_D)
        row_D = decoder_MD[m]
        parallel = dot(decoder_D, row_D)
        for i in range(len(row_D)):
            decoder_D[i] -= parallel * row_D[i]
        for i in range(len(encoder_D)):
            through_D[i] += pulls * encoder_MD[m, i]
        adam(row_D, decoder_D, decoder[1][m], decoder[2][m], rates)
        adam(encoder_MD[m], encoder_D, encoder[1][m], encoder[2][m], rates)
        bias_1[0] = pulls
        adam(bias_M[m : m + 1], bias_1, bias[1][m : m + 1], bias[2][m : m + 1], rates)
        norm = np.sqrt(dot(row_D, row_D))
        for i in range(len(row_D)):
            row_D[i] /= norm
