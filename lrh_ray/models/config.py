"""Settings of the model a run reads from.

    model: {name: smollm2, dtype: auto, batch_tokens: 2048}

What can go wrong: a `dtype` below the checkpoint's own rounds every weight before the first row is made; the
parity certificate, which compares with float32 arithmetic on the checkpoint's own weights, then shows the difference.
"""

from dataclasses import field
from typing import Literal

from lrh_ray.config import settings
from lrh_ray.errors import ConfigError
from lrh_ray.models.weights import TRAINED, seed_of


@settings
class VllmConfig:
    """How a vLLM engine is sized; read with `engine: vllm` only."""

    longest: int | None = None
    """Tokens of the longest document; null is the model's whole window, for which the caches must have room."""

    sequences: int = 256
    """Documents that the engine works on at a time."""

    cache_gib: float | None = None
    """Memory for the engine's caches on each rank, in GiB; null is what `memory_fraction` leaves, on a CPU 2 GiB."""

    memory_fraction: float = 0.85
    """Part of a GPU's memory for weights and caches; what is left serves the gathering of rows."""

    ring_mib: int = 64
    """Shared memory between the engine and the worker, in MiB, over all ranks; page-locked on a GPU machine."""

    def __post_init__(self) -> None:
        for key, value in (("longest", self.longest), ("sequences", self.sequences), ("ring_mib", self.ring_mib)):
            if value is not None and value < 1:
                raise ConfigError(f"vllm.{key} is {value!r}; it must be at least 1.")
        if self.cache_gib is not None and self.cache_gib <= 0:
            raise ConfigError(f"vllm.cache_gib is {self.cache_gib!r}; it must be above 0, or null.")
        if not 0 < self.memory_fraction <= 1:
            raise ConfigError(f"vllm.memory_fraction is {self.memory_fraction!r}; it must be in (0, 1].")


@settings
class ModelConfig:
    """Which model, in which number format, on which device, in batches of which size."""

    name: str
    """A prepared model (`smollm2`), a local checkpoint folder with config.json and safetensors, or a hub id."""

    weights: str = TRAINED
    """`trained`: those of the checkpoint; `random(SEED)`: its architecture, initialised anew, as a control."""

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Number format of weights and rows; `auto` is the checkpoint's own."""

    compute: Literal["auto", "dtype", "float32"] = "auto"
    """Number format of the forward pass in the transformers engine; rows are rounded to `dtype` as they leave. `auto`
    is `dtype`, and float32 on CPUs that have no fast products of 16-bit numbers."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the forward pass runs; `auto` is a GPU where the worker has one, else the CPU."""

    batch_tokens: int = 2048
    """Tokens of one forward pass, padding included. A longer document is a batch of its own."""

    threads: int | None = None
    """CPU threads of the forward pass; null leaves torch's own choice."""

    engine: Literal["transformers", "vllm"] = "transformers"
    """What runs the forward pass. `vllm` packs documents and spreads over GPUs, but always runs all blocks."""

    tensor_parallel: int = 1
    """Devices that share every block of one replica; the model's heads divide by it."""

    expert_parallel: bool = False
    """Of transformers with `tensor_parallel` above 1: experts are dealt out whole instead of being cut."""

    vllm: VllmConfig = field(default_factory=VllmConfig)
    """Sizes of the vLLM engine."""

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ConfigError("A model needs a name: a prepared model, a checkpoint folder or a hub id.")
        if self.batch_tokens < 1:
            raise ConfigError(f"batch_tokens is {self.batch_tokens!r}; at least 1 token goes into a forward pass.")
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads is {self.threads!r}; at least 1, or null for torch's own choice.")
        if self.compute == "float32" and self.engine == "vllm":
            raise ConfigError("compute: float32 is for engine: transformers; with vLLM set dtype: float32.")
        if self.tensor_parallel < 1:
            raise ConfigError(f"tensor_parallel is {self.tensor_parallel!r}; a replica has at least 1 device.")
        if seed_of(self.weights) is not None and (self.engine, self.tensor_parallel) != ("transformers", 1):
            raise ConfigError(
                f"weights {self.weights!r} are drawn by engine: transformers with tensor_parallel: 1 only (given: "
                f"{self.engine}, {self.tensor_parallel}); set these two."
            )
