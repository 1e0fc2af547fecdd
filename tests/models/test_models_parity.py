import json
import pickle
from contextlib import closing

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lrh_ray.errors import CheckpointBroken, ParityError
from lrh_ray.models.backend import open_backend
from lrh_ray.models.checkpoints import Checkpoint
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.parity import TOLERANCES, compare_rows, parity_sample, reference_rows, relative_errors
from lrh_ray.models.sites import resolve_sites
from lrh_ray.models.streaming import StreamedModel
from lrh_ray.models.tiny import byte_tokenizer, make_tiny
from lrh_ray.models.tokens import tokenize
from lrh_ray.records import Document

SITES = resolve_sites(["resid.*", "final_norm"], num_layers=4, hidden_size=64)
DOCUMENTS = [
    Document(id=str(index), text=text)
    for index, text in enumerate(["A first document.", "x", "Another, which is longer than the first one was. " * 4])
]
TOKENS = tokenize(DOCUMENTS, byte_tokenizer(), render="raw", bos="tokenizer", window=256, too_long="error")


def extracted(checkpoint, sink, dtype):
    with closing(open_backend(checkpoint, ModelConfig(name="tiny", dtype=dtype), SITES)) as backend:
        backend.forward(TOKENS, sink)
    return sink.rows()


def test_the_reference_is_the_whole_float32_forward(tiny):
    rows = reference_rows(tiny, TOKENS, SITES)
    model = AutoModelForCausalLM.from_pretrained(tiny.path, dtype=torch.float32).eval()
    for start, stop in zip(TOKENS.starts, TOKENS.starts[1:], strict=False):
        ids = torch.from_numpy(TOKENS.token_ids[start:stop]).long()[None]
        with torch.inference_mode():
            states = model(ids, output_hidden_states=True).hidden_states
        for site, state in zip([*(f"resid.{k}" for k in range(4)), "final_norm"], states, strict=True):
            assert relative_errors(rows[site][start:stop], state[0].numpy()).max() < 1e-5


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_backend_passes_in_every_dtype(tiny, dtype, collected):
    certificate = compare_rows(extracted(tiny, collected, dtype), reference_rows(tiny, TOKENS, SITES), dtype=dtype)
    assert certificate.passed, certificate
    assert [site.site for site in certificate.sites] == [site.name for site in SITES]
    worst = max(site.p50 for site in certificate.sites)
    finest = {"float32": 1e-8, "float16": 1e-4, "bfloat16": 1e-3}[dtype]
    assert worst > finest  # rounding is there, so the comparison saw the rows of this dtype
    certificate.require()


def test_rows_of_the_wrong_layer_or_scale_fail(tiny, collected):
    rows, reference = extracted(tiny, collected, "float32"), reference_rows(tiny, TOKENS, SITES)
    wrong_layer = {**rows, "resid.2": rows["resid.3"]}
    wrong_scale = {**rows, "resid.2": rows["resid.2"] * np.float32(1.1)}
    wrong_row = {**rows, "resid.2": np.roll(rows["resid.2"], 1, axis=0)}
    for wrong in (wrong_layer, wrong_scale, wrong_row):
        certificate = compare_rows(wrong, reference, dtype="bfloat16")
        assert [site.site for site in certificate.sites if not site.passed] == ["resid.2"]
        with pytest.raises(ParityError, match=r"worst 'resid\.2'"):
            certificate.require()


def test_scaled_tail_fails_by_its_percentile(tiny_llama, collected):
    rows, reference = extracted(tiny_llama, collected, "float32"), reference_rows(tiny_llama, TOKENS, SITES)
    tail = rows["resid.1"].copy()
    tail[: len(tail) // 20] *= 1.5
    certificate = compare_rows({**rows, "resid.1": tail}, reference, dtype="float32")
    failed = next(site for site in certificate.sites if not site.passed)
    assert failed.p50 < TOLERANCES["float32"].p50 < TOLERANCES["float32"].p99 < failed.p99


def test_what_is_not_finite_fails_and_still_is_json(tiny_llama, collected):
    rows, reference = extracted(tiny_llama, collected, "float32"), reference_rows(tiny_llama, TOKENS, SITES)
    rows["resid.1"] = np.full_like(rows["resid.1"], np.nan)
    certificate = compare_rows(rows, reference, dtype="float32")
    plain = json.loads(json.dumps(certificate.as_plain(), allow_nan=False))
    assert (plain["passed"], plain["sites"][1]["maximum"], plain["sites"][1]["passed"]) == (False, None, False)
    assert plain["sites"][0]["tolerance"] == {"p50": 1e-5, "p99": 1e-4}


@given(st.integers(1, 30), st.integers(1, 8), st.floats(1e-6, 0.5), st.integers(0, 2**32 - 1))
def test_the_measure_is_relative_and_blind_to_units(num_rows, width, error, seed):
    rng = np.random.default_rng(seed)
    reference = rng.standard_normal((num_rows, width)).astype(np.float32) + np.float32(0.1)
    units = (10.0 ** rng.integers(-3, 4, (num_rows, 1))).astype(np.float32)
    rows = (reference.astype(np.float64) * (1 + error)).astype(np.float32)
    assert relative_errors(rows, reference) == pytest.approx(error, rel=1e-6, abs=1e-6)
    assert relative_errors(rows * units, reference * units) == pytest.approx(error, rel=1e-6, abs=1e-6)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 9), st.integers(1, 40))
