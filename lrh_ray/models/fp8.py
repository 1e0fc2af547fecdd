"""DeepSeek's fp8 weights: square blocks of float8_e4m3fn, one float32 scale for each, stored as `<name>_scale_inv`.

The weights they stand for are exact in float32, so a plain reference forward of such a checkpoint exists.

    from_blocks(values, scale, block=128)

What can go wrong: another quantiser's files look alike only in part; `block_of` gives None for all but this one.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

SCALE = "_scale_inv"
LARGEST = 448.0  # of float8_e4m3fn


def block_of(quantization: Any) -> int | None:
    """Side of a block, from a config's `quantization_config`; None if it is not block-wise fp8 with square blocks."""
    facts = quantization if isinstance(quantization, dict) else getattr(quantization, "__dict__", {})
    sides = facts.get("weight_block_size") or (0, 1)
    if str(facts.get("quant_method")).rpartition(".")[2].lower() != "fp8" or sides[0] != sides[1]:
        return None
    return int(sides[0])


def take_fp8(architecture: Any) -> int | None:
    """Side of the blocks if an architecture declares them; it is then declared plain."""
    block = block_of(getattr(architecture, "quantization_config", None))
    if block is not None:
        del architecture.quantization_config
    return block


def plain_weights(folder: Path, block: int) -> dict[str, Tensor]:
    """Every tensor of a checkpoint as plain numbers, in memory."""
    stored: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        stored |= load_file(path)
    return {
        name: from_blocks(tensor, stored[name + SCALE], block) if tensor.dtype == torch.float8_e4m3fn else tensor
        for name, tensor in stored.items()
        if not name.endswith(SCALE)
    }


def from_blocks(values: Tensor, scale: Tensor, block: int) -> Tensor:
    """The float32 weights [outputs, inputs] that fp8 values and the scales of their blocks stand for."""
    rows, columns = values.shape
    spread = scale.float().repeat_interleave(block, dim=0)[:rows].repeat_interleave(block, dim=1)[:, :columns]
    return values.float() * spread


def to_blocks(weight: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """fp8 values of [outputs, inputs], and the scale of each block."""
    rows, columns = weight.shape
    padded = torch.zeros(-(-rows // block) * block, -(-columns // block) * block)
    padded[:rows, :columns] = weight
    tiles = padded.reshape(-1, block, padded.shape[1] // block, block)
    scale = tiles.abs().amax(dim=(1, 3)).clamp(min=1e-12) / LARGEST
    values = (tiles / scale[:, None, :, None]).reshape(padded.shape)[:rows, :columns]
    return values.contiguous().to(torch.float8_e4m3fn), scale
