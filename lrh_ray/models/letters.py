"""A small Llama over an alphabet of letters: a real checkpoint for languages that are numbers, not words.

A world of hidden concepts emits numbers; written as letters they are documents, and a model of them is a checkpoint
like any other: config.json, safetensors, a fast tokenizer. So the ordinary extractor reads it, at every site, with its
parity certificate.

    make_letter_llama(folder, letters=32, window=65, layers=4, hidden=128, heads=4, seed=0)
    spell(np.array([0, 31, 2]))          # "AFc" or the like: one letter a token

The beginning of every document is `<s>`, as the tokenizer puts it.

What can go wrong: more than 64 letters, or a width that does not divide by the heads, is a `ConfigError`.
"""

import string
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lrh_ray.errors import ConfigError
from lrh_ray.models.quiet import quiet_transformers

ALPHABET = string.ascii_letters + string.digits + "+-"
BOS = "<s>"


def spell(tokens: np.ndarray) -> str:
    """Numbers [T] below the size of the alphabet as one letter each."""
    return "".join(ALPHABET[token] for token in tokens.tolist())


def bos_id(letters: int) -> int:
    """The number of `<s>`, which follows the letters."""
    return letters


def make_letter_llama(
    folder: Path, *, letters: int, window: int, layers: int, hidden: int, heads: int, seed: int
) -> Path:
    """Write a float32 Llama with its usual random initialisation and its tokenizer; same arguments, same bytes.

    `window` counts `<s>`. The global random state of torch is left as it was.

    Raises:
        ConfigError: More letters than there are, or a width that cannot be.
    """
    if not 2 <= letters <= len(ALPHABET):
        raise ConfigError(f"A language of {letters!r} letters: at least 2, at most {len(ALPHABET)}.")
    if hidden % (2 * heads):
        raise ConfigError(f"hidden is {hidden!r}; it must be an even multiple of heads ({heads!r}).")
    shape = LlamaConfig(
        vocab_size=letters + 1,
        hidden_size=hidden,
        intermediate_size=8 * hidden // 3,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=window,
        bos_token_id=bos_id(letters),
        eos_token_id=None,
        pad_token_id=None,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(seed)
        LlamaForCausalLM(shape).save_pretrained(folder)  # type: ignore[no-untyped-call]
        letter_tokenizer(letters, window).save_pretrained(folder)
    return folder


def letter_tokenizer(letters: int, window: int) -> PreTrainedTokenizerFast:
    """One token a letter, `<s>` first."""
    vocabulary = {letter: index for index, letter in enumerate(ALPHABET[:letters])} | {BOS: bos_id(letters)}
    tokenizer = Tokenizer(WordLevel(vocab=vocabulary, unk_token=BOS))
    tokenizer.add_special_tokens([BOS])
    tokenizer.pre_tokenizer = Split(Regex("."), "isolated")
    tokenizer.post_processor = TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, bos_id(letters))])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # its constructor takes anything
        tokenizer_object=tokenizer, bos_token=BOS, model_max_length=window
    )