def test_a_sample_is_made_of_beginnings_and_holds_the_longest(lengths, sequences, max_tokens):
    texts = [Document(id=str(index), text="x" * length) for index, length in enumerate(lengths)]
    tokens = tokenize(texts, byte_tokenizer(), render="raw", bos="never", window=256, too_long="error")
    sample = parity_sample(tokens, sequences=sequences, max_tokens=max_tokens)
    assert len(set(sample.sequences)) == len(sample.sequences) == min(sequences, len(lengths))
    assert max(lengths[index] for index in sample.sequences) == max(lengths)
    for place, index in enumerate(sample.sequences):
        start, stop = sample.tokens.starts[place : place + 2]
        assert stop - start == min(lengths[index], max_tokens)
        assert sample.tokens.document_ids[place] == str(index)
        assert sample.tokens.positions[start:stop].tolist() == list(range(stop - start))


def test_rows_of_a_beginning_do_not_depend_on_what_follows(tiny):
    whole, cut = reference_rows(tiny, TOKENS, SITES), parity_sample(TOKENS, max_tokens=5)
    rows = reference_rows(tiny, cut.tokens, SITES)
    for place, index in enumerate(cut.sequences):
        start, stop = cut.tokens.starts[place : place + 2]
        same = whole["final_norm"][TOKENS.starts[index] :][: stop - start]
        assert relative_errors(rows["final_norm"][start:stop], same).max() < 1e-5


def test_zero_rows_agree_only_with_zero_rows():
    zero, one = np.zeros((1, 2), np.float32), np.ones((1, 2), np.float32)
    assert relative_errors(zero, zero).tolist() == [0.0]
    assert relative_errors(one, zero).tolist() == [np.inf]


@pytest.mark.parametrize("change", ["site", "shape", "dtype"])
def test_what_cannot_be_compared_is_an_error(change):
    one = {"resid.0": np.ones((2, 3), np.float32)}
    other = {"site": {"resid.1": one["resid.0"]}, "shape": {"resid.0": one["resid.0"][:1]}, "dtype": one}[change]
    with pytest.raises(ParityError) as caught:
        compare_rows(other, one, dtype="int8" if change == "dtype" else "float32")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_one_layer_is_in_memory_at_a_time(tiny):
    model = StreamedModel(tiny)

    def layers_in_memory():
        named = model._model.named_parameters()
        return {name.split(".")[1] for name, tensor in named if name.startswith("layers") and not tensor.is_meta}

    for index in range(model.num_layers):
        assert layers_in_memory() == set()
        with model.layer(index):
            assert layers_in_memory() == {str(index)}


def test_weights_in_several_files_are_found(tiny, tmp_path):
    whole = load_file(tiny.path / "model.safetensors")
    names = sorted(whole)
    for part in range(3):
        save_file({name: whole[name] for name in names[part::3]}, tmp_path / f"model-{part}.safetensors")
    (tmp_path / "config.json").write_bytes((tiny.path / "config.json").read_bytes())
    rows = reference_rows(Checkpoint(name="split", path=tmp_path), TOKENS, SITES)
    expected = reference_rows(tiny, TOKENS, SITES)
    assert all(np.array_equal(rows[site], expected[site]) for site in expected)


def test_missing_and_quantised_weights_have_no_reference(tmp_path):
    folder = make_tiny("llama", tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.2.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointBroken, match=r"layers\.2\.mlp\.up_proj"):
        reference_rows(Checkpoint(name="cut", path=folder), TOKENS, SITES)
    config = json.loads((folder / "config.json").read_text())
    quantised = {**config, "quantization_config": {"quant_method": "fp8"}}
    (folder / "config.json").write_text(json.dumps(quantised))
    with pytest.raises(CheckpointBroken, match="of a quantiser"):
        reference_rows(Checkpoint(name="fp8", path=folder), TOKENS, SITES)
