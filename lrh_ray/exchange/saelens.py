"""SAELens 6: `cfg.json` and `sae_weights.safetensors`; W_enc [D, M], W_dec [M, D], b_enc [M], b_dec [D].

| architecture | codes | beside the four |
|---|---|---|
| `standard` | relu | |
| `topk` | the k largest; `rescale_acts_by_decoder_norm`: of pre-activations times decoder norms | `k` |
| `jumprelu` | above `threshold` [M] | `threshold` |
| `gated` | magnitudes where gates are open | b_gate, b_mag, r_mag instead of b_enc |
| `transcoder` | relu, of other rows than those that are explained | W_dec [M, W], b_dec [W] of a width `d_out` |
| `jumprelu_transcoder` | above `threshold` [M] | the same |
| `skip_transcoder`, `jumprelu_skip_transcoder` | the same | W_skip [W, D]; x W_skip^T is added |

The encoder of a transcoder reads x; that of the others reads x - b_dec, or x where `apply_b_dec_to_input` is false.
Autoencoders that SAELens trains as BatchTopK or Matryoshka are written by it as `jumprelu` with one threshold; they are
read as `threshold` again. It has no name for what a transcoder writes: here `hook_name_out` stands in the metadata,
which are free.

What can go wrong: a `cfg.json` that does not name a version of 6 or later is rewritten by SAELens when it is loaded,
with other defaults. Such a file is refused here, and what is written names `WRITTEN_AS`. Rows that are normalised one
by one before they are encoded (`layer_norm`, `constant_norm_rescale`) have no counterpart here and are refused; the
other normalisations are folded into weights before SAELens saves them, and do nothing.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as save_arrays

from lrh_ray.analyses.sae.parameters import OFFSET
from lrh_ray.errors import CheckpointBroken, UnsupportedFamily
from lrh_ray.exchange.files import Weights, as_json, read_settings, text, whole_number, write_files
from lrh_ray.exchange.folding import (
    absorb_input_offset,
    from_jump_thresholds,
    jump_thresholds,
    release_offset,
    unit_decoder,
)
from lrh_ray.exchange.hooks import from_lens_name, lens_name
from lrh_ray.exchange.matrix import require_export, require_import
from lrh_ray.exchange.record import Exchanged

WRITTEN_AS = "6.54.12"
FIRST_MAJOR = 6
EACH_ROW = ("layer_norm", "constant_norm_rescale")
TRAINED_AS = {"threshold": "batchtopk"}

GATED = {"gate_bias": "b_gate", "magnitude_bias": "b_mag", "log_gain": "r_mag"}


def read(folder: Path) -> Exchanged:
    """The autoencoder of a folder.

    Raises:
        CheckpointMissing: A file is missing.
        CheckpointBroken: Settings or tensors are not as the architecture wants them, or older than version 6.
        UnsupportedFamily: An architecture or normalisation without a counterpart here.
    """
    settings = read_settings(place := folder / "cfg.json")
    about = _require_version(settings, place)
    architecture = require_import(settings.get("architecture"), "saelens", folder)
    if settings.get("normalize_activations") in EACH_ROW:
        raise UnsupportedFamily(
            f"{place} normalises every row by {settings['normalize_activations']!r} before it is encoded; no kind here "
            f"does. Only weights that read rows as they are can be carried over."
        )
    tensors = _ours(folder, architecture)
    k = whole_number(settings, "k", place) if architecture == "topk" else None
    if settings.get("rescale_acts_by_decoder_norm", False) and architecture == "topk":
        tensors = unit_decoder(tensors)
    if not settings.get("apply_b_dec_to_input", True) and OFFSET not in tensors:
        tensors = release_offset(tensors)
    thresholds = tensors.pop("threshold", np.zeros(1, np.float32))
    named: dict[str, Any] = {
        "site": from_lens_name(about.get("hook_name")),
        "writes": from_lens_name(about.get("hook_name_out")) if OFFSET in tensors else None,
        "model": text(about.get("model_name")),
        "trained_as": text(about.get("training_architecture")) or architecture,
    }
    if architecture in ("topk", "gated"):
        return Exchanged(kind="topk" if architecture == "topk" else "gated", tensors=tensors, k=k, **named)
    kind, tensors, threshold = from_jump_thresholds(tensors, thresholds)
    return Exchanged(kind=kind, tensors=tensors, threshold=threshold, **named)


def _require_version(settings: dict[str, Any], place: Path) -> dict[str, Any]:
    """Metadata, of version 6 or later."""
    about = settings.get("metadata")
    about = about if isinstance(about, dict) else {}
    version = settings.get("sae_lens_version") or about.get("sae_lens_version")
    found = re.match(r"(\d+)", version) if isinstance(version, str) else None
    if found is None or int(found[1]) < FIRST_MAJOR:
        raise CheckpointBroken(
            f"{place} names the version {version!r} of SAELens; {FIRST_MAJOR} or later is wanted, as older settings "
            f"mean other things. Load it with SAE.load_from_disk of SAELens {FIRST_MAJOR}, set "
            f"cfg.metadata.sae_lens_version and save it with save_model."
        )
    return about


def _ours(folder: Path, architecture: str) -> dict[str, np.ndarray]:
    weights = Weights.of_safetensors(folder / "sae_weights.safetensors")
    if "scaling_factor" in weights.found and np.allclose(weights.found["scaling_factor"], 1):
        weights = weights.without(["scaling_factor"])
    width, latents = weights.matrix("W_enc")
    written = weights.matrix("W_dec")[1] if architecture.endswith("transcoder") else width
    biases = tuple(GATED.values()) if architecture == "gated" else ("b_enc",)
    more = ("threshold",) if architecture.startswith("jumprelu") else ()
    shapes: dict[str, tuple[int, ...]] = {"W_enc": (width, latents), "W_dec": (latents, written), "b_dec": (written,)}
    shapes |= {"W_skip": (written, width)} if architecture.endswith("skip_transcoder") else {}
    found = weights.take(shapes | dict.fromkeys((*biases, *more), (latents,)))
    others = {OFFSET: np.zeros(width, np.float32)} if architecture.endswith("transcoder") else {}
    others |= {"skip": found["W_skip"]} if "W_skip" in found else {}
    names = GATED if architecture == "gated" else {"encoder_bias": "b_enc"}
    return {
        "encoder": np.ascontiguousarray(found["W_enc"].T),
        "decoder": found["W_dec"],
        "decoder_bias": found["b_dec"],
        **{name: found[theirs] for name, theirs in names.items()},
        **{name: found[name] for name in more},
        **others,
    }


def write(exchanged: Exchanged, folder: Path) -> None:
    """Write an autoencoder into a new folder.

    Raises:
        ConfigError: SAELens has no such kind.
        PathUnusable: The folder has something already.
    """
    require_export(exchanged.kind, "saelens", transcodes=exchanged.transcodes, side_by_side=exchanged.side_by_side)
    own = absorb_input_offset(exchanged.tensors) if exchanged.transcodes else exchanged.tensors
    tensors = {
        "W_enc": np.ascontiguousarray(own["encoder"].T),
        "W_dec": own["decoder"],
        "b_dec": own["decoder_bias"],
        **({"W_skip": own["skip"]} if "skip" in own else {}),
    }
    settings: dict[str, Any] = {}
    if exchanged.kind == "gated":
        architecture = "gated"
        tensors |= {theirs: own[name] for name, theirs in GATED.items()}
    else:
        architecture = {"topk": "topk", "relu": "standard"}.get(exchanged.kind, "jumprelu")
        tensors["b_enc"] = own["encoder_bias"]
    if architecture == "topk":
        settings = {"k": exchanged.k, "rescale_acts_by_decoder_norm": False}
    if architecture == "jumprelu":
        tensors["threshold"] = jump_thresholds(exchanged)
    if exchanged.transcodes:
        named = ("" if architecture == "standard" else f"{architecture}_") + ("skip_" if "skip" in own else "")
        architecture = f"{named}transcoder"
        settings = {"d_out": own["decoder"].shape[1], "apply_b_dec_to_input": False}
    files = {
        "cfg.json": as_json(_settings(exchanged, architecture) | settings),
        "sae_weights.safetensors": save_arrays(tensors),
    }
    write_files(folder, files)


def _settings(exchanged: Exchanged, architecture: str) -> dict[str, Any]:
    return {
        "architecture": architecture,
        "d_in": exchanged.width,
        "d_sae": exchanged.num_latents,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": WRITTEN_AS,
            "sae_lens_training_version": None,
            "model_name": exchanged.model,
            "hook_name": lens_name(exchanged.site),
            **({"hook_name_out": lens_name(exchanged.writes)} if exchanged.transcodes else {}),
            "training_architecture": exchanged.trained_as or TRAINED_AS.get(exchanged.kind, architecture),
        },
    }
