import pytest

from lrh_ray.errors import UnsupportedFamily
from lrh_ray.models import families
from lrh_ray.models.families import Family, family_of, known_families, register


def test_every_file_of_the_folder_is_a_family():
    assert {"llama", "qwen2", "gpt_neox", "deepseek_v3"} <= set(known_families())
    assert all(isinstance(family_of(name), Family) for name in known_families())


@pytest.mark.parametrize("model_type", ["mamba", "os", "../llama", ""])
def test_an_unknown_family_names_the_known_ones_and_the_remedy(model_type):
    with pytest.raises(UnsupportedFamily, match=r"no family file.*deepseek_v3, .*gpt_neox.*register\(") as caught:
        family_of(model_type)
    assert repr(model_type) in str(caught.value)


@pytest.mark.parametrize("content", ["import a_module_that_is_not_there", "FAMILIE = 1", "def", "FAMILY = 1"])
def test_a_broken_family_file_is_told_apart_from_an_unknown_one(content, tmp_path, monkeypatch):
    name = f"broken_{abs(hash(content))}"
    (tmp_path / f"{name}.py").write_text(content)
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(tmp_path)])
    with pytest.raises(UnsupportedFamily, match=r"repair the file|must be a Family"):
        family_of(name)


def test_a_registered_family_is_found(monkeypatch):
    monkeypatch.setattr(families, "_registered", {})
    family = Family(layers="decoder.blocks", final_norm="decoder.ln")
    register("my_llama", family)
    assert family_of("my_llama") is family
    assert "my_llama" in known_families()
