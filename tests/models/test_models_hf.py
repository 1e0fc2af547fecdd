import json
from contextlib import closing

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from lrh_ray.errors import CheckpointBroken, ConfigError
from lrh_ray.models.backend import open_backend
from lrh_ray.models.checkpoints import Checkpoint
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.sites import resolve_sites
from lrh_ray.models.tiny import byte_tokenizer, make_tiny
from lrh_ray.models.tokens import tokenize
from lrh_ray.records import Document

TEXTS = ("The first.", "A second, rather longer document: twice as long.", "3", "four 4", "quint " * 20)
EVERYWHERE = ("resid.*", "final_norm")


def tokens_of(*texts):
    documents = [Document(id=str(index), text=text) for index, text in enumerate(texts)]
    return tokenize(documents, byte_tokenizer(), render="raw", bos="tokenizer", window=256, too_long="error")


def extract(checkpoint, sink, texts=TEXTS, sites=EVERYWHERE, **config):
    specs = resolve_sites(sites, num_layers=4, hidden_size=64)
    with closing(open_backend(checkpoint, ModelConfig(name="tiny", **config), specs)) as backend:
        block = tokens_of(*texts)
        assert backend.forward(block, sink) == block.num_tokens
    rows = sink.rows()
    sink.parts.clear()
    assert {len(one) for one in rows.values()} == {block.num_tokens}
    return rows


def test_layers_are_counted_as_transformers_counts_them(tiny, collected):
    rows = extract(tiny, collected, texts=TEXTS[1:2])
    model = AutoModel.from_pretrained(tiny.path)
    ids = torch.from_numpy(tokens_of(TEXTS[1]).token_ids).long()[None]
    with torch.inference_mode():
        theirs = [state[0].numpy() for state in model(ids, output_hidden_states=True).hidden_states]
    ours = [*(f"resid.{layer}" for layer in range(4)), "final_norm"]
    for site, states in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(rows[site], states, rtol=1e-5, atol=1e-5)
    with torch.inference_mode():
        normed = model.get_submodule("final_layer_norm" if hasattr(model, "final_layer_norm") else "norm")(
            torch.from_numpy(rows["resid.4"])
        )
    np.testing.assert_allclose(rows["final_norm"], normed.numpy(), rtol=1e-5, atol=1e-5)
    steps = [np.linalg.norm(rows[f"resid.{k + 1}"] - rows[f"resid.{k}"]) for k in range(4)]
    assert min(steps) > 0.1 * np.linalg.norm(rows["resid.4"])  # the null: neighbouring layers are not alike


def test_a_document_gives_the_same_rows_alone_and_in_company(tiny, collected):
    together = extract(tiny, collected)
    starts = tokens_of(*TEXTS).starts
    for index, text in enumerate(TEXTS):
        alone = extract(tiny, collected, texts=[text])
        for site, rows in alone.items():
            part = together[site][starts[index] : starts[index + 1]]
            assert np.linalg.norm(part - rows, axis=1) / np.linalg.norm(rows, axis=1) == pytest.approx(0, abs=1e-5)


def test_a_changed_document_changes_its_own_rows_only(tiny_llama, collected):
    before = extract(tiny_llama, collected)["final_norm"]
    after = extract(tiny_llama, collected, texts=(TEXTS[0].upper(), *TEXTS[1:]))["final_norm"]
    own = tokens_of(*TEXTS).starts[1]
    assert np.array_equal(before[own:], after[own:])
    assert not np.allclose(before[1:own], after[1:own])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_block_gives_the_same_bytes_in_the_asked_dtype(tiny, dtype, collected):
    first = extract(tiny, collected, dtype=dtype, batch_tokens=64)
    again = extract(tiny, collected, dtype=dtype, batch_tokens=64)
    assert {site: rows.tobytes() for site, rows in first.items()} == {s: r.tobytes() for s, r in again.items()}
    expected = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16, "float32": np.float32}[dtype]
    assert {rows.dtype for rows in first.values()} == {np.dtype(expected)}


def test_rows_do_not_depend_on_how_deep_the_model_is_loaded(tiny, collected):
    whole = extract(tiny, collected)
    for sites in (["resid.0"], ["resid.2", "resid.1"], ["resid.4"]):
        for site, rows in extract(tiny, collected, sites=sites).items():
            assert np.array_equal(rows, whole[site])


def test_layers_above_the_deepest_site_are_not_needed(tiny_folder, tmp_path, collected):
    checkpoint = Checkpoint(name="tiny", path=make_tiny("llama", tmp_path))
    whole = extract(checkpoint, collected)
    weights = load_file(tmp_path / "model.safetensors")
    cut = {name: tensor for name, tensor in weights.items() if not name.startswith(("model.layers.3", "lm_head"))}
    save_file(cut, tmp_path / "model.safetensors", {"format": "pt"})
    assert np.array_equal(extract(checkpoint, collected, sites=["resid.3"])["resid.3"], whole["resid.3"])
    with pytest.raises(CheckpointBroken, match=r"lacks 9 weights .*layers\.3"):
        extract(checkpoint, collected, sites=["resid.4"])


def test_the_backend_says_how_it_works(tiny_llama):
    config = ModelConfig(name="tiny", dtype="bfloat16", device="cpu")
    with closing(open_backend(tiny_llama, config, resolve_sites(["resid.1"], num_layers=4, hidden_size=64))) as backend:
        facts = backend.describe()
    assert (facts.engine, facts.dtype, facts.device) == ("transformers", "bfloat16", "cpu")
    assert (facts.repeatable, facts.attention) == ("bytes", "sdpa")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_one_message(tiny_llama):
    with pytest.raises(ConfigError, match="use device: auto or device: cpu"):
        open_backend(
            tiny_llama, ModelConfig(name="tiny", device="cuda"), resolve_sites(EVERYWHERE, num_layers=4, hidden_size=64)
        )


def test_threads_are_set_and_given_back(tiny_llama):
    before = torch.get_num_threads()
    specs = resolve_sites(["resid.1"], num_layers=4, hidden_size=64)
    with closing(open_backend(tiny_llama, ModelConfig(name="tiny", threads=before + 1), specs)):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_errors_of_the_sink_pass_through_and_the_backend_survives(tiny_llama, collected):
    class Full:
        def write(self, site, offset, rows):
            raise OSError("disk full")

    specs = resolve_sites(["resid.2"], num_layers=4, hidden_size=64)
    with closing(open_backend(tiny_llama, ModelConfig(name="tiny"), specs)) as backend:
        with pytest.raises(OSError, match="disk full"):
            backend.forward(tokens_of("abc"), Full())
        assert backend.forward(tokens_of("abc"), collected) == 4
    assert len(collected.rows()["resid.2"]) == 4


def test_pickles_beside_safetensors_are_not_read(tmp_path, collected):
    folder = make_tiny("llama", tmp_path)
    (folder / "pytorch_model.bin").write_bytes(b"not a pickle")
    assert json.loads((folder / "config.json").read_text())["model_type"] == "llama"
    extract(Checkpoint(name="tiny", path=folder), collected, sites=["resid.1"])
