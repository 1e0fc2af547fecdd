"""Rules by which the same autoencoder is written in another convention; each once, for all formats.

| rule | what changes | what stays |
|---|---|---|
| `absorb_offset` | bias <- bias - encoder b: the encoder reads x, not x - b | codes, reconstructions |
| `release_offset` | the way back | codes, reconstructions |
| `absorb_input_offset` | the same of a transcoder, whose skip connection then reads x, too | codes, reconstructions |
| `unit_decoder` | decoder rows to length 1, encoder and biases times these | reconstructions; codes times lengths |
| `scale_rows` | weights that read s x, for rows x as they are | codes; reconstructions of x |
| `jump_thresholds` | a threshold, or none, as one for each latent | codes |
| `from_jump_thresholds` | the way back | codes |

Here b is `decoder_bias`. Sums are float64, rounded to float32 once at the end.

**At a threshold.** Ours fires at pre >= t, all others at pre > t. The float32 number just below t makes the two one and
the same for every float32 pre, with no tolerance.

What can go wrong: after rounding, a pre-activation within some 1e-7 of a threshold, or two that tie at the k-th place,
may fall on the other side; no format that absorbs its offset is free of this.
"""

from collections.abc import Mapping

import numpy as np
import torch

from lrh_ray.analyses.sae.parameters import OFFSET
from lrh_ray.errors import ConfigError
from lrh_ray.exchange.kinds import ReadAs
from lrh_ray.exchange.record import Exchanged

Tensors = Mapping[str, np.ndarray]

GAINS: Mapping[str, str | None] = {
    "encoder_bias": None,
    "gate_bias": None,
    "magnitude_bias": "log_gain",
}
"""Biases of the encoder's product, and the logarithm of what multiplies that product before they are added."""


def absorb_offset(tensors: Tensors) -> dict[str, np.ndarray]:
    """Weights whose encoder reads x, from those whose encoder reads x - decoder_bias."""
    return _with_offset(tensors, -1.0)


def release_offset(tensors: Tensors) -> dict[str, np.ndarray]:
    """Weights whose encoder reads x - decoder_bias, from those whose encoder reads x."""
    return _with_offset(tensors, 1.0)


def absorb_input_offset(tensors: Tensors) -> dict[str, np.ndarray]:
    """Weights of a transcoder that reads x, without an offset, from those of one that reads x - input_offset."""
    moved, offset = _with_offset(tensors, -1.0, of=OFFSET), _wide(tensors[OFFSET])
    if "skip" in tensors:
        moved["decoder_bias"] = _narrow(_wide(tensors["decoder_bias"]) - _wide(tensors["skip"]) @ offset)
    del moved[OFFSET]
    return moved


def _with_offset(tensors: Tensors, sign: float, of: str = "decoder_bias") -> dict[str, np.ndarray]:
    product = sign * (_wide(tensors["encoder"]) @ _wide(tensors[of]))
    moved = {
        bias: _narrow(_wide(tensors[bias]) + product * (1.0 if gain is None else np.exp(_wide(tensors[gain]))))
        for bias, gain in GAINS.items()
        if bias in tensors
    }
    return {**tensors, **moved}


def decoder_lengths(decoder: np.ndarray) -> np.ndarray:
    """Lengths [M] of the rows of a decoder [M, D], float64; 1 where a row is 0, which no scale changes."""
    lengths = np.linalg.norm(_wide(decoder), axis=1)
    return np.asarray(np.where(lengths > 0, lengths, 1.0))


def unit_decoder(tensors: Tensors) -> dict[str, np.ndarray]:
    """Weights with decoder rows of length 1; codes become those before, times the lengths that rows had."""
    lengths = decoder_lengths(tensors["decoder"])
    scaled = {
        "encoder": _narrow(_wide(tensors["encoder"]) * lengths[:, None]),
        "decoder": _narrow(_wide(tensors["decoder"]) / lengths[:, None]),
        **{bias: _narrow(_wide(tensors[bias]) * lengths) for bias in GAINS if bias in tensors},
    }
    if "log_threshold" in tensors:
        scaled["log_threshold"] = _narrow(_wide(tensors["log_threshold"]) + np.log(lengths))
    return {**tensors, **scaled}


def scale_rows(tensors: Tensors, scale: float) -> dict[str, np.ndarray]:
    """Weights for rows as they are, from weights for rows times `scale`; codes stay what they are."""
    factors = {"encoder": scale, "decoder": 1 / scale, "decoder_bias": 1 / scale}
    return {
        name: _narrow(_wide(tensor) * factors[name]) if name in factors else tensor for name, tensor in tensors.items()
    }


def jump_thresholds(exchanged: Exchanged) -> np.ndarray:
    """Thresholds [M] above which latents fire, of the kinds whose codes are pre-activations above something.

    Raises:
        ConfigError: A kind that is read in another way.
    """
    match exchanged.kind:
        case "relu":
            return np.zeros(exchanged.num_latents, np.float32)
        case "threshold":
            below = np.nextafter(np.float32(exchanged.threshold or 0.0), np.float32(-np.inf))
            return np.full(exchanged.num_latents, np.maximum(below, np.float32(0)), np.float32)
        case "jumprelu":
            return np.asarray(torch.tensor(exchanged.tensors["log_threshold"]).exp().numpy())
        case _:
            raise ConfigError(
                f"A {exchanged.kind} autoencoder has no thresholds; relu, threshold and jumprelu have them."
            )


def from_jump_thresholds(
    tensors: Tensors, thresholds: np.ndarray
) -> tuple[ReadAs, dict[str, np.ndarray], float | None]:
    """Kind, tensors and threshold of what fires above `thresholds` [M] and above 0: the plainest kind that says it.

    All at most 0: relu. All the same: threshold. Else jumprelu.
    """
    positive = np.maximum(thresholds, np.float32(0))
    first = positive[0]
    if (positive == first).all():
        if first == 0:
            return "relu", dict(tensors), None
        return "threshold", dict(tensors), float(np.nextafter(first, np.float32(np.inf)))
    with np.errstate(divide="ignore"):  # log 0 is -inf, and its exponential 0 again
        return "jumprelu", {**tensors, "log_threshold": _narrow(np.log(_wide(positive)))}, None


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64)


def _narrow(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, np.float32)
