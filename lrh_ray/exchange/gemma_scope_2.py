"""Gemma Scope 2: `params.safetensors` with Gemma Scope's tensors in small letters, and a `config.json` that names model
and place.

What can go wrong: transcoders, some with `affine_skip_connection`, read one place and write another, and are refused.
Without a `config.json` the folder is read, but model and place are unknown.
"""

from pathlib import Path

from safetensors.numpy import save as save_arrays

from lrh_ray.errors import UnsupportedFamily
from lrh_ray.exchange.files import Weights, as_json, read_settings, text, write_files
from lrh_ray.exchange.gemma_scope import from_weights, to_tensors
from lrh_ray.exchange.hooks import from_layer_name, layer_name
from lrh_ray.exchange.matrix import require_export, require_import
from lrh_ray.exchange.record import Exchanged


def read(folder: Path) -> Exchanged:
    """The autoencoder of a folder.

    Raises:
        CheckpointMissing: No `params.safetensors`.
        CheckpointBroken: Other tensors, or other shapes.
        UnsupportedFamily: Another architecture, or a transcoder.
    """
    place = folder / "config.json"
    settings = read_settings(place) if place.exists() else {}
    require_import(settings.get("architecture", "jump_relu"), "gemma_scope_2", folder)
    read_at, written_at = settings.get("hf_hook_point_in"), settings.get("hf_hook_point_out")
    if written_at is not None and written_at != read_at:
        raise UnsupportedFamily(f"{place} reads {read_at!r} and writes {written_at!r}: a transcoder, which no kind is.")
    weights = Weights.of_safetensors(folder / "params.safetensors")
    if "affine_skip_connection" in weights.found:
        raise UnsupportedFamily(f"{weights.place} has an affine_skip_connection: a transcoder, which no kind is.")
    return from_weights(weights, site=from_layer_name(read_at), model=text(settings.get("model_name")))


def write(exchanged: Exchanged, folder: Path) -> None:
    """Write an autoencoder into a new folder.

    Raises:
        ConfigError: A kind without thresholds.
        PathUnusable: The folder has something already.
    """
    require_export(exchanged.kind, "gemma_scope_2", transcodes=exchanged.transcodes)
    settings = {
        "architecture": "jump_relu",
        "model_name": exchanged.model,
        "hf_hook_point_in": layer_name(exchanged.site),
        "width": exchanged.num_latents,
    }
    files = {"config.json": as_json(settings), "params.safetensors": save_arrays(to_tensors(exchanged))}
    write_files(folder, files)
