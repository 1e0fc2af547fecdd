"""dictionary_learning: `config.json` and `ae.pt`, a file of tensors by `torch.save`; the class names the layout.

| class | tensors | its encoder reads |
|---|---|---|
| `AutoEncoder` | encoder.weight [M, D], encoder.bias, decoder.weight [D, M], bias [D] | x - bias |
| `AutoEncoderNew` | encoder.weight, encoder.bias, decoder.weight, decoder.bias | x |
| `AutoEncoderTopK`, `BatchTopKSAE` | encoder.weight, encoder.bias, decoder.weight, b_dec, k, threshold | x - b_dec |
| `MatryoshkaBatchTopKSAE` | W_enc [D, M], b_enc, W_dec [M, D], b_dec, k, threshold, group_sizes | x - b_dec |
| `GatedAutoEncoder` | encoder.weight, r_mag, gate_bias, mag_bias, decoder.weight, decoder_bias | x - decoder_bias |
| `JumpReluAutoEncoder` | W_enc, b_enc, W_dec, b_dec, threshold [M] | x: b_dec is never subtracted |

`ae.pt` is read without unpickling it (`torch_file`), and written as the library's own loader wants it. The `k` of
`config.json` must be that of `ae.pt`, or the library refuses to load.

What can go wrong: the library's loader brings decoder rows of `AutoEncoder` to length 1 and multiplies codes by these
lengths; it is read and written so. A `BatchTopKSAE` needs a k, which says nothing about its codes: where it is unknown,
writing is refused rather than made up. A backup of a run in training stands under the same name and is refused.
"""

from pathlib import Path
from typing import Any

import numpy as np

from lrh_ray.errors import CheckpointBroken, ConfigError
from lrh_ray.exchange.files import Weights, as_json, read_settings, text, write_files
from lrh_ray.exchange.folding import (
    absorb_offset,
    decoder_lengths,
    from_jump_thresholds,
    jump_thresholds,
    release_offset,
    unit_decoder,
)
from lrh_ray.exchange.hooks import block_of
from lrh_ray.exchange.kinds import ReadAs
from lrh_ray.exchange.matrix import require_export, require_import
from lrh_ray.exchange.record import Exchanged
from lrh_ray.exchange.torch_file import read_tensors, tensors_file

CLASSES: dict[ReadAs, tuple[str, str]] = {
    "topk": ("AutoEncoderTopK", "TopKTrainer"),
    "threshold": ("BatchTopKSAE", "BatchTopKTrainer"),
    "relu": ("AutoEncoder", "StandardTrainer"),
    "gated": ("GatedAutoEncoder", "GatedSAETrainer"),
    "jumprelu": ("JumpReluAutoEncoder", "JumpReluTrainer"),
}
"""Class and trainer that a kind is written as."""

LINEAR = {"encoder": "encoder.weight", "encoder_bias": "encoder.bias", "decoder": "decoder.weight"}
OPEN = {"encoder": "W_enc", "encoder_bias": "b_enc", "decoder": "W_dec", "decoder_bias": "b_dec"}
GATES = {"gate_bias": "gate_bias", "magnitude_bias": "mag_bias", "log_gain": "r_mag"}
LAYOUTS: dict[str, dict[str, str]] = {
    "AutoEncoder": {**LINEAR, "decoder_bias": "bias"},
    "AutoEncoderNew": {**LINEAR, "decoder_bias": "decoder.bias"},
    "AutoEncoderTopK": {**LINEAR, "decoder_bias": "b_dec"},
    "BatchTopKSAE": {**LINEAR, "decoder_bias": "b_dec"},
    "MatryoshkaBatchTopKSAE": OPEN,
    "JumpReluAutoEncoder": OPEN,
    "GatedAutoEncoder": {
        "encoder": "encoder.weight",
        "decoder": "decoder.weight",
        "decoder_bias": "decoder_bias",
        **GATES,
    },
}
"""Our names, and those of each class."""

TRANSPOSED = ("W_enc", "decoder.weight")
UNSET_THRESHOLD = -1.0


