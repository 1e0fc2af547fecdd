"""The real model, prepared once into the user's cache folder."""

from contextlib import closing
from pydoc_data.topics import topics

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from lrh_ray.errors import DependencyMissing
from lrh_ray.models.backend import open_backend
from lrh_ray.models.checkpoints import Checkpoint, prepare, resolve_checkpoint
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.facts import model_facts
from lrh_ray.models.parity import compare_rows, parity_sample, reference_rows
from lrh_ray.models.tokens import load_tokenizer, tokenize
from lrh_ray.records import Document

pytestmark = pytest.mark.model


@pytest.fixture(scope="session")
def smollm2() -> Checkpoint:
    try:
        prepare("smollm2")
    except DependencyMissing as error:
        pytest.skip(str(error))
    return resolve_checkpoint("smollm2")


@pytest.fixture(scope="session")
def tokenizer(smollm2):
    return load_tokenizer(smollm2)


def test_the_capital_of_france_is_paris(smollm2, tokenizer):
    model = AutoModelForCausalLM.from_pretrained(smollm2.path, dtype=torch.float32)
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    written = model.generate(**prompt, max_new_tokens=3, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(written).startswith(" Paris")


def test_facts_of_the_real_model(smollm2):
    facts = model_facts(smollm2, ModelConfig(name="smollm2"), ["resid.*", "final_norm"])
    assert (facts.family, facts.num_layers, facts.hidden_size, facts.window) == ("llama", 30, 576, 8192)
    assert (facts.dtype, len(facts.sites)) == ("bfloat16", 32)


@pytest.mark.parametrize("text", ["The number 1234, (naïve) ☃ 🙂!\n\n  indented\ttext", "def f(x):\n    return x\n"])
def test_ranges_of_a_real_tokenizer_cover_the_text(tokenizer, text):
    documents = [Document(id="doc", text=text)]
    batch = tokenize(documents, tokenizer, render="raw", bos="never", window=8192, too_long="error")
    covered = np.zeros(len(text), dtype=bool)
    for token, start, end in zip(batch.token_ids, batch.char_start, batch.char_end, strict=True):
        covered[start:end] = True
        decoded = tokenizer.decode([token])
        assert decoded == text[start:end] or "�" in decoded  # a part of a character has no text of its own
    assert covered.all()


def test_chat_leads_back_to_the_text(tokenizer):
    documents = [Document(id="doc", text=" What is 2 + 2?\n")]
    batch = tokenize(documents, tokenizer, render="chat", bos="tokenizer", window=8192, too_long="error")
    own = batch.char_end > batch.char_start
    assert tokenizer.decode(batch.token_ids[own]).strip() == "What is 2 + 2?"
    assert 0 < own.sum() < batch.num_tokens


def test_rows_of_the_real_model_pass_parity(smollm2, tokenizer, collected):
    longest = sorted(topics, key=lambda name: (-len(topics[name]), name))[:40]
    documents = [Document(id=name, text=topics[name]) for name in longest]
    facts = model_facts(smollm2, ModelConfig(name="smollm2"), ["resid.0", "resid.15", "resid.30", "final_norm"])
    whole = tokenize(documents, tokenizer, render="raw", bos="tokenizer", window=facts.window, too_long="split")
    tokens = parity_sample(whole, max_tokens=128).tokens
    with closing(open_backend(smollm2, ModelConfig(name="smollm2"), facts.sites)) as backend:
        backend.forward(tokens, collected)
    certificate = compare_rows(collected.rows(), reference_rows(smollm2, tokens, facts.sites), dtype=facts.dtype)
    certificate.require()
