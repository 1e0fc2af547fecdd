"""Dequantisation: a GGUF file becomes an ordinary safetensors checkpoint.

A GGUF file holds blocks of a few bits per weight, and a model loaded from it stays a quantised model: its config says
so, and it refuses to be saved. The weights are therefore unpacked to float32 and moved into a plain Llama of the same
shape, which is saved in bfloat16 with the tokenizer and its chat template.

    dequantize_llama(Path("SmolLM2-135M-Instruct.Q4_1.gguf"), Path("smollm2"))

What can go wrong: a GGUF of another architecture is refused with `CheckpointBroken`. The result is the quantised
model, not the original: each weight is off by up to the step of its 4-bit block.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, LlamaConfig, LlamaForCausalLM

from lrh_ray.errors import CheckpointBroken
from lrh_ray.models.quiet import quiet_transformers


def dequantize_llama(gguf: Path, folder: Path) -> None:
    """Write the Llama-architecture model of one GGUF file to `folder` as bfloat16 safetensors with its tokenizer.

    Memory: about 8 bytes per weight.
    """
    source: dict[str, Any] = {
        "pretrained_model_name_or_path": str(gguf.parent),
        "gguf_file": gguf.name,
        "local_files_only": True,
    }
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(**source)
        packed = AutoModelForCausalLM.from_pretrained(
            **source, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        )
        if not isinstance(packed, LlamaForCausalLM):
            raise CheckpointBroken(f"{gguf.name} holds a {packed.config.model_type!r} model; only llama is prepared.")
        settings = packed.config.to_dict()
        settings.pop("quantization_config", None)
        plain = LlamaForCausalLM(LlamaConfig(**settings))  # type: ignore[no-untyped-call]
        plain.load_state_dict(packed.state_dict())
        plain.bfloat16().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
