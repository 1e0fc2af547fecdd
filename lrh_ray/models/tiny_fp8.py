"""A tiny checkpoint in the file layout of DeepSeek-V3: several shards, an index, weights in blocks of fp8.

    make_tiny("deepseek_v3", plain)
    quantise(plain, folder, dequantised)     # the same weights twice: as fp8 blocks, and as the numbers they stand for

Every matrix of attention, MLP and experts becomes `float8_e4m3fn` with one float32 scale for each square block, stored
beside it as `<name>_scale_inv`; embeddings, norms and routers stay as they are.
"""

import json
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from lrh_ray.models.fp8 import SCALE, from_blocks, to_blocks

BLOCK = 16  # half of every matrix is then a whole number of blocks, as in the real model
SHARDS = 3
PLAIN = ("embed_tokens", "lm_head", "mlp.gate.", "norm")


def quantise(plain: Path, folder: Path, dequantised: Path) -> None:
    """Write the checkpoint `plain` as fp8 shards to `folder`, and what those mean, in float32, to `dequantised`."""
    weights = load_file(plain / "model.safetensors")
    stored: dict[str, Tensor] = {}
    meant: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if weight.ndim != 2 or any(part in name for part in PLAIN):
            stored[name] = meant[name] = weight
            continue
        stored[name], scale = to_blocks(weight, BLOCK)
        stored[f"{name}{SCALE}"] = scale
        meant[name] = from_blocks(stored[name], scale, BLOCK)
    for target in (folder, dequantised):
        target.mkdir(parents=True)
        for path in plain.iterdir():
            if path.suffix != ".safetensors":
                shutil.copy(path, target)
    _save_shards(stored, folder)
    save_file(meant, dequantised / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": [BLOCK, BLOCK],
    }
    (folder / "config.json").write_text(json.dumps(config))


def _save_shards(tensors: dict[str, Tensor], folder: Path) -> None:
    names = sorted(tensors)
    places: dict[str, str] = {}
    for shard in range(SHARDS):
        file = f"model-{shard + 1:05d}-of-{SHARDS:05d}.safetensors"
        part = {name: tensors[name] for name in names[shard::SHARDS]}
        save_file(part, folder / file, {"format": "pt"})
        places |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
