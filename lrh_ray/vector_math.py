"""Elementary functions of torch on a CPU, made safe for many threads.

torch computes `cos`, `exp`, `sqrt` and their like with Intel's vector library (MKL VML), which chooses the kernel of
each function when it is first called. In the version that torch's wheels hold (2024.2) the choice is not safe: when
the first call runs on several threads at once, one of them may compute its share with a kernel of 11 bits
(pytorch/pytorch#188792). No exception, and the next call is right. Where it hits the rotary table of a worker's first
batch, rows are wrong by about 1e-4 of their norm: too little for any look at the numbers, too much for a float32
certificate.

    settle_vector_math()        # once in every process, before anything is computed

One call of one element on one thread settles the choice. It costs a millisecond; later calls cost nothing.
"""

import functools

import torch

FUNCTIONS = (
    *("acos", "asin", "atan", "cos", "sin", "tan", "tanh"),
    *("exp", "log", "log10", "log2", "sqrt", "trunc"),
    *("erf", "erfc", "erfinv"),
)
"""What torch hands to VML (its ATen/cpu/vml.h)."""


@functools.cache
def settle_vector_math() -> None:
    """Call each function that torch hands to VML once, on one element, in both floating formats that VML knows."""
    for dtype in (torch.float32, torch.float64):
        half = torch.full((1,), 0.5, dtype=dtype)
        for name in FUNCTIONS:
            getattr(torch, name)(half)
