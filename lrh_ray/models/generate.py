"""Generation: a model continues prompts, each on its own whatever else is in the batch.

Text that a model has written itself is where its behaviour shows. The loop here is short on purpose: prompts of like
length share a forward pass, padded on the left, so that all of them end where the next token comes; keys and values
are kept between steps. What is drawn for a prompt depends on the seed, the prompt's name and the step, not on its
neighbours, as a generator shared by the batch would make it.

    with closing(open_generator(checkpoint, ModelConfig(name="smollm2"))) as generator:
        generator.continue_prompts([Prompt(name="a", token_ids=(504, 3575))], SamplingConfig(max_new_tokens=8))

What can go wrong: in bfloat16 two tokens can be equally likely to the last bit, and which wins then depends on the
batch; float32 does not show this. A prompt that leaves no room for a response in the model's window is
`DocumentTooLong`.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from lrh_ray.digests import digest_json
from lrh_ray.errors import ConfigError, DocumentTooLong
from lrh_ray.models.batches import plan_batches
from lrh_ray.models.checkpoints import Checkpoint
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.facts import read_architecture
from lrh_ray.models.hf import chosen_device
from lrh_ray.models.loading import load_causal
from lrh_ray.models.sampling import Prompt, Response, SamplingConfig
from lrh_ray.models.tokens import load_tokenizer


@runtime_checkable
class Continues(Protocol):
    """What continues prompts, whichever engine it is."""

    def continue_prompts(self, prompts: Sequence[Prompt], sampling: SamplingConfig) -> list[Response]: ...

    def close(self) -> None: ...


def open_generator(checkpoint: Checkpoint, config: ModelConfig) -> Continues:
    """Load the whole model with the engine that `config` names.

    Raises:
        EngineFailed: vLLM did not start.
    """
    if config.engine == "vllm":
        from lrh_ray.models.generate_vllm import VllmGenerator

        return VllmGenerator(checkpoint, config)
    return Generator(checkpoint, config)


class Generator:
    """One whole model, with its head, on one device."""

    def __init__(self, checkpoint: Checkpoint, config: ModelConfig) -> None:
        if config.tensor_parallel != 1:
            raise ConfigError(
                f"tensor_parallel is {config.tensor_parallel}; generation with engine: transformers runs on 1 device. "
                "Set it to 1, or use engine: vllm."
            )
        self._device = chosen_device(config)
        self._model = load_causal(checkpoint, config, self._device)
        self._window = int(self._model.config.max_position_embeddings)
        self._ends = end_tokens(checkpoint)
        self._batch_tokens = config.batch_tokens
        self._threads_before = torch.get_num_threads()
        if config.threads is not None:
            torch.set_num_threads(config.threads)

    def continue_prompts(self, prompts: Sequence[Prompt], sampling: SamplingConfig) -> list[Response]:
        """One response per prompt, in their order.

        Raises:
            DocumentTooLong: Prompt and response do not fit the model's window.
        """
        refuse_long_prompts(prompts, sampling, self._window)
        lengths = np.array([len(one.token_ids) + sampling.max_new_tokens for one in prompts], dtype=np.int64)
        responses: dict[int, Response] = {}
        for members in plan_batches(lengths, self._batch_tokens):
            batch = [prompts[int(index)] for index in members]
            with torch.inference_mode():
                responses.update(zip(map(int, members), self._continue(batch, sampling), strict=True))
        return [responses[index] for index in range(len(prompts))]

    def _continue(self, batch: Sequence[Prompt], sampling: SamplingConfig) -> list[Response]:
        written: list[list[int]] = [[] for _ in batch]
        ended = [False] * len(batch)
        draws = [_draws(prompt, sampling) for prompt in batch]
        steps = _Steps(self._model, _left_padded(batch, self._device))
        for _ in range(sampling.max_new_tokens):
            chosen = next_tokens(steps.logits(), [next(one) for one in draws], sampling)
            for row, token in enumerate(chosen.tolist()):
                ended[row] |= token in self._ends
                if not ended[row]:
                    written[row].append(token)
            if all(ended):
                break
            steps.append(chosen)
        return [Response(token_ids=tuple(ids), ended=end) for ids, end in zip(written, ended, strict=True)]

    def close(self) -> None:
        del self._model
        torch.set_num_threads(self._threads_before)
        if self._device == "cuda":
            torch.cuda.empty_cache()


class _Steps:
    """The state between two tokens: what is fed next, what is real, and the keys and values so far."""

    def __init__(self, model: PreTrainedModel, padded: tuple[Tensor, Tensor]) -> None:
        self._model, (self._feed, self._real) = model, padded
        self._positions = (self._real.cumsum(dim=1) - 1).clamp(min=0)
        self._cache: Any = None

    def logits(self) -> Tensor:
        """Logits [sequence, vocabulary] of the token after the last."""
        out = self._model(
            input_ids=self._feed,
            attention_mask=self._real,
            position_ids=self._positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._cache = out.past_key_values
        logits: Tensor = out.logits[:, -1]
        return logits

    def append(self, tokens: Tensor) -> None:
        self._feed = tokens[:, None]
        self._positions = self._positions[:, -1:] + 1
        self._real = torch.cat([self._real, torch.ones_like(self._feed)], dim=1)


def next_tokens(logits: Tensor, draws: Sequence[float], sampling: SamplingConfig) -> Tensor:
    """The next token of each sequence [sequence], from logits [sequence, vocabulary] and numbers drawn from [0, 1).

    The draw is taken by the inverse of the cumulative distribution over tokens in falling order of probability, in
    float64; of the tokens beyond `top_p`, the one that crosses the border still belongs (Holtzman et al. 2020).
    """
    if sampling.temperature == 0:
        return logits.float().argmax(dim=-1)
    probabilities = torch.softmax(logits.double() / sampling.temperature, dim=-1)
    ordered, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
    cumulative = ordered.cumsum(dim=-1)
    kept = (cumulative - ordered < sampling.top_p).sum(dim=-1, keepdim=True)
    total = cumulative.gather(1, kept - 1)
    aims = torch.tensor(draws, dtype=torch.float64, device=logits.device)[:, None] * total
    places = torch.minimum(torch.searchsorted(cumulative, aims, right=True), kept - 1)
    return tokens.gather(1, places)[:, 0]


def _draws(prompt: Prompt, sampling: SamplingConfig) -> Iterator[float]:
    generator = np.random.Generator(np.random.PCG64(int(digest_json([sampling.seed, prompt.name]), 16)))
    while True:
        yield float(generator.random())


def _left_padded(batch: Sequence[Prompt], device: str) -> tuple[Tensor, Tensor]:
    """Token ids and 1 where they are real, each [sequence, position]."""
    width = max(len(prompt.token_ids) for prompt in batch)
    ids, real = np.zeros((len(batch), width), dtype=np.int64), np.zeros((len(batch), width), dtype=np.int64)
    for row, prompt in enumerate(batch):
        ids[row, width - len(prompt.token_ids) :] = prompt.token_ids
        real[row, width - len(prompt.token_ids) :] = 1
    return torch.from_numpy(ids).to(device), torch.from_numpy(real).to(device)


def end_tokens(checkpoint: Checkpoint) -> frozenset[int]:
    """Every token that the model, its generation settings or its tokenizer call the end."""
    settings = checkpoint.path / "generation_config.json"
    told = [read_architecture(checkpoint).eos_token_id, load_tokenizer(checkpoint).eos_token_id]
    told += [json.loads(settings.read_text(encoding="utf-8")).get("eos_token_id")] if settings.is_file() else []
    ends = [one if isinstance(one, list) else [one] for one in told if one is not None]
    return frozenset(int(token) for tokens in ends for token in tokens)


def refuse_long_prompts(prompts: Sequence[Prompt], sampling: SamplingConfig, window: int) -> None:
    """Raise `DocumentTooLong` unless every prompt and its response fit `window` tokens."""
    room = window - sampling.max_new_tokens
    for prompt in prompts:
        if not 1 <= len(prompt.token_ids) <= room:
            raise DocumentTooLong(
                f"The prompt {prompt.name!r} has {len(prompt.token_ids)} tokens; the window of {window} less "
                f"max_new_tokens {sampling.max_new_tokens} leaves room for 1 to {room}. Shorten one of the two."
            )
