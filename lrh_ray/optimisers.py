"""What training loops share about optimisers: the schedule of the rate, and their state as plain tensors.

    rate = warm_cosine(step, steps=1000, warmup=50, rate=1e-3)
    save_file(state_tensors(optimiser), "optimiser.safetensors"); restore_state(optimiser, load_file(...))

What can go wrong: a state is known by the number of each parameter, so it belongs to a model built in the same way.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

FLOOR = 0.1


def warm_cosine(step: int, *, steps: int, warmup: int, rate: float) -> float:
    """Learning rate of a step, counted from 0: a linear warm-up, then half a cosine down to a tenth of the rate."""
    if step < warmup:
        return rate * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return rate * (1 + FLOOR + (1 - FLOOR) * math.cos(math.pi * min(1.0, done))) / 2


def state_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state under names `NUMBER.moment`, on the CPU; an optimiser that has made no step has none."""
    state = optimiser.state_dict()["state"]
    return {f"{number}.{name}": value.cpu() for number, own in state.items() for name, value in own.items()}


def restore_state(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Back from `state_tensors`; settings of the groups stay as they are."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value.clone()
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
