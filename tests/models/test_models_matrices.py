"""Embedding, final norm, unembedding and logits of every family, against the whole model."""

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lrh_ray.errors import CheckpointBroken, SiteError
from lrh_ray.models.checkpoints import resolve_checkpoint
from lrh_ray.models.facts import read_architecture
from lrh_ray.models.families import family_of
from lrh_ray.models.matrices import Lens, embedding, final_norm, logits, unembedding
from lrh_ray.models.random_weights import random_model
from lrh_ray.models.tiny import SHAPES, make_tiny


@pytest.fixture(scope="module", params=sorted(SHAPES))
def family(request):
    return request.param


@pytest.fixture(scope="module")
def checkpoint(family, tiny_folder):
    return resolve_checkpoint(str(tiny_folder(family)))


def states_of(model):
    """Inputs of the final norm, its outputs, and logits, each [rows, ...], of the model's own forward."""
    norm = model.base_model.get_submodule(family_of(model.config.model_type).final_norm)
    heard = []
    handle = norm.register_forward_hook(lambda _, inputs, output: heard.append((inputs[0], output)))
    ids = torch.arange(40).reshape(2, 20) * 3
    with torch.inference_mode():
        out = model(input_ids=ids, use_cache=False, output_hidden_states=True)
    handle.remove()
    (before, after), middle = heard[0], out.hidden_states[2]
    return [value.reshape(40, -1) for value in (before, after, middle, out.logits)]


@pytest.fixture(scope="module")
def model(checkpoint):
    return AutoModelForCausalLM.from_pretrained(checkpoint.path, dtype=torch.float32).eval()


def test_logits_are_the_models_own(checkpoint, model):
    before, after, middle, expected = states_of(model)
    for site, rows in (("resid.4", before), ("final_norm", after)):
        found = logits(checkpoint, rows, site)
        assert torch.linalg.norm(found - expected) <= 1e-5 * torch.linalg.norm(expected)
    assert torch.linalg.norm(logits(checkpoint, middle, "resid.4") - expected) > 0.1 * torch.linalg.norm(expected)


def test_earlier_layers_are_read_as_if_they_were_the_last(checkpoint, model):
    middle = states_of(model)[2]
    torch.testing.assert_close(logits(checkpoint, middle, "resid.2"), logits(checkpoint, middle, "resid.4"))


def test_matrices_are_those_of_the_model(checkpoint, model):
    before, after, *_ = states_of(model)
    table = model.base_model.get_submodule(family_of(model.config.model_type).embed).weight
    assert torch.equal(embedding(checkpoint), table)
    head = unembedding(checkpoint)
    assert torch.equal(head.weight, model.get_output_embeddings().weight)
    assert (head.bias is None) == (model.get_output_embeddings().bias is None)
    with torch.inference_mode():
        torch.testing.assert_close(final_norm(checkpoint)(before), after)


def test_random_weights_have_matrices_too(family, tiny_folder):
    checkpoint = resolve_checkpoint(str(tiny_folder(family)), "random(5)")
    architecture = read_architecture(checkpoint)
    drawn = random_model(architecture, seed=5, depth=4, dtype=torch.float32, device="cpu", kind=AutoModelForCausalLM)
    before, after, _, expected = states_of(drawn)
    for site, rows in (("resid.4", before), ("final_norm", after)):
        found = logits(checkpoint, rows, site)
        assert torch.linalg.norm(found - expected) <= 1e-5 * torch.linalg.norm(expected)


def tied(folder, prefix):
    """A checkpoint that ties its ends and keeps one of them, under the base model's names if `prefix` is empty."""
    make_tiny("llama", folder)
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"tie_word_embeddings": false', '"tie_word_embeddings": true'))
    tensors = load_file(folder / "model.safetensors")
    kept = {prefix + name.removeprefix("model."): one for name, one in tensors.items() if "lm_head" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return resolve_checkpoint(str(folder))


@pytest.mark.parametrize("prefix", ["model.", ""])
def test_tied_ends_are_one_matrix(tmp_path, prefix):
    checkpoint = tied(tmp_path, prefix)
    assert torch.equal(unembedding(checkpoint).weight, embedding(checkpoint))
    before, after, _, expected = states_of(AutoModelForCausalLM.from_pretrained(tmp_path).eval())
    for site, rows in (("resid.4", before), ("final_norm", after)):
        torch.testing.assert_close(logits(checkpoint, rows, site), expected, rtol=1e-5, atol=1e-5)


def test_batches_are_bounded_and_any_rows_of_a_store_are_read(tiny_llama):
    rows = np.random.default_rng(0).normal(size=(10, 64)).astype(ml_dtypes.bfloat16)
    lens = Lens(tiny_llama)
    whole = lens.logits(rows, "resid.1")
    parts = list(lens.batches(rows, "resid.1", rows_at_once=4))
    assert [(start, len(part)) for start, part in parts] == [(0, 4), (4, 4), (8, 2)]
    torch.testing.assert_close(torch.cat([part for _, part in parts]), whole)
    torch.testing.assert_close(lens.logits(torch.from_numpy(rows.astype(np.float32)), "resid.1"), whole)
    assert lens.logits(rows[:0], "resid.1").shape == (0, 258)


@pytest.mark.parametrize("site", ["resid.5", "attn_out.1", "embed", "resid.*"])
def test_other_sites_are_refused(tiny_llama, site):
    with pytest.raises(SiteError, match="resid"):
        logits(tiny_llama, np.zeros((1, 64), dtype=np.float32), site)


def test_a_missing_matrix_is_named(tmp_path):
    checkpoint = tied(tmp_path, "other.")
    with pytest.raises(CheckpointBroken, match="embed_tokens"):
        embedding(checkpoint)
