"""Generation by a vLLM engine, for models that are spread over GPUs and for many prompts.

    with closing(VllmGenerator(checkpoint, ModelConfig(name="smollm2", engine="vllm"))) as generator:
        generator.continue_prompts([Prompt(name="a", token_ids=(504, 3575))], SamplingConfig(max_new_tokens=8))

The engine is started with the arguments of extraction, less what captures rows. Each prompt draws from a seed of its
own, made of the run's seed and the prompt's name, as with transformers; but the two engines draw in their own ways, so
sampled text differs between them. Greedy text is equal up to rounding.

What can go wrong: an engine that does not start or dies is `EngineFailed`; without vLLM it is `DependencyMissing`.
"""

import warnings
from collections.abc import Sequence
from typing import Any

from lrh_ray.digests import digest_json
from lrh_ray.errors import ConfigError, EngineFailed
from lrh_ray.models.checkpoints import Checkpoint
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.facts import read_architecture, resolved_dtype
from lrh_ray.models.generate import end_tokens, refuse_long_prompts
from lrh_ray.models.sampling import Prompt, Response, SamplingConfig
from lrh_ray.models.vllm.engine import end_engine, vllm_device, vllm_version
from lrh_ray.models.vllm.options import EngineTask, engine_arguments, engine_environment, environment_set
from lrh_ray.models.vllm.ring import RingShape
from lrh_ray.models.vllm.share import ShareOptions

CAPTURING = ("worker_extension_cls", "speculative_config", "kv_transfer_config")
"""Arguments of an engine that only a capture of rows needs."""


class VllmGenerator:
    """One engine, over as many devices as `tensor_parallel` says."""

    def __init__(self, checkpoint: Checkpoint, config: ModelConfig) -> None:
        vllm_version()
        architecture, device = read_architecture(checkpoint), vllm_device()
        if config.device not in ("auto", device):
            raise ConfigError(f"device is {config.device!r}, but the installed vLLM runs on {device!r} only.")
        self._window = min(int(architecture.max_position_embeddings), config.vllm.longest or 1 << 30)
        self._ends = end_tokens(checkpoint)
        task = _task(checkpoint, resolved_dtype(architecture, config), architecture.model_type, self._window)
        self._llm = _start(task, config, device)

    def continue_prompts(self, prompts: Sequence[Prompt], sampling: SamplingConfig) -> list[Response]:
        """One response per prompt, in their order.

        Raises:
            DocumentTooLong: Prompt and response do not fit the model's window, or `vllm.longest`.
            EngineFailed: The engine died.
        """
        from vllm import SamplingParams

        refuse_long_prompts(prompts, sampling, self._window)
        asked = [
            SamplingParams(
                max_tokens=sampling.max_new_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                seed=int(digest_json([sampling.seed, prompt.name])[:12], 16),
                stop_token_ids=sorted(self._ends),
                detokenize=False,
            )
            for prompt in prompts
        ]
        try:
            outputs = self._llm.generate(
                [{"prompt_token_ids": list(prompt.token_ids)} for prompt in prompts], asked, use_tqdm=False
            )
        except Exception as error:
            raise EngineFailed(f"The vLLM engine failed: {type(error).__name__}: {error}") from error
        return [self._response(list(output.outputs[0].token_ids)) for output in outputs]

    def _response(self, token_ids: list[int]) -> Response:
        ended = bool(token_ids) and token_ids[-1] in self._ends
        return Response(token_ids=tuple(token_ids[:-1] if ended else token_ids), ended=ended)

    def close(self) -> None:
        """End the engine's processes."""
        end_engine(self._llm)
        del self._llm


def _task(checkpoint: Checkpoint, dtype: str, family: str, longest: int) -> EngineTask:
    """An engine task that captures nothing."""
    nothing = RingShape(sites=0, width=0, itemsize=1, window_rows=0, slots=0)
    return EngineTask(
        path=str(checkpoint.path),
        dtype=dtype,
        family=family,
        sites=("resid.0",),
        route="connector",
        longest=longest,
        share=ShareOptions(folder="", width=0, ranks=1, dtype=dtype, shape=nothing),
        connector=":",
    )


def _start(task: EngineTask, config: ModelConfig, device: str) -> Any:
    arguments = engine_arguments(task, config, device=device)
    for name in CAPTURING:
        arguments.pop(name, None)
    try:
        with environment_set(engine_environment(task, config, device=device)), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import vllm

            return vllm.LLM(**arguments)
    except Exception as error:
        raise EngineFailed(
            f"vLLM did not start for {task.path!r}: {type(error).__name__}: {error} Its own log, with "
            "VLLM_LOGGING_LEVEL=INFO in the environment, says more."
        ) from error
