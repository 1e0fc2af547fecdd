"""Generation: every family writes what a plain forward of the whole text would choose, in any company."""

from collections import Counter
from contextlib import closing

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from lrh_ray.config import parse_config
from lrh_ray.errors import ConfigError, DocumentTooLong
from lrh_ray.models.checkpoints import resolve_checkpoint
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.generate import next_tokens, open_generator
from lrh_ray.models.sampling import Prompt, SamplingConfig
from lrh_ray.models.tiny import EOS_ID, SHAPES
from lrh_ray.models.tokens import load_tokenizer

rng = np.random.default_rng(0)
PROMPTS = [
    Prompt(name=str(index), token_ids=tuple(int(one) for one in rng.integers(0, 256, size=length)))
    for index, length in enumerate((3, 30, 1, 12))
]
SETTINGS = ModelConfig(name="tiny", threads=1)


def written(checkpoint, prompts, sampling, **settings):
    with closing(open_generator(checkpoint, ModelConfig(name="tiny", threads=1, **settings))) as generator:
        return generator.continue_prompts(prompts, sampling)


def plainly(model, prompt, count):
    """Greedy by whole forwards of one text, without a cache."""
    ids = list(prompt.token_ids)
    for _ in range(count):
        with torch.inference_mode():
            ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        if ids[-1] == EOS_ID:
            return tuple(ids[len(prompt.token_ids) : -1])
    return tuple(ids[len(prompt.token_ids) :])


@pytest.mark.parametrize("family", sorted(SHAPES))
def test_greedy_in_a_batch_is_greedy_alone(family, tiny_folder):
    checkpoint = resolve_checkpoint(str(tiny_folder(family)))
    model = AutoModelForCausalLM.from_pretrained(checkpoint.path).eval()
    expected = [plainly(model, prompt, 6) for prompt in PROMPTS]
    assert len(set(expected)) > 1
    found = written(checkpoint, PROMPTS, SamplingConfig(max_new_tokens=6))
    assert [one.token_ids for one in found] == expected


def test_draws_depend_on_seed_and_name_and_not_on_company(tiny_llama):
    hot = SamplingConfig(max_new_tokens=12, temperature=1.5, top_p=0.9)
    together = written(tiny_llama, PROMPTS, hot)
    assert together == written(tiny_llama, PROMPTS[::-1], hot)[::-1]
    assert together == written(tiny_llama, PROMPTS, hot, batch_tokens=1)
    assert together != written(tiny_llama, PROMPTS, SamplingConfig(**{**vars(hot), "seed": 1}))
    same = [Prompt(name=name, token_ids=(1, 2, 3)) for name in "ab"]
    first, second = written(tiny_llama, same, hot)
    assert first != second


def test_tokens_are_drawn_by_their_probability_among_the_likeliest():
    """The oracle is the distribution itself; the draws are evenly spaced, so counts are exact to one."""
    probabilities = torch.tensor([[0.1, 0.4, 0.3, 0.2]])
    draws = [(index + 0.5) / 1000 for index in range(1000)]

    def counts(**settings):
        logits = (probabilities.log()).expand(1000, 4)
        return Counter(next_tokens(logits, draws, SamplingConfig(**settings)).tolist())

    assert all(
        abs(count - expected) <= 1
        for count, expected in zip(
            (counts(temperature=1.0)[token] for token in range(4)), (100, 400, 300, 200), strict=True
        )
    )
    nucleus = counts(temperature=1.0, top_p=0.6)
    assert set(nucleus) == {1, 2}  # 0.4 is not enough, 0.7 is
    assert abs(nucleus[1] - 1000 * 4 / 7) <= 1
    assert counts(temperature=0.0) == {1: 1000}
    assert set(counts(temperature=1.0, top_p=1e-9)) == {1}


def test_a_response_ends_at_the_end_token_and_the_others_go_on(tiny_llama):
    long = written(tiny_llama, PROMPTS, SamplingConfig(max_new_tokens=60, temperature=2.0))
    ended = [one for one in long if one.ended]
    assert len(ended) > 0  # a random model writes the end token about once in 258
    assert all(EOS_ID not in one.token_ids for one in long)
    assert all(len(one.token_ids) == 60 for one in long if not one.ended)


def test_random_weights_write_other_text(tiny_folder):
    name, settings = str(tiny_folder("llama")), SamplingConfig(max_new_tokens=6)
    texts = [written(resolve_checkpoint(name, word), PROMPTS, settings) for word in ("trained", "random(1)")]
    assert texts[0] != texts[1]


def test_what_does_not_fit_is_refused(tiny_llama):
    with pytest.raises(DocumentTooLong, match="'0' has 3 tokens"):
        written(tiny_llama, PROMPTS, SamplingConfig(max_new_tokens=254))
    with pytest.raises(ConfigError, match="runs on 1 device"):
        open_generator(tiny_llama, ModelConfig(name="tiny", tensor_parallel=2))
    for wrong in ("max_new_tokens: 0", "temperature: -1", "top_p: 0", "top_p: 1.1", "seed: -1"):
        with pytest.raises(ConfigError, match=wrong.partition(":")[0]):
            parse_config(wrong, SamplingConfig, source="x.yaml")


@pytest.mark.model
def test_smollm2_knows_the_capital_of_france():
    try:
        checkpoint = resolve_checkpoint("smollm2")
    except FileNotFoundError:
        pytest.skip("the model smollm2 is not prepared: `lrh model prepare smollm2`")
    tokenizer = load_tokenizer(checkpoint)
    texts = ["The capital of France is", "One, two, three, four,"]
    prompts = [Prompt(name=text, token_ids=tuple(tokenizer(text)["input_ids"])) for text in texts]
    found = written(checkpoint, prompts, SamplingConfig(max_new_tokens=2))
    assert [tokenizer.decode(one.token_ids) for one in found] == [" Paris.", " five,"]
