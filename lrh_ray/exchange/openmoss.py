"""OpenMOSS' llamascopium: `config.json` and `sae_weights.safetensors`; W_E [D, M], b_E [M], W_D [M, D], b_D [D].

The encoder reads x: b_D is never subtracted. `act_fn` is relu, topk or jumprelu, the last with
`activation_function.log_jumprelu_threshold` [M].

`sparsity_include_decoder_norm`, which is on unless it is turned off, applies the activation to pre-activations times
decoder norms n and divides by them again:

| | what is read |
|---|---|
| relu | the same codes: the sign does not change |
| jumprelu | thresholds / n, the same codes |
| topk | ranks are by pre n, so codes here are theirs times n (`code_scale`); reconstructions are the same |

`norm_activation` is `inference`, or `dataset-wise`: rows times sqrt(D) / mean norm are encoded. The factor goes into
the weights, after which rows are read as they are, and codes are those that the library has for normalised rows.
Without `dataset-wise`, the norms that stand in the file say nothing. Norms of each row or batch are refused.

What can go wrong: `sae_weights.pt` and `.dcp` are not read; `from_pretrained(...)` and `save_pretrained(...)` of the
library make safetensors of them. Transcoders, crosscoders, GLU encoders and Llama Scope's older files are refused.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as save_arrays

from lrh_ray.errors import CheckpointBroken, UnsupportedFamily
from lrh_ray.exchange.files import Weights, as_json, read_settings, text, whole_number, write_files
from lrh_ray.exchange.folding import (
    absorb_offset,
    decoder_lengths,
    from_jump_thresholds,
    jump_thresholds,
    release_offset,
    scale_rows,
    unit_decoder,
)
from lrh_ray.exchange.hooks import from_lens_name, lens_name
from lrh_ray.exchange.matrix import require_export, require_import
from lrh_ray.exchange.record import Exchanged

NAMES = {"encoder": "W_E", "encoder_bias": "b_E", "decoder": "W_D", "decoder_bias": "b_D"}
LOG_THRESHOLD = "activation_function.log_jumprelu_threshold"
NORM = "dataset_average_activation_norm."
NORMS = ("inference", "dataset-wise")


def read(folder: Path) -> Exchanged:
    """The autoencoder of a folder.

    Raises:
        CheckpointMissing: A file is missing.
        CheckpointBroken: Settings or tensors are not those of a sparse autoencoder.
        UnsupportedFamily: Another dictionary, activation or normalisation.
    """
    settings = read_settings(place := folder / "config.json")
    _require_autoencoder(settings, place)
    architecture = require_import(settings.get("act_fn", "relu"), "openmoss", folder)
    weights = Weights.of_safetensors(folder / "sae_weights.safetensors")
    scale = _scale_of(settings, weights)
    tensors, logs = _ours(weights, settings, jumps=architecture == "jumprelu")
    lengths = decoder_lengths(tensors["decoder"])
    normed = bool(settings.get("sparsity_include_decoder_norm", True))
    code_scale = None
    if architecture == "topk" and normed and not np.allclose(lengths, 1):
        tensors, code_scale = unit_decoder(tensors), lengths.astype(np.float32)
    tensors = release_offset(scale_rows(tensors, scale) if scale != 1 else tensors)
    named: dict[str, Any] = {
        "trained_as": architecture,
        "site": from_lens_name(settings.get("hook_point_in")),
        "model": text(settings.get("model_name")),
    }
    if architecture == "topk":
        k = whole_number(settings, "top_k", place)
        return Exchanged(kind="topk", tensors=tensors, k=k, code_scale=code_scale, **named)
    thresholds = np.exp(logs.astype(np.float64)) / (lengths if normed else 1.0)
    kind, tensors, threshold = from_jump_thresholds(tensors, thresholds.astype(np.float32))
    return Exchanged(kind=kind, tensors=tensors, threshold=threshold, **named)


def _require_autoencoder(settings: dict[str, Any], place: Path) -> None:
    hooks = [settings.get("hook_point_in"), settings.get("hook_point_out")]
    reasons = {
        f"it is a {settings.get('sae_type')!r}": settings.get("sae_type") != "sae",
        f"it reads {hooks[0]!r} and writes {hooks[1]!r}": hooks[0] != hooks[1],
        "its encoder has a second, gating matrix (use_glu_encoder)": settings.get("use_glu_encoder", False),
        f"it normalises rows {settings.get('norm_activation')!r}": settings.get("norm_activation") not in NORMS,
    }
    if found := [reason for reason, holds in reasons.items() if holds]:
        raise UnsupportedFamily(
            f"{place}: {found[0]}. Read are autoencoders (sae_type 'sae') of one place, with norm_activation "
            f"{' or '.join(NORMS)}."
        )


def _scale_of(settings: dict[str, Any], weights: Weights) -> float:
    """What rows are multiplied by before they are encoded."""
    if settings["norm_activation"] == "inference":
        return 1.0
    norm = weights.scalar(name := f"{NORM}{settings['hook_point_in']}")
    if not (math.isfinite(norm) and norm > 0):
        raise CheckpointBroken(
            f"{name} is {norm!r} in {weights.place}; rows have a norm above 0. Save the model again."
        )
    return math.sqrt(weights.matrix("W_E")[0]) / norm


def _ours(weights: Weights, settings: dict[str, Any], *, jumps: bool) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Tensors under our names, and logarithms of thresholds."""
    weights = weights.without([name for name in weights.found if name.startswith(NORM)])
    width, latents = weights.matrix("W_E")
    shapes: dict[str, tuple[int, ...]] = {"W_E": (width, latents), "b_E": (latents,), "W_D": (latents, width)}
    shapes |= {LOG_THRESHOLD: (latents,)} if jumps else {}
    with_bias = settings.get("use_decoder_bias", True)
    found = weights.take(shapes | ({"b_D": (width,)} if with_bias else {}))
    tensors = {
        "encoder": np.ascontiguousarray(found["W_E"].T),
        "encoder_bias": found["b_E"],
        "decoder": found["W_D"],
        "decoder_bias": found["b_D"] if with_bias else np.zeros(width, np.float32),
    }
    return tensors, found[LOG_THRESHOLD] if jumps else np.full(latents, -np.inf, np.float32)


