"""Settings of the model a run reads from.

    model: {name: smollm2, dtype: auto, batch_tokens: 2048}

What can go wrong: a `dtype` other than the checkpoint's own rounds every weight before the first row is made; the
parity certificate, which compares with float32 arithmetic on the checkpoint's own weights, then shows the difference.
"""

from typing import Literal

from lrh_ray.config import settings
from lrh_ray.errors import ConfigError


@settings
class ModelConfig:
    """Which model, in which number format, on which device, in batches of which size."""

    name: str
    """A prepared model (`smollm2`), a local checkpoint folder with config.json and safetensors, or a hub id."""

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Number format of weights and rows; `auto` is the checkpoint's own."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the forward pass runs; `auto` is a GPU where the worker has one, else the CPU."""

    batch_tokens: int = 2048
    """Tokens of one forward pass, padding included. A longer document is a batch of its own."""

    threads: int | None = None
    """CPU threads of the forward pass; null leaves torch's own choice."""

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ConfigError("A model needs a name: a prepared model, a checkpoint folder or a hub id.")
        if self.batch_tokens < 1:
            raise ConfigError(f"batch_tokens is {self.batch_tokens!r}; at least 1 token goes into a forward pass.")
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads is {self.threads!r}; at least 1, or null for torch's own choice.")
