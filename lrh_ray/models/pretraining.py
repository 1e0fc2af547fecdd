"""Training of a small language model from its initial checkpoint: a learner of the verb `train`.

The model is the checkpoint in a folder, whatever its family; batches are a pure function of the step, so the place in
the data is the number of the step and nothing else. Every save is a checkpoint like the one it began with (config.json,
safetensors, tokenizer), plus the optimiser's state: any of them is a model that the extractor reads.

    learner = LanguageLearner(folder, batches, Pretraining(steps=500), Share(rank=0, world=1))
    learner.step(0)                     # {"loss": 3.41}, nats per token

What can go wrong: sums over two workers round otherwise than over one, so a run that resumes with another number of
workers agrees to single precision only; with the same number it agrees to the bit.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM

from lrh_ray.collective import Share, sum_over_workers
from lrh_ray.errors import ConfigError
from lrh_ray.models.checkpoints import TOKENIZER_FILES
from lrh_ray.models.quiet import quiet_transformers
from lrh_ray.optimisers import restore_state, state_tensors, warm_cosine
from lrh_ray.vector_math import settle_vector_math

OPTIMISER_FILE = "optimiser.safetensors"
WEIGHTS_FILE = "model.safetensors"

Batches: TypeAlias = Callable[[int], Tensor]
"""Step -> token ids [B, T] of the whole batch, the same on every worker."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pretraining:
    """How a model is trained: AdamW, a linear warm-up, then half a cosine to a tenth of the rate."""

    steps: int
    rate: float = 3e-3
    warmup: int = 50
    weight_decay: float = 0.1
    clip: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.warmup < 0 or self.weight_decay < 0:
            raise ConfigError(
                f"Training of {self.steps!r} steps, {self.warmup!r} of warm-up, weight decay {self.weight_decay!r}: at "
                "least 1 step, the others at least 0."
            )
        if not (self.rate > 0 and self.clip > 0):
            raise ConfigError(f"rate is {self.rate!r} and clip {self.clip!r}; both must be above 0.")

    def rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        return warm_cosine(step, steps=self.steps, warmup=self.warmup, rate=self.rate)


class LanguageLearner:
    """One worker that trains a copy of the model on its share of every batch."""

    def __init__(
        self,
        checkpoint: Path,
        batches: Batches,
        recipe: Pretraining,
        share: Share,
        device: str | torch.device = "cpu",
    ) -> None:
        settle_vector_math()
        self._device = torch.device(device)
        self._checkpoint, self._batches, self._recipe, self._share = checkpoint, batches, recipe, share
        with quiet_transformers():
            self._model: Any = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
        torch.nn.Module.to(self._model, self._device).train()  # the model's own `to` has another signature
        self._parameters = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        self._optimiser = torch.optim.AdamW(
            _groups(self._parameters, recipe.weight_decay), lr=recipe.rate, betas=(0.9, 0.95)
        )

    def step(self, step: int) -> Mapping[str, float]:
        """One step on this worker's rows; `loss` is the mean over the whole batch."""
        tokens = self._batches(step)
        own = tokens[self._share.of(len(tokens))].to(self._device)
        logits = self._model(input_ids=own, use_cache=False).logits[:, :-1]
        total = functional.cross_entropy(logits.flatten(0, 1), own[:, 1:].flatten(), reduction="sum")
        loss = total / tokens[:, 1:].numel()
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        found = loss.detach().reshape(1)
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        sum_over_workers([found, *gradients], self._share)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._recipe.clip)
        for group in self._optimiser.param_groups:
            group["lr"] = self._recipe.rate_at(step)
        self._optimiser.step()
        return {"loss": found.item(), "gradient": norm.item()}

    def save(self, folder: Path) -> None:
        """A checkpoint with its tokenizer, and the optimiser's state."""
        with quiet_transformers():
            self._model.save_pretrained(folder)
        for name in TOKENIZER_FILES:
            if (self._checkpoint / name).is_file():
                shutil.copy(self._checkpoint / name, folder / name)
        save_file(state_tensors(self._optimiser), folder / OPTIMISER_FILE)

    def load(self, folder: Path) -> None:
        """Weights and optimiser as `save` wrote them."""
        self._model.load_state_dict(load_file(folder / WEIGHTS_FILE), strict=True)
        restore_state(self._optimiser, load_file(folder / OPTIMISER_FILE))


def _groups(parameters: Sequence[Tensor], weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay, gains do not."""
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    gains = [parameter for parameter in parameters if parameter.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": gains, "weight_decay": 0.0}]