def write(exchanged: Exchanged, folder: Path) -> None:
    """Write an autoencoder into a new folder.

    Raises:
        ConfigError: llamascopium has no such kind.
        PathUnusable: The folder has something already.
    """
    require_export(exchanged.kind, "openmoss", transcodes=exchanged.transcodes, side_by_side=exchanged.side_by_side)
    own = absorb_offset(exchanged.tensors)
    tensors = {theirs: own[name] for name, theirs in NAMES.items()} | {"W_E": np.ascontiguousarray(own["encoder"].T)}
    if exchanged.kind == "jumprelu":
        tensors[LOG_THRESHOLD] = own["log_threshold"]
    if exchanged.kind == "threshold":
        with np.errstate(divide="ignore"):
            tensors[LOG_THRESHOLD] = np.log(jump_thresholds(exchanged).astype(np.float64)).astype(np.float32)
    write_files(folder, {"config.json": as_json(_settings(exchanged)), "sae_weights.safetensors": save_arrays(tensors)})


def _settings(exchanged: Exchanged) -> dict[str, Any]:
    hook = lens_name(exchanged.site) or "unknown"
    return {
        "sae_type": "sae",
        "d_model": exchanged.width,
        "expansion_factor": _expansion(exchanged.num_latents, exchanged.width),
        "use_decoder_bias": True,
        "act_fn": {"topk": "topk", "relu": "relu"}.get(exchanged.kind, "jumprelu"),
        "norm_activation": "inference",
        "sparsity_include_decoder_norm": False,
        "top_k": exchanged.k or 1,
        "hook_point_in": hook,
        "hook_point_out": hook,
        "use_glu_encoder": False,
    }


def _expansion(latents: int, width: int) -> float:
    """A factor that gives the number of latents again: the library multiplies and cuts off, and 0.1 x 3 is no 0.3."""
    factor = latents / width
    return factor if int(width * factor) == latents else math.nextafter(factor, math.inf)
