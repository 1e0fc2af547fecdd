"""Tiny models: seeded random checkpoints, real in everything but size and meaning.

Tests and examples need a model that loads in a blink and goes through the very code a large one goes through: a
config.json, safetensors, a fast tokenizer with a chat template. One shape per family, small enough for any machine
and irregular enough to catch mistakes: grouped queries, a dense first block before the experts, biases that are not
zero. The tokenizer has one token per byte, so token boundaries are known without it.

    make_tiny("deepseek_v3", folder, seed=1)

What can go wrong: an unknown family is `UnknownName`. The weights are drawn wide (standard deviation 0.1), so that
each block moves the stream by more than any tolerance; an off-by-one layer is then visible.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel as ByteSplit
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForCausalLM,
    DeepseekV2Config,
    DeepseekV3Config,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTJConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MixtralConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from lrh_ray.errors import UnknownName
from lrh_ray.models.quiet import quiet_transformers

BOS, EOS = "<s>", "</s>"
BOS_ID, EOS_ID = 256, 257
NUM_HEADS = 4
WEIGHT_SCALE = 0.1

CHAT_TEMPLATE = (
    "{% for message in messages %}<s>[{{ message['role'] }}]\n{{ message['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>[assistant]\n{% endif %}"
)


def make_tiny(
    family: str, folder: Path, *, seed: int = 0, layers: int = 4, hidden: int = 64, window: int = 256
) -> Path:
    """Write a random float32 checkpoint of `family` with a byte tokenizer to `folder`; same arguments, same bytes.

    `hidden` is a multiple of 16. The global random state is left as it was.
    """
    if family not in SHAPES:
        raise UnknownName(f"No tiny model of family {family!r}; families: {', '.join(sorted(SHAPES))}.")
    architecture = SHAPES[family](_shared(layers, hidden, window))
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(architecture, dtype=torch.float32)  # type: ignore[no-untyped-call]
        _roughen(model)
        model.save_pretrained(folder)
        byte_tokenizer(window).save_pretrained(folder)
    return folder


def byte_tokenizer(window: int = 256) -> PreTrainedTokenizerFast:
    """A fast tokenizer of 256 bytes and two special tokens, which puts `<s>` first and knows a chat template."""
    alphabet = sorted(ByteSplit.alphabet())
    tokenizer = Tokenizer(BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.add_special_tokens([BOS, EOS])
    tokenizer.pre_tokenizer = ByteSplit(add_prefix_space=False)
    tokenizer.decoder = ByteDecoder()
    tokenizer.post_processor = TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, BOS_ID)])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # its constructor takes anything
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        chat_template=CHAT_TEMPLATE,
        model_max_length=window,
    )


def _shared(layers: int, hidden: int, window: int) -> dict[str, Any]:
    return {
        "vocab_size": EOS_ID + 1,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": NUM_HEADS,
        "max_position_embeddings": window,
        "initializer_range": WEIGHT_SCALE,
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
        "pad_token_id": None,
        "tie_word_embeddings": False,
    }


def _llama(shared: Mapping[str, Any]) -> PreTrainedConfig:
    return LlamaConfig(**shared, num_key_value_heads=NUM_HEADS // 2)


def _qwen2(shared: Mapping[str, Any]) -> PreTrainedConfig:
    return Qwen2Config(**shared, num_key_value_heads=NUM_HEADS // 2)


def _gpt_neox(shared: Mapping[str, Any]) -> PreTrainedConfig:
    return GPTNeoXConfig(**shared)


def _qwen3(shared: Mapping[str, Any]) -> PreTrainedConfig:
    return Qwen3Config(**shared, num_key_value_heads=NUM_HEADS // 2, head_dim=_wide_head(shared))


def _gpt2(shared: Mapping[str, Any]) -> PreTrainedConfig:
    return GPT2Config(**_without(shared, "intermediate_size"), n_inner=shared["intermediate_size"])


def _gptj(shared: Mapping[str, Any]) -> PreTrainedConfig:
    return GPTJConfig(**_without(shared, "intermediate_size"), n_inner=shared["intermediate_size"], rotary_dim=8)


def _gemma(shared: Mapping[str, Any]) -> PreTrainedConfig:
    return GemmaConfig(**_tied(shared), num_key_value_heads=1, head_dim=_wide_head(shared))


def _gemma2(shared: Mapping[str, Any]) -> PreTrainedConfig:
    return Gemma2Config(
        **_tied(shared),
        num_key_value_heads=NUM_HEADS // 2,
        head_dim=_wide_head(shared),
        sliding_window=16,
        attn_logit_softcapping=1.0,  # of a real one 50; low enough that attention without the cap is another model
    )


def _gemma3_text(shared: Mapping[str, Any]) -> PreTrainedConfig:
    return Gemma3TextConfig(
        **_tied(shared), num_key_value_heads=NUM_HEADS // 2, head_dim=_wide_head(shared), sliding_window=16
    )


def _mixtral(shared: Mapping[str, Any]) -> PreTrainedConfig:
    return MixtralConfig(
        **shared, num_key_value_heads=NUM_HEADS // 2, num_local_experts=4, num_experts_per_tok=2, sliding_window=None
    )


def _deepseek_v2(shared: Mapping[str, Any]) -> PreTrainedConfig:
    return DeepseekV2Config(**shared, **_LATENT_ATTENTION, **_EXPERTS, topk_method="group_limited_greedy")


def _deepseek_v3(shared: Mapping[str, Any]) -> PreTrainedConfig:
    return DeepseekV3Config(**shared, **_LATENT_ATTENTION, **_EXPERTS)


_LATENT_ATTENTION: dict[str, Any] = {
    "num_key_value_heads": NUM_HEADS,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
}
_EXPERTS: dict[str, Any] = {
    "first_k_dense_replace": 1,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "moe_intermediate_size": 32,
    "routed_scaling_factor": 0.1,  # in bfloat16 random routers flip near ties; a flip must not drown the stream
}


def _wide_head(shared: Mapping[str, Any]) -> int:
    """Heads that together are wider than the stream, as these families have them."""
    return int(shared["hidden_size"]) // 2


def _tied(shared: Mapping[str, Any]) -> Mapping[str, Any]:
    """With the token table as head, which every Gemma has and vLLM takes for granted."""
    return {**shared, "tie_word_embeddings": True}


def _without(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != name}


SHAPES: Mapping[str, Callable[[Mapping[str, Any]], PreTrainedConfig]] = {
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gpt_neox": _gpt_neox,
    "gpt2": _gpt2,
    "gptj": _gptj,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3_text,
    "mixtral": _mixtral,
    "deepseek_v2": _deepseek_v2,
    "deepseek_v3": _deepseek_v3,
}


def _roughen(model: torch.nn.Module) -> None:
    """Make everything that initialises to a constant random: biases, norm gains, the router's correction."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.ndim == 1 and "inv_freq" not in name:
            tensor.data.add_(WEIGHT_SCALE * torch.randn_like(tensor))
