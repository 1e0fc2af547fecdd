"""Gemma Scope 2: `params.safetensors` with Gemma Scope's tensors in small letters, and a `config.json` that names model
and place.

Transcoders name a second place, `hf_hook_point_out`; w_dec and b_dec are then of its width W, the encoder reads x, and
with `affine_skip_connection` [D, W] the product x affine_skip_connection is added. They are read, and not written:
SAELens' loader, which `make oracles` holds what is written against, takes that matrix the other way round. What they
read, `model.layers.N.pre_feedforward_layernorm.output`, is no site here, and keeps its name.

What can go wrong: a skip connection from a place to itself copies what is to be explained, and is refused; so are
crosscoders, and transcoders across layers. Without a `config.json` the folder is read, but model and place are unknown.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save as save_arrays

from lrh_ray.analyses.sae.parameters import OFFSET
from lrh_ray.errors import UnsupportedFamily
from lrh_ray.exchange.files import Weights, as_json, read_settings, text, write_files
from lrh_ray.exchange.folding import from_jump_thresholds
from lrh_ray.exchange.gemma_scope import SKIP, from_weights, take_tensors, to_tensors
from lrh_ray.exchange.hooks import from_layer_name, layer_name
from lrh_ray.exchange.matrix import require_export, require_import
from lrh_ray.exchange.record import Exchanged

TYPES = ("sae", "transcoder")


def read(folder: Path) -> Exchanged:
    """The autoencoder of a folder.

    Raises:
        CheckpointMissing: No `params.safetensors`.
        CheckpointBroken: Other tensors, or other shapes.
        UnsupportedFamily: Another architecture, several places, or a skip connection from a place to itself.
    """
    place = folder / "config.json"
    settings = read_settings(place) if place.exists() else {}
    require_import(settings.get("architecture", "jump_relu"), "gemma_scope_2", folder)
    if settings.get("type", TYPES[0]) not in TYPES:
        raise UnsupportedFamily(f"{place} is of type {settings['type']!r}. Read: {', '.join(TYPES)}.")
    weights = Weights.of_safetensors(folder / "params.safetensors")
    read_at, written_at = settings.get("hf_hook_point_in"), settings.get("hf_hook_point_out")
    skips = SKIP in weights.found or bool(settings.get("affine_connection", False))
    site, model = from_layer_name(read_at), text(settings.get("model_name"))
    if skips and read_at is not None and written_at == read_at:
        raise UnsupportedFamily(f"{place} has an {SKIP} from {read_at!r} to itself: it adds what it is to explain.")
    if not skips and written_at in (None, read_at):
        return from_weights(weights, site=site, model=model)
    return _transcoder(weights, skips=skips, site=site, writes=from_layer_name(written_at), model=model)


def _transcoder(weights: Weights, *, skips: bool, site: str | None, writes: str | None, model: str | None) -> Exchanged:
    width, written = weights.matrix("w_enc")[0], weights.matrix("w_dec")[1]
    others = {"b_dec": (written,), **({SKIP: (width, written)} if skips else {})}
    tensors, thresholds = take_tensors(weights, others, written)
    kind, tensors, threshold = from_jump_thresholds({**tensors, OFFSET: np.zeros(width, np.float32)}, thresholds)
    return Exchanged(
        kind=kind,
        tensors=tensors,
        threshold=threshold,
        trained_as="jump_relu",
        site=site,
        writes=writes,
        model=model,
    )


def write(exchanged: Exchanged, folder: Path) -> None:
    """Write an autoencoder into a new folder.

    Raises:
        ConfigError: A kind without thresholds.
        PathUnusable: The folder has something already.
    """
    require_export(
        exchanged.kind, "gemma_scope_2", transcodes=exchanged.transcodes, side_by_side=exchanged.side_by_side
    )
    settings = {
        "architecture": "jump_relu",
        "model_name": exchanged.model,
        "hf_hook_point_in": layer_name(exchanged.site),
        "width": exchanged.num_latents,
    }
    files = {"config.json": as_json(settings), "params.safetensors": save_arrays(to_tensors(exchanged))}
    write_files(folder, files)