def read(folder: Path) -> Exchanged:
    """The autoencoder of a folder `trainer_i`.

    Raises:
        CheckpointMissing: A file is missing.
        CheckpointBroken: Settings or tensors are not those of the class.
        UnsupportedFamily: An unknown class.
    """
    settings = read_settings(place := folder / "config.json")
    trainer = settings.get("trainer")
    if not isinstance(trainer, dict):
        raise CheckpointBroken(f"{place} has no settings under 'trainer'; dictionary_learning writes them there.")
    name = require_import(trainer.get("dict_class"), "dictionary_learning", folder)
    weights = Weights(place=folder / "ae.pt", found=read_tensors(folder / "ae.pt"))
    k = int(weights.scalar("k")) if "k" in weights.found else None
    if k is not None and trainer.get("k") != k:
        raise CheckpointBroken(f"k is {trainer.get('k')!r} in {place} and {k} in ae.pt; they belong together.")
    tensors, thresholds = _ours(weights, name)
    named: dict[str, Any] = {
        "k": k,
        "trained_as": text(trainer.get("trainer_class")) or name,
        "site": text(trainer.get("submodule_name")),
        "model": text(trainer.get("lm_name")),
    }
    if name in ("AutoEncoderTopK", "GatedAutoEncoder"):
        return Exchanged(kind="topk" if name == "AutoEncoderTopK" else "gated", tensors=tensors, **named)
    if name == "AutoEncoder":
        tensors = _unit(tensors)
    if name in ("AutoEncoderNew", "JumpReluAutoEncoder"):
        tensors = release_offset(tensors)
    kind, tensors, threshold = from_jump_thresholds(tensors, thresholds)
    return Exchanged(kind=kind, tensors=tensors, threshold=threshold, **named)


def _ours(weights: Weights, name: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Tensors under our names, and thresholds above which latents fire."""
    layout, latents = LAYOUTS[name], 0
    if "W_enc" in layout.values():
        width, latents = weights.matrix("W_enc")
    else:
        latents, width = weights.matrix("encoder.weight")
    thresholds = np.zeros(1, np.float32)
    if name in ("BatchTopKSAE", "MatryoshkaBatchTopKSAE"):
        thresholds = np.full(latents, weights.scalar("threshold"), np.float32)
    more = ("threshold",) if name == "JumpReluAutoEncoder" else ()
    beside = () if more else ("k", "threshold", "group_sizes")
    shapes: dict[str, tuple[int, ...]] = {
        theirs: {
            "encoder": (width, latents) if theirs in TRANSPOSED else (latents, width),
            "decoder": (width, latents) if theirs in TRANSPOSED else (latents, width),
            "decoder_bias": (width,),
        }.get(ours, (latents,))
        for ours, theirs in layout.items()
    }
    found = weights.without(beside).take(shapes | dict.fromkeys(more, (latents,)))
    tensors = {
        ours: np.ascontiguousarray(found[theirs].T) if theirs in TRANSPOSED else found[theirs]
        for ours, theirs in layout.items()
    }
    return tensors, found["threshold"] if more else thresholds


def _unit(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the library's loader makes of `AutoEncoder`: nothing, where all decoder rows have about length 1."""
    lengths = decoder_lengths(tensors["decoder"])
    return tensors if np.allclose(lengths, 1) else unit_decoder(tensors)


def write(exchanged: Exchanged, folder: Path) -> None:
    """Write an autoencoder into a new folder.

    Raises:
        ConfigError: The library has no such kind, or a k is unknown.
        PathUnusable: The folder has something already.
    """
    kind = exchanged.kind
    require_export(kind, "dictionary_learning", transcodes=exchanged.transcodes, side_by_side=exchanged.side_by_side)
    if kind == "threshold" and exchanged.k is None:
        raise ConfigError(
            "k is None; a BatchTopKSAE has the codes of a row on average beside its threshold. Set it with "
            "dataclasses.replace(exchanged, k=...), or write another format, as saelens."
        )
    own = dict(exchanged.tensors)
    own = _unit(own) if kind == "relu" else absorb_offset(own) if kind == "jumprelu" else own
    name, trainer = CLASSES[kind]
    tensors = {
        theirs: np.ascontiguousarray(own[ours].T) if theirs in TRANSPOSED else own[ours]
        for ours, theirs in LAYOUTS[name].items()
    }
    if kind in ("topk", "threshold"):
        above = UNSET_THRESHOLD if kind == "topk" else jump_thresholds(exchanged)[0]
        tensors |= {"k": np.array(exchanged.k, np.int32), "threshold": np.array(above, np.float32)}
    if kind == "jumprelu":
        tensors["threshold"] = jump_thresholds(exchanged)
    files = {"config.json": as_json(_settings(exchanged, name, trainer)), "ae.pt": tensors_file(tensors)}
    write_files(folder, files)


def _settings(exchanged: Exchanged, name: str, trainer: str) -> dict[str, Any]:
    own = {
        "trainer_class": trainer,
        "dict_class": name,
        "activation_dim": exchanged.width,
        "dict_size": exchanged.num_latents,
        "layer": block_of(exchanged.site),
        "lm_name": exchanged.model,
        "submodule_name": exchanged.site,
    }
    of_k = {"k": exchanged.k} if exchanged.kind in ("topk", "threshold") else {}
    return {"trainer": own | of_k, "buffer": {}}
