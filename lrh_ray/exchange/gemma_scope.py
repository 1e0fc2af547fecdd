"""Gemma Scope: `params.npz`, with `W_enc` [D, M], `W_dec` [M, D], `b_enc`, `b_dec`, `threshold` [M]; all JumpReLU.

The encoder reads x: b_dec is never subtracted. Older files have small letters (`w_enc`). What model and place a file is
of stands in the name of its folder alone.

What can go wrong: a folder of the `embedding` release has weights for rows times sqrt(D), which only its name says; its
weights are read as they stand. Thresholds that are all 0 make relu.
"""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lrh_ray.exchange.files import Weights, write_files
from lrh_ray.exchange.folding import absorb_offset, from_jump_thresholds, jump_thresholds, release_offset
from lrh_ray.exchange.matrix import require_export
from lrh_ray.exchange.record import Exchanged

SKIP = "affine_skip_connection"
NAMES = {"encoder": "w_enc", "encoder_bias": "b_enc", "decoder": "w_dec", "decoder_bias": "b_dec"}


def read(folder: Path) -> Exchanged:
    """The autoencoder of a folder.

    Raises:
        CheckpointMissing: No `params.npz`.
        CheckpointBroken: Other tensors, or other shapes.
    """
    weights = Weights.of_npz(folder / "params.npz")
    small = {("w_" + name[2:] if name.startswith("W_") else name): array for name, array in weights.found.items()}
    return from_weights(Weights(place=weights.place, found=small))


def from_weights(weights: Weights, site: str | None = None, model: str | None = None) -> Exchanged:
    """An autoencoder out of tensors with Gemma Scope's names in small letters."""
    width = weights.matrix("w_enc")[0]
    tensors, thresholds = take_tensors(weights, {"b_dec": (width,)}, width)
    kind, tensors, threshold = from_jump_thresholds(release_offset(tensors), thresholds)
    return Exchanged(kind=kind, tensors=tensors, threshold=threshold, trained_as="jump_relu", site=site, model=model)


def take_tensors(
    weights: Weights, others: Mapping[str, tuple[int, ...]], written: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Tensors under our names, and thresholds; `others` are shapes of what is not of latents, `written` features."""
    width, latents = weights.matrix("w_enc")
    of_latents = {"w_enc": (width, latents), "w_dec": (latents, written), "b_enc": (latents,), "threshold": (latents,)}
    found = weights.take({**of_latents, **others})
    tensors = {name: found[theirs] for name, theirs in NAMES.items()}
    tensors["encoder"] = np.ascontiguousarray(found["w_enc"].T)
    if SKIP in found:
        tensors["skip"] = np.ascontiguousarray(found[SKIP].T)
    return tensors, found["threshold"]


def to_tensors(exchanged: Exchanged) -> dict[str, np.ndarray]:
    """Tensors under Gemma Scope's names in small letters."""
    own = absorb_offset(exchanged.tensors)
    tensors = {theirs: own[name] for name, theirs in NAMES.items()}
    return tensors | {"w_enc": np.ascontiguousarray(own["encoder"].T), "threshold": jump_thresholds(exchanged)}


def write(exchanged: Exchanged, folder: Path) -> None:
    """Write an autoencoder into a new folder.

    Raises:
        ConfigError: A kind without thresholds.
        PathUnusable: The folder has something already.
    """
    require_export(exchanged.kind, "gemma_scope", transcodes=exchanged.transcodes, side_by_side=exchanged.side_by_side)
    large = {("W_" + n[2:] if n.startswith("w_") else n): tensor for n, tensor in to_tensors(exchanged).items()}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **large)
    write_files(folder, {"params.npz": buffer.getvalue()})
