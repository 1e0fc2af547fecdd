"""Options: how a vLLM engine is started for a model, its sites and a machine.

One function makes the arguments, another the environment, so that a test can read both. What is fixed, and why:
documents do not share prefixes and captured rows of shared prefixes would be missing (prefix caching is off); one token
is generated, because an engine cannot generate none, and it is not turned into text; text in, rows out, so no
tokenizer is loaded and no statistics are sent anywhere.

What can go wrong: vLLM cannot stop below the last block: a site at mid-depth costs the whole forward, and all weights
must fit. The document's last token needs a place for the generated one, so the engine's window is a little longer
than the model's; that place is never computed.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lrh_ray.models.config import ModelConfig
from lrh_ray.models.vllm.routes import Route, auxiliary_layers
from lrh_ray.models.vllm.share import ShareOptions

GIB = 1 << 30
CPU_CACHE_GIB = 2.0
"""Caches of an engine on a CPU, where no device says how much memory is its own."""

SPARE_TOKENS = 2
"""Places in the engine's window for the generated token and the one after it."""

OVERRIDES: Mapping[str, Mapping[str, str]] = {
    "deepseek_v3": {"topk_method": "noaux_tc", "scoring_func": "sigmoid"},
}
"""Facts of an architecture that transformers takes for granted and leaves out of config.json, while vLLM reads them."""

LATENT_ATTENTION = ("deepseek_v2", "deepseek_v3")


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineTask:
    """What an engine is started for."""

    path: str
    dtype: str
    family: str
    sites: tuple[str, ...]
    route: Route
    longest: int
    share: ShareOptions
    connector: str


def engine_arguments(task: EngineTask, config: ModelConfig, *, device: str) -> dict[str, Any]:
    """Keyword arguments of `vllm.LLM`."""
    cache_gib = config.vllm.cache_gib or (CPU_CACHE_GIB if device == "cpu" else None)
    arguments: dict[str, Any] = {
        "model": task.path,
        "dtype": task.dtype,
        "load_format": "safetensors",
        "trust_remote_code": False,
        "skip_tokenizer_init": True,
        "tensor_parallel_size": config.tensor_parallel,
        "distributed_executor_backend": "mp" if config.tensor_parallel > 1 else None,
        "enable_prefix_caching": False,
        "enable_chunked_prefill": True,
        "max_model_len": task.longest + SPARE_TOKENS,
        "max_num_batched_tokens": tokens_per_step(task, config, device=device),
        "max_num_seqs": config.vllm.sequences,
        "enforce_eager": device == "cpu" or task.route == "hooks",
        "kv_cache_memory_bytes": None if cache_gib is None else int(cache_gib * GIB),
        "worker_extension_cls": "lrh_ray.models.vllm.extension.RowsExtension",
        "disable_log_stats": True,
        "hf_overrides": dict(OVERRIDES.get(task.family, {})),
        "seed": 0,
    }
    if device != "cpu":
        arguments["gpu_memory_utilization"] = config.vllm.memory_fraction
    return arguments | (_connector(task) if task.route == "connector" else {})


def tokens_per_step(task: EngineTask, config: ModelConfig, *, device: str) -> int:
    """Tokens of one step: `batch_tokens`, but at least one for each document that the engine works on.

    On a CPU vLLM does not run latent attention in pieces, and a document that does not fit a step would wait for ever.
    """
    whole = device == "cpu" and task.family in LATENT_ATTENTION
    return max(config.batch_tokens, config.vllm.sequences, task.longest + SPARE_TOKENS if whole else 1)


def _connector(task: EngineTask) -> dict[str, Any]:
    module, _, name = task.connector.partition(":")
    layers = {"eagle_aux_hidden_state_layer_ids": list(auxiliary_layers(task.sites))}
    return {
        "speculative_config": {
            "method": "extract_hidden_states",
            "num_speculative_tokens": 1,
            "draft_model_config": {"hf_config": layers},
        },
        "kv_transfer_config": {
            "kv_connector": name,
            "kv_connector_module_path": module,
            "kv_role": "kv_producer",
            "kv_connector_extra_config": {"rows": task.share.plain(), "num_writer_threads": 1},
        },
    }


def engine_environment(task: EngineTask, config: ModelConfig, *, device: str) -> dict[str, str]:
    """Environment variables of the engine's processes."""
    environment = {
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "ERROR"),
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if task.route == "hooks":
        environment["VLLM_USE_V2_MODEL_RUNNER"] = "0"  # hooks read the batch of the first runner
    if device == "cpu":
        cores = sorted(os.sched_getaffinity(0))
        environment["VLLM_CPU_OMP_THREADS_BIND"] = cores_per_rank(cores, config.threads, config.tensor_parallel)
    return environment


def cores_per_rank(cores: Sequence[int], threads: int | None, ranks: int) -> str:
    """Which cores run which rank, as vLLM wants it: `0,1|2,3` gives rank 0 two cores and rank 1 two others.

    `threads` are the rank's; None shares all cores out. Ranks share cores where there are too few.
    """
    each = min(threads or max(1, len(cores) // ranks), len(cores))
    chosen = [[cores[(rank * each + i) % len(cores)] for i in range(each)] for rank in range(ranks)]
    return "|".join(",".join(map(str, rank)) for rank in chosen)


@contextmanager
def environment_set(values: dict[str, str]) -> Iterator[None]:
    """`values` in the process environment inside the block; spawned processes inherit them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
