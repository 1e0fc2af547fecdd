import pytest
import torch

from lrh_ray.errors import UnknownName
from lrh_ray.models.tiny import SHAPES, byte_tokenizer, make_tiny


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("family", sorted(SHAPES))
def test_the_same_seed_gives_the_same_bytes(family, tmp_path):
    first = contents(make_tiny(family, tmp_path / "a", seed=3))
    torch.rand(5)
    assert contents(make_tiny(family, tmp_path / "b", seed=3)) == first
    other = contents(make_tiny(family, tmp_path / "c", seed=4))
    assert {name for name in first if first[name] != other[name]} == {"model.safetensors"}


def test_the_global_random_state_is_left_alone(tmp_path):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    make_tiny("llama", tmp_path, seed=9)
    assert torch.equal(torch.rand(3), expected)


def test_an_unknown_family_names_the_known(tmp_path):
    with pytest.raises(UnknownName, match=r"deepseek_v3, .*gpt_neox, .*llama, .*qwen2"):
        make_tiny("mamba", tmp_path)


def test_the_tokenizer_has_one_token_per_byte():
    tokenizer = byte_tokenizer()
    text = "naïve ☃\n"
    assert len(tokenizer(text, add_special_tokens=False)["input_ids"]) == len(text.encode())
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    assert tokenizer("")["input_ids"] == [tokenizer.bos_token_id]
