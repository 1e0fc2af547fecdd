"""Which words are one token, in the form that a vocabulary uses for words inside a text.

Most vocabularies hold a word with the space before it (" king", "▁king") apart from the same letters at the start of a
text, and the form inside a text is the one that the unembedding predicts. How the space is written is the tokenizer's
affair, so the word is tokenised after another one:

    word_tokens(tokenizer, ["king", "kingfisher"])      # [3880, None]

What can go wrong: a vocabulary without such forms (bytes, or a language written without spaces) has no single tokens
for most words; they are None, and a test of single tokens then has nothing to work on.
"""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerFast

BEFORE = "x"
"""A word that is one token or a few in every vocabulary, and that no tokenizer joins with what follows a space."""


def word_tokens(tokenizer: PreTrainedTokenizerFast, words: Sequence[str]) -> list[int | None]:
    """The token of each word after a space; None for words of several tokens, and for unknown ones."""
    (before,) = _ids(tokenizer, [BEFORE])
    found = _ids(tokenizer, [f"{BEFORE} {word}" for word in words]) if words else []
    single = [ids[-1] if len(ids) == len(before) + 1 and ids[:-1] == before else None for ids in found]
    return [None if token == tokenizer.unk_token_id else token for token in single]


def _ids(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)[
        "input_ids"
    ]
    return ids
