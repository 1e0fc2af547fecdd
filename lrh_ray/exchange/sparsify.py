"""sparsify: `cfg.json` and `sae.safetensors`; encoder.weight [M, D], encoder.bias [M], W_dec [M, D], b_dec [D].

Both matrices have a row for each latent, as here, and nothing is transposed. The encoder reads x - b_dec, and keeps the
k largest positive pre-activations: all that is here `topk`, and nothing else. A folder of a run has one such folder for
each hookpoint, and its name is the only place where the hookpoint stands.

What can go wrong: transcoders (`transcode`) and skip connections (`skip_connection`) read one place and write another,
and are refused.
"""

from pathlib import Path

from safetensors.numpy import save as save_arrays

from lrh_ray.errors import UnsupportedFamily
from lrh_ray.exchange.files import Weights, as_json, read_settings, whole_number, write_files
from lrh_ray.exchange.matrix import require_export, require_import
from lrh_ray.exchange.record import Exchanged

NAMES = {"encoder": "encoder.weight", "encoder_bias": "encoder.bias", "decoder": "W_dec", "decoder_bias": "b_dec"}


def read(folder: Path) -> Exchanged:
    """The autoencoder of a folder.

    Raises:
        CheckpointMissing: A file is missing.
        CheckpointBroken: Settings or tensors are not those of a sparse coder.
        UnsupportedFamily: A transcoder, a skip connection or another activation.
    """
    settings = read_settings(place := folder / "cfg.json")
    require_import(settings.get("activation", "topk"), "sparsify", folder)
    for setting in ("transcode", "skip_connection"):
        if settings.get(setting, False):
            raise UnsupportedFamily(
                f"{place} sets {setting}: it reads one place and writes another, which no kind does."
            )
    weights = Weights.of_safetensors(folder / "sae.safetensors")
    latents, width = weights.matrix("encoder.weight")
    found = weights.take(
        {"encoder.weight": (latents, width), "encoder.bias": (latents,), "W_dec": (latents, width), "b_dec": (width,)}
    )
    return Exchanged(
        kind="topk",
        tensors={name: found[theirs] for name, theirs in NAMES.items()},
        k=whole_number(settings, "k", place),
        trained_as="topk",
        site=folder.resolve().name,
    )


def write(exchanged: Exchanged, folder: Path) -> None:
    """Write an autoencoder into a new folder, whose name sparsify takes for the hookpoint.

    Raises:
        ConfigError: Another kind than topk.
        PathUnusable: The folder has something already.
    """
    require_export(exchanged.kind, "sparsify")
    settings = {
        "activation": "topk",
        "expansion_factor": max(1, exchanged.num_latents // exchanged.width),
        "normalize_decoder": True,
        "num_latents": exchanged.num_latents,
        "k": exchanged.k,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": exchanged.width,
    }
    tensors = {theirs: exchanged.tensors[name] for name, theirs in NAMES.items()}
    write_files(folder, {"cfg.json": as_json(settings), "sae.safetensors": save_arrays(tensors)})
