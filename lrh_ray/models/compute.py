"""The number format of the forward pass, which need not be that of the rows.

    compute_dtype("bfloat16", config, "cpu")        # "float32" on a CPU without 16-bit products, else "bfloat16"

A CPU without instructions for 16-bit numbers multiplies them one by one: a forward pass in bfloat16 then takes five
times as long as one in float32 (SmolLM2 on two AVX2 cores: 77 against 386 tokens/s). There the weights are read
into float32, which is exact for 16-bit checkpoints, and rows are rounded to their own format as they leave, which is
nearer to the float32 reference than a 16-bit pass would be.

What can go wrong: nodes of different kinds give rows that agree within the tolerance of the certificate and not in
every bit, as CPUs of different kinds do in any case; `compute: dtype` or `compute: float32` makes them alike.
"""

from collections.abc import Callable, Mapping
from functools import cache

import torch

from lrh_ray.models.config import ModelConfig
from lrh_ray.models.facts import DtypeName

ASK: Mapping[DtypeName, Callable[[], bool]] = {
    "bfloat16": torch.ops.mkldnn._is_mkldnn_bf16_supported,
    "float16": torch.ops.mkldnn._is_mkldnn_fp16_supported,
}
"""What torch itself asks before it leaves a product to its fast library."""


@cache
def cpu_multiplies(dtype: DtypeName) -> bool:
    """Whether this CPU has fast matrix products of such numbers."""
    return dtype not in ASK or bool(ASK[dtype]())


def compute_dtype(dtype: DtypeName, config: ModelConfig, device: str) -> DtypeName:
    """The number format in which a model runs whose weights and rows have `dtype`."""
    if config.compute == "float32":
        return "float32"
    slow = config.compute == "auto" and device == "cpu" and not cpu_multiplies(dtype)
    return "float32" if slow else dtype
