"""The module that SAEBench evaluates has our codes, whatever it does with shapes and data types."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from exchange_material import KINDS, ROWS, TRANSCODERS, ours, read_rows

from lrh_ray.errors import ConfigError
from lrh_ray.exchange.saebench import benchable


@pytest.mark.parametrize("kind", KINDS)
def test_codes_and_rows_are_those_of_our_reader(kind):
    own = ours(kind)
    module = benchable(own, "gpt2")
    codes, rebuilt = read_rows(own)
    documents = torch.tensor(ROWS[:6]).reshape(2, 3, -1)
    found = module.encode(documents).reshape(6, -1).numpy()
    # Six rows here, all of them there: a product's rounding depends on how many rows it has, and on the processor.
    np.testing.assert_array_equal(found != 0, codes[:6] != 0)
    np.testing.assert_allclose(found, codes[:6], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(module(documents).reshape(6, -1).numpy(), rebuilt[:6], rtol=1e-6, atol=1e-6)
    assert module.W_enc.shape == module.W_dec.T.shape == (own.width, own.num_latents)
    assert module.b_enc.shape == (own.num_latents,)
    assert module.b_dec.shape == (own.width,)


def test_it_moves_to_another_data_type_as_a_whole():
    module = benchable(ours("jumprelu"), "gpt2").to(torch.bfloat16)
    assert module.dtype == module.W_enc.dtype == module.encode(torch.tensor(ROWS)).dtype == torch.bfloat16
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_it_says_where_it_belongs():
    told = asdict(benchable(ours("topk"), "pythia-70m").cfg)
    assert told["hook_name"] == "blocks.12.hook_resid_post"
    assert (told["hook_layer"], told["model_name"], told["d_in"]) == (12, "pythia-70m", ROWS.shape[1])
    with pytest.raises(ConfigError, match="belongs to no block"):
        benchable(ours("topk", site="final_norm"), "pythia-70m")


@pytest.mark.parametrize("name", TRANSCODERS)
def test_a_transcoder_is_refused_with_the_reason(name):
    with pytest.raises(ConfigError, match=r"a transcoder explains those of mlp_out\.14"):
        benchable(ours(name), "gpt2")
