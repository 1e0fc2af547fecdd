"""sparsify: `cfg.json` and `sae.safetensors`; encoder.weight [M, D], encoder.bias [M], W_dec [M, D], b_dec [D].

Both matrices have a row for each latent, as here, and nothing is transposed. The encoder reads x - b_dec, and keeps the
k largest positive pre-activations: all that is here `topk`, and nothing else. A folder of a run has one such folder for
each hookpoint, and its name is the only place where the hookpoint stands.

With `transcode` it is a transcoder: the encoder reads x, and what is written is another place of the same width. With
`skip_connection` W_skip [D, D] is there, and x W_skip^T is added.

What can go wrong: a skip connection without `transcode` copies what is to be explained, and is refused; a transcoder
between sites of two widths has no place in these files.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save as save_arrays

from lrh_ray.analyses.sae.parameters import OFFSET
from lrh_ray.errors import ConfigError, UnsupportedFamily
from lrh_ray.exchange.files import Weights, as_json, read_settings, whole_number, write_files
from lrh_ray.exchange.folding import absorb_input_offset
from lrh_ray.exchange.matrix import require_export, require_import
from lrh_ray.exchange.record import Exchanged

NAMES = {
    "encoder": "encoder.weight",
    "encoder_bias": "encoder.bias",
    "decoder": "W_dec",
    "decoder_bias": "b_dec",
    "skip": "W_skip",
}


def read(folder: Path) -> Exchanged:
    """The autoencoder of a folder.

    Raises:
        CheckpointMissing: A file is missing.
        CheckpointBroken: Settings or tensors are not those of a sparse coder.
        UnsupportedFamily: A skip connection of an autoencoder, or another activation.
    """
    settings = read_settings(place := folder / "cfg.json")
    require_import(settings.get("activation", "topk"), "sparsify", folder)
    transcodes, skips = bool(settings.get("transcode", False)), bool(settings.get("skip_connection", False))
    if skips and not transcodes:
        raise UnsupportedFamily(f"{place} sets skip_connection without transcode: it adds what it is to explain.")
    weights = Weights.of_safetensors(folder / "sae.safetensors")
    latents, width = weights.matrix("encoder.weight")
    shapes: dict[str, tuple[int, ...]] = {
        "encoder.weight": (latents, width),
        "encoder.bias": (latents,),
        "W_dec": (latents, width),
        "b_dec": (width,),
    }
    found = weights.take(shapes | ({"W_skip": (width, width)} if skips else {}))
    tensors = {name: found[theirs] for name, theirs in NAMES.items() if theirs in found}
    if transcodes:
        tensors[OFFSET] = np.zeros(width, np.float32)
    return Exchanged(
        kind="topk",
        tensors=tensors,
        k=whole_number(settings, "k", place),
        trained_as="topk",
        site=folder.resolve().name,
    )


def write(exchanged: Exchanged, folder: Path) -> None:
    """Write an autoencoder into a new folder, whose name sparsify takes for the hookpoint.

    Raises:
        ConfigError: Another kind than topk, or a transcoder between two widths.
        PathUnusable: The folder has something already.
    """
    require_export(exchanged.kind, "sparsify", transcodes=exchanged.transcodes, side_by_side=exchanged.side_by_side)
    own = absorb_input_offset(exchanged.tensors) if exchanged.transcodes else exchanged.tensors
    if own["decoder"].shape != own["encoder"].shape:
        raise ConfigError(
            f"This transcoder reads {exchanged.width} features and writes {own['decoder'].shape[1]}; sparsify has one "
            f"width, d_in, and holds only one between sites of the same width."
        )
    settings = {
        "activation": "topk",
        "expansion_factor": max(1, exchanged.num_latents // exchanged.width),
        "normalize_decoder": True,
        "num_latents": exchanged.num_latents,
        "k": exchanged.k,
        "multi_topk": False,
        "skip_connection": "skip" in own,
        "transcode": exchanged.transcodes,
        "d_in": exchanged.width,
    }
    tensors = {theirs: own[name] for name, theirs in NAMES.items() if name in own}
    write_files(folder, {"cfg.json": as_json(settings), "sae.safetensors": save_arrays(tensors)})
