"""Loading by transformers, with its report read: a weight it made up is an error.

    model = load_causal(checkpoint, config, device)     # a whole language model, with its head

What can go wrong: a checkpoint that lacks weights of its architecture is `CheckpointBroken`; transformers would fill
them with random numbers and a warning.
"""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from lrh_ray.errors import CheckpointBroken
from lrh_ray.models.checkpoints import Checkpoint
from lrh_ray.models.compute import compute_dtype
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.facts import read_architecture, resolved_dtype
from lrh_ray.models.quiet import quiet_transformers
from lrh_ray.models.random_weights import random_model
from lrh_ray.vector_math import settle_vector_math


def load_causal(checkpoint: Checkpoint, config: ModelConfig, device: str) -> PreTrainedModel:
    """The whole model on one device, with trained weights or those of the checkpoint's seed."""
    settle_vector_math()
    architecture = read_architecture(checkpoint)
    dtype: torch.dtype = getattr(torch, compute_dtype(resolved_dtype(architecture, config), config, device))
    if checkpoint.random_seed is not None:
        depth = int(architecture.num_hidden_layers)
        seed, kind = checkpoint.random_seed, AutoModelForCausalLM
        return random_model(architecture, seed=seed, depth=depth, dtype=dtype, device=device, kind=kind)
    with quiet_transformers():
        loading: Any = AutoModelForCausalLM.from_pretrained(  # a pair, with this request for a report
            checkpoint.path,
            config=architecture,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            device_map=None if device == "cpu" else device,
        )
    model, report = loading
    refuse_incomplete(checkpoint, report)
    loaded: PreTrainedModel = model.eval()
    return loaded


def refuse_incomplete(checkpoint: Checkpoint, report: Mapping[str, Collection[Any]]) -> None:
    """Raise `CheckpointBroken` if transformers' report names weights that the checkpoint did not give."""
    wrong = sorted(map(str, (*report["missing_keys"], *report["mismatched_keys"])))
    if wrong:
        raise CheckpointBroken(
            f"The checkpoint {str(checkpoint.path)!r} lacks {len(wrong)} weights of its architecture, or has them in "
            f"another shape: {', '.join(wrong[:3])} ... Download or convert it again."
        )
