"""Random weights: one seed, one model, however deep it is built and whoever builds it."""

import json
from contextlib import closing

import pytest
import torch
from transformers import AutoModel

from lrh_ray.config import parse_config
from lrh_ray.errors import ConfigError, UnsupportedFamily
from lrh_ray.models.backend import open_backend
from lrh_ray.models.checkpoints import checkpoint_digest, resolve_checkpoint
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.facts import model_facts, read_architecture
from lrh_ray.models.matrices import embedding
from lrh_ray.models.parity import compare_rows, reference_rows
from lrh_ray.models.random_weights import draw, random_model
from lrh_ray.models.skeleton import skeleton
from lrh_ray.models.streaming import StreamedModel
from lrh_ray.models.tiny import SHAPES, make_tiny
from lrh_ray.models.tokens import load_tokenizer, tokenize
from lrh_ray.records import Document

SITES = ["resid.0", "resid.2", "attn_out.3", "resid.4", "final_norm"]


@pytest.fixture(scope="module", params=sorted(SHAPES))
def folder(request, tiny_folder):
    return tiny_folder(request.param)


def model_of(folder, depth=4, seed=7, dtype=torch.float32):
    architecture = read_architecture(resolve_checkpoint(str(folder)))
    return random_model(architecture, seed=seed, depth=depth, dtype=dtype, device="cpu")


def tokens_of(checkpoint):
    documents = [Document(id="a", text="A text that is read. " * 8), Document(id="b", text="12")]
    return tokenize(documents, load_tokenizer(checkpoint), render="raw", bos="tokenizer", window=256, too_long="error")


def test_blocks_have_the_same_weights_at_every_depth(folder):
    deep, shallow = model_of(folder).state_dict(), model_of(folder, depth=2).state_dict()
    assert 0 < len(shallow) < len(deep)
    assert all(torch.equal(tensor, deep[name]) for name, tensor in shallow.items())


def test_one_seed_is_one_model_and_the_global_random_state_is_left_alone(folder):
    before = torch.random.get_rng_state()
    first, again, other = (model_of(folder, seed=seed).state_dict() for seed in (7, 7, 8))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    matrices = [name for name, tensor in first.items() if tensor.ndim > 1]
    assert matrices
    assert not any(torch.equal(first[name], other[name]) for name in matrices)
    drawn = [first[name].flatten()[:16].tolist() for name in matrices]
    assert all(one not in drawn[:index] for index, one in enumerate(drawn))  # no two tensors share a stream


def test_weights_begin_as_the_architecture_says(folder):
    """The oracle is transformers' own initialisation: constants are equal, spreads are alike."""
    architecture = read_architecture(resolve_checkpoint(str(folder)))
    torch.manual_seed(0)
    oracle = AutoModel.from_config(architecture, dtype=torch.float32)
    ours = dict(model_of(folder).named_parameters())
    for name, tensor in oracle.named_parameters():
        if tensor.unique().numel() == 1:
            assert torch.equal(ours[name], tensor), name
        else:
            assert float(ours[name].std()) == pytest.approx(float(tensor.detach().std()), rel=0.15), name
    buffers = dict(model_of(folder).named_buffers())
    assert all(torch.equal(buffers[name], buffer) for name, buffer in oracle.named_buffers())


def test_the_parity_certificate_passes_and_knows_the_seed(folder, collected):
    checkpoint = resolve_checkpoint(str(folder), "random(7)")
    config = ModelConfig(name=str(folder), weights="random(7)", batch_tokens=64)
    sites, tokens = model_facts(checkpoint, config, SITES).sites, tokens_of(checkpoint)
    with closing(open_backend(checkpoint, config, sites)) as backend:
        backend.forward(tokens, collected)
    compare_rows(collected.rows(), reference_rows(checkpoint, tokens, sites), dtype="float32").require()
    other = resolve_checkpoint(str(folder), "random(8)")
    assert not compare_rows(collected.rows(), reference_rows(other, tokens, sites), dtype="float32").passed


def test_bfloat16_is_the_rounded_float32(tiny_folder):
    whole, rounded = (model_of(tiny_folder("llama"), dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    for name, tensor in rounded.named_parameters():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, whole.get_parameter(name).bfloat16())


def test_random_weights_are_rounded_as_the_checkpoint_declares(tmp_path):
    """The model, its float32 reference and its matrices hold the same numbers, whatever format they run in."""
    folder = make_tiny("llama", tmp_path / "model")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "dtype": "bfloat16"}))
    checkpoint = resolve_checkpoint(str(folder), "random(7)")
    table = model_of(folder).get_parameter("embed_tokens.weight")
    assert table.dtype == torch.float32
    assert torch.equal(table, table.bfloat16().float())
    assert torch.equal(StreamedModel(checkpoint).embed(torch.arange(258))[0], table)
    assert torch.equal(embedding(checkpoint).float(), table)


def test_the_identity_of_a_model_holds_its_weights(tmp_path):
    folder = str(make_tiny("llama", tmp_path / "model"))
    words = ("trained", "random(1)", "random(2)")
    checkpoints = [resolve_checkpoint(folder, word) for word in words]
    digests = [model_facts(one, ModelConfig(name=folder), ["resid.0"]).digest for one in checkpoints]
    assert len(set(digests)) == 3
    assert [one.name.removeprefix(folder) for one in checkpoints] == ["", " random(1)", " random(2)"]
    assert checkpoint_digest(resolve_checkpoint(folder, "random(1)")) == digests[1]


def test_a_module_that_nobody_initialises_is_refused(tiny_folder):
    architecture = read_architecture(resolve_checkpoint(str(tiny_folder("llama"))))
    model = skeleton(architecture, AutoModel, dtype=torch.float32)
    stranger = torch.nn.Module()
    stranger.scale = torch.nn.Parameter(torch.empty(3, device="meta"))
    with pytest.raises(UnsupportedFamily, match="'scale' of the module 'strange'"):
        draw(model, [("strange", stranger)], seed=0, declared=torch.float32)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("weights: random", "random\\(SEED\\)"),
        ("weights: random(-1)", "random\\(SEED\\)"),
        ("weights: random(01)", "random\\(SEED\\)"),
        ("weights: random(0)\nengine: vllm", "engine: transformers"),
        ("weights: random(0)\ntensor_parallel: 2", "tensor_parallel: 1"),
    ],
)
def test_other_words_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(f"name: tiny\n{settings}\n", ModelConfig, source="model.yaml")


@pytest.mark.model
def test_random_smollm2_passes_parity_in_its_own_bfloat16(collected):
    try:
        checkpoint = resolve_checkpoint("smollm2", "random(0)")
    except FileNotFoundError:
        pytest.skip("the model smollm2 is not prepared: `lrh model prepare smollm2`")
    config = ModelConfig(name="smollm2", weights="random(0)")
    sites, tokens = model_facts(checkpoint, config, ["resid.0", "resid.5"]).sites, tokens_of(checkpoint)
    with closing(open_backend(checkpoint, config, sites)) as backend:
        backend.forward(tokens, collected)
    compare_rows(collected.rows(), reference_rows(checkpoint, tokens, sites), dtype="bfloat16").require()
